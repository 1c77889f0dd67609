/**
 * Term, vote and commit of a group as bytes: in the trailer of every batch that touches the group
 * (HARD_STATE), and in the checkpoint at the start of a segment (CHECKPOINT). Each record carries its
 * own checksum, so that any copy that survives can be believed; the highest vote wins.
 */
import type { LogId, Vote } from '../engine/types.js';
import { NO_LOG_ID, NO_VOTE } from '../engine/types.js';
import { CHECKPOINT, HARD_STATE } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { readU64, sealRecord, verifiesAlone, writeU64 } from './storage-memory.js';

const VOTE_COMMITTED = 1;

export interface GroupHardState {
  readonly group: number;
  readonly vote: Vote;
  readonly committed: number;
}

/** A copy that was found outside a valid batch. */
export interface RescuedHardState extends GroupHardState {
  /** Of the batch to which it belonged. */
  readonly lsn: number;
}

/** What a segment says of a group: the state after all earlier batches of the lane. */
export interface GroupCheckpoint extends GroupHardState {
  readonly purged: LogId;
  readonly snapshot: LogId;
  /** 16 bytes; zero when there is no snapshot. */
  readonly snapshotId: Uint8Array;
}

export function emptyCheckpoint(group: number): GroupCheckpoint {
  return {
    group,
    vote: NO_VOTE,
    committed: 0,
    purged: NO_LOG_ID,
    snapshot: NO_LOG_ID,
    snapshotId: new Uint8Array(16),
  };
}

/** Term first; within a term: nobody < a granted vote < the elected leader. */
export function isHigherVote(vote: Vote, than: Vote): boolean {
  return vote.term !== than.term ? vote.term > than.term : voteRank(vote) > voteRank(than);
}

function voteRank(vote: Vote): number {
  if (vote.nodeId === 0) return 0;
  return vote.committed ? 2 : 1;
}

export function readHardState(view: DataView, pointer: number): GroupHardState {
  const { offset } = HARD_STATE;
  return {
    group: view.getUint32(pointer + offset.group, true),
    vote: {
      term: readU64(view, pointer + offset.term),
      nodeId: readU64(view, pointer + offset.votedFor),
      committed: (view.getUint32(pointer + offset.flags, true) & VOTE_COMMITTED) !== 0,
    },
    committed: readU64(view, pointer + offset.committed),
  };
}

/** Undefined when no hard state stands at `pointer` that was written in this use of the segment. */
export function rescueHardState(
  memory: SharedHeap,
  pointer: number,
  epoch: number,
  scratch: number,
): RescuedHardState | undefined {
  const { view } = memory;
  const { offset } = HARD_STATE;
  const own =
    view.getUint32(pointer + offset.magic, true) === HARD_STATE.magic &&
    readU64(view, pointer + offset.epoch) === epoch &&
    verifiesAlone(memory, pointer, offset.checksum, scratch);
  if (!own) return undefined;
  return { ...readHardState(view, pointer), lsn: readU64(view, pointer + offset.lsn) };
}

export function writeCheckpoint(memory: SharedHeap, pointer: number, state: GroupCheckpoint): void {
  const { view } = memory;
  const { offset } = CHECKPOINT;
  memory.bytes.fill(0, pointer, pointer + CHECKPOINT.bytes);
  view.setUint32(pointer + offset.magic, CHECKPOINT.magic, true);
  view.setUint32(pointer + offset.group, state.group, true);
  writeU64(view, pointer + offset.term, state.vote.term);
  writeU64(view, pointer + offset.votedFor, state.vote.nodeId);
  view.setUint32(pointer + offset.flags, state.vote.committed ? VOTE_COMMITTED : 0, true);
  writeU64(view, pointer + offset.committed, state.committed);
  writeU64(view, pointer + offset.purgedIndex, state.purged.index);
  writeU64(view, pointer + offset.purgedTerm, state.purged.term);
  writeU64(view, pointer + offset.snapshotIndex, state.snapshot.index);
  writeU64(view, pointer + offset.snapshotTerm, state.snapshot.term);
  memory.bytes.set(state.snapshotId, pointer + offset.snapshotId);
  sealRecord(memory, pointer, offset.checksum);
}

/** Undefined when the record does not verify. */
export function readCheckpoint(
  memory: SharedHeap,
  pointer: number,
  scratch: number,
): GroupCheckpoint | undefined {
  const { view } = memory;
  const { offset } = CHECKPOINT;
  if (view.getUint32(pointer + offset.magic, true) !== CHECKPOINT.magic) return undefined;
  if (!verifiesAlone(memory, pointer, offset.checksum, scratch)) return undefined;
  return {
    group: view.getUint32(pointer + offset.group, true),
    vote: {
      term: readU64(view, pointer + offset.term),
      nodeId: readU64(view, pointer + offset.votedFor),
      committed: (view.getUint32(pointer + offset.flags, true) & VOTE_COMMITTED) !== 0,
    },
    committed: readU64(view, pointer + offset.committed),
    purged: {
      index: readU64(view, pointer + offset.purgedIndex),
      term: readU64(view, pointer + offset.purgedTerm),
    },
    snapshot: {
      index: readU64(view, pointer + offset.snapshotIndex),
      term: readU64(view, pointer + offset.snapshotTerm),
    },
    snapshotId: memory.bytes.slice(pointer + offset.snapshotId, pointer + offset.snapshotId + 16),
  };
}
