import type { SnapshotRequest, SnapshotResponse } from '../engine/messages.js';
import { bytesOf, readU64, writeU64 } from './codec-numbers.js';
import { corruptFrame } from './frame.js';

/**
 * The bodies of the frames of a snapshot transfer.
 *
 * snapshot, 64 bytes: term, session, lastIncluded.term, lastIncluded.index, totalBytes, offset (u64
 * each), id (16 bytes); then bytes of the file.
 *
 * snapshotResponse, 40 bytes: term, session, offset, matchIndex (u64 each), state (u32), zero (u32).
 */
export function writeSnapshot(view: DataView, at: number, message: SnapshotRequest): void {
  writeU64(view, at, message.term);
  writeU64(view, at + 8, message.session);
  writeU64(view, at + 16, message.lastIncluded.term);
  writeU64(view, at + 24, message.lastIncluded.index);
  writeU64(view, at + 32, message.totalBytes);
  writeU64(view, at + 40, message.offset);
  bytesOf(view, at + 48, 16).set(Buffer.from(message.snapshotId, 'hex'));
}

/** `bytes`: how many follow the fixed part. */
export function readSnapshot(view: DataView, at: number, bytes: number): SnapshotRequest {
  const message: SnapshotRequest = {
    type: 'SnapshotRequest',
    term: readU64(view, at),
    session: readU64(view, at + 8),
    lastIncluded: { term: readU64(view, at + 16), index: readU64(view, at + 24) },
    totalBytes: readU64(view, at + 32),
    offset: readU64(view, at + 40),
    snapshotId: Buffer.from(bytesOf(view, at + 48, 16)).toString('hex'),
  };
  const { term, lastIncluded, offset, totalBytes } = message;
  if (lastIncluded.index === 0 || lastIncluded.term > term || offset + bytes > totalBytes) {
    throw corruptFrame('a piece of a snapshot that has no place in it');
  }
  return message;
}

const STATES = ['receiving', 'installed', 'failed'] as const;

export function writeSnapshotResponse(view: DataView, at: number, message: SnapshotResponse): void {
  writeU64(view, at, message.term);
  writeU64(view, at + 8, message.session);
  writeU64(view, at + 16, message.offset);
  writeU64(view, at + 24, message.matchIndex);
  view.setUint32(at + 32, STATES.indexOf(message.state), true);
  view.setUint32(at + 36, 0, true);
}

export function readSnapshotResponse(view: DataView, at: number): SnapshotResponse {
  const state = STATES[view.getUint32(at + 32, true)];
  if (state === undefined || view.getUint32(at + 36, true) !== 0) {
    throw corruptFrame('an unknown state of a snapshot');
  }
  return {
    type: 'SnapshotResponse',
    term: readU64(view, at),
    session: readU64(view, at + 8),
    state,
    offset: readU64(view, at + 16),
    matchIndex: readU64(view, at + 24),
  };
}
