import type { ErrorCode, ErrorRecord, Outcome } from '../base/errors.js';
import type { AppendRequest, ControlMessage } from '../engine/messages.js';
import { bytesOf, readU64, writeU64 } from './codec-numbers.js';
import {
  booleanField,
  type FlatRecord,
  integerField,
  packRecord,
  RECORD,
  stringField,
  unpackRecord,
} from './control-codec.js';
import { corruptFrame, FRAME } from './frame.js';
import type { ForwardRequest } from './network.js';
import { MAX_TIMEOUT_MS } from './request-table.js';
import { readSnapshotResponse, writeSnapshotResponse } from './snapshot-codec.js';

/**
 * The bodies of frames. Encoders write into the sender's buffer at `at`, decoders read in place and
 * throw CORRUPT_FRAME for everything that the types do not allow.
 *
 * append, 48 bytes: term, session, prevLogId.term, prevLogId.index, lastIndex, committed (u64 each).
 *
 * appendResponse, 64 bytes: term, session, matchIndex (u64), 1 if there is a conflict (u32), zero
 * (u32), then rejectedIndex, term, firstIndex, lastIndex of the conflict (u64, zero if there is none).
 */
export function writeAppend(view: DataView, at: number, message: AppendRequest): void {
  writeU64(view, at, message.term);
  writeU64(view, at + 8, message.session);
  writeU64(view, at + 16, message.prevLogId.term);
  writeU64(view, at + 24, message.prevLogId.index);
  writeU64(view, at + 32, message.lastIndex);
  writeU64(view, at + 40, message.committed);
}

export function readAppend(view: DataView, at: number): AppendRequest {
  const message: AppendRequest = {
    type: 'AppendRequest',
    term: readU64(view, at),
    session: readU64(view, at + 8),
    prevLogId: { term: readU64(view, at + 16), index: readU64(view, at + 24) },
    lastIndex: readU64(view, at + 32),
    committed: readU64(view, at + 40),
  };
  if (message.lastIndex < message.prevLogId.index) throw corruptFrame('an append that goes back');
  return message;
}

/** Type of the frame that carries a control message. */
export function frameTypeOf(message: ControlMessage): number {
  switch (message.type) {
    case 'AppendResponse':
      return FRAME.appendResponse;
    case 'SnapshotResponse':
      return FRAME.snapshotResponse;
    case 'HeartbeatRequest':
      return FRAME.heartbeatRequest;
    case 'HeartbeatResponse':
      return FRAME.heartbeatResponse;
    case 'VoteRequest':
    case 'PreVoteRequest':
      return FRAME.voteRequest;
    case 'VoteResponse':
    case 'PreVoteResponse':
      return FRAME.voteResponse;
  }
}

/** The whole body of a vote message; undefined for messages that `writeControl` writes in place. */
export function packVote(message: ControlMessage): Uint8Array | undefined {
  switch (message.type) {
    case 'VoteRequest':
    case 'PreVoteRequest':
      return packRecord({
        preVote: message.type === 'PreVoteRequest',
        term: message.term,
        lastTerm: message.lastLogId.term,
        lastIndex: message.lastLogId.index,
      });
    case 'VoteResponse':
    case 'PreVoteResponse':
      return packRecord({
        preVote: message.type === 'PreVoteResponse',
        term: message.term,
        requestTerm: message.requestTerm,
        granted: message.granted,
      });
    default:
      return undefined;
  }
}

export function writeControl(view: DataView, at: number, message: ControlMessage): void {
  writeU64(view, at, message.term);
  switch (message.type) {
    case 'HeartbeatRequest':
      writeU64(view, at + 8, message.committed);
      writeU64(view, at + 16, message.round);
      break;
    case 'HeartbeatResponse':
      writeU64(view, at + 8, message.round);
      break;
    case 'AppendResponse': {
      const { conflict } = message;
      writeU64(view, at + 8, message.session);
      writeU64(view, at + 16, message.matchIndex);
      view.setUint32(at + 24, conflict === undefined ? 0 : 1, true);
      view.setUint32(at + 28, 0, true);
      writeU64(view, at + 32, conflict?.rejectedIndex ?? 0);
      writeU64(view, at + 40, conflict?.term ?? 0);
      writeU64(view, at + 48, conflict?.firstIndex ?? 0);
      writeU64(view, at + 56, conflict?.lastIndex ?? 0);
      break;
    }
    case 'SnapshotResponse':
      writeSnapshotResponse(view, at, message);
      break;
  }
}

export function readControl(
  type: number,
  view: DataView,
  at: number,
  length: number,
): ControlMessage {
  switch (type) {
    case FRAME.heartbeatRequest:
      return {
        type: 'HeartbeatRequest',
        term: readU64(view, at),
        committed: readU64(view, at + 8),
        round: readU64(view, at + 16),
      };
    case FRAME.heartbeatResponse:
      return { type: 'HeartbeatResponse', term: readU64(view, at), round: readU64(view, at + 8) };
    case FRAME.appendResponse:
      return readAppendResponse(view, at);
    case FRAME.snapshotResponse:
      return readSnapshotResponse(view, at);
    case FRAME.voteRequest:
      return readVoteRequest(unpackRecord(bytesOf(view, at, length), RECORD.voteRequest));
    case FRAME.voteResponse:
      return readVoteResponse(unpackRecord(bytesOf(view, at, length), RECORD.voteResponse));
    default:
      throw corruptFrame(`type ${type} is not a control message`);
  }
}

function readAppendResponse(view: DataView, at: number): ControlMessage {
  const flag = view.getUint32(at + 24, true);
  const conflict = {
    rejectedIndex: readU64(view, at + 32),
    term: readU64(view, at + 40),
    firstIndex: readU64(view, at + 48),
    lastIndex: readU64(view, at + 56),
  };
  if (flag > 1 || view.getUint32(at + 28, true) !== 0) throw corruptFrame('an unknown flag');
  return {
    type: 'AppendResponse',
    term: readU64(view, at),
    session: readU64(view, at + 8),
    matchIndex: readU64(view, at + 16),
    conflict: flag === 1 ? conflict : undefined,
  };
}

function readVoteRequest(record: FlatRecord): ControlMessage {
  return {
    type: booleanField(record, 'preVote') ? 'PreVoteRequest' : 'VoteRequest',
    term: integerField(record, 'term'),
    lastLogId: { term: integerField(record, 'lastTerm'), index: integerField(record, 'lastIndex') },
  };
}

function readVoteResponse(record: FlatRecord): ControlMessage {
  return {
    type: booleanField(record, 'preVote') ? 'PreVoteResponse' : 'VoteResponse',
    term: integerField(record, 'term'),
    requestTerm: integerField(record, 'requestTerm'),
    granted: booleanField(record, 'granted'),
  };
}

const FORWARD_KINDS = ['write', 'readIndex'] as const;

export function writeForwardRequest(
  view: DataView,
  at: number,
  id: number,
  request: ForwardRequest,
): void {
  writeU64(view, at, id);
  view.setUint32(
    at + 8,
    Math.min(Math.max(0, Math.floor(request.timeoutMs)), MAX_TIMEOUT_MS),
    true,
  );
  view.setUint32(at + 12, FORWARD_KINDS.indexOf(request.kind), true);
}

export function readForwardRequest(
  view: DataView,
  at: number,
  payload: Uint8Array,
): { id: number; request: ForwardRequest } {
  const timeoutMs = view.getUint32(at + 8, true);
  const kind = FORWARD_KINDS[view.getUint32(at + 12, true)];
  if (kind === undefined || timeoutMs > MAX_TIMEOUT_MS) throw corruptFrame('an unknown request');
  return { id: readU64(view, at), request: { kind, payload, timeoutMs } };
}

/** Longest texts that cross in an error; the frame of a response stays bounded. */
const MAX_TEXT_CHARACTERS = 1024;

export function packError(error: ErrorRecord): Uint8Array {
  return packRecord({
    code: error.code,
    message: error.message.slice(0, MAX_TEXT_CHARACTERS),
    outcome: error.outcome,
    leaderId: error.leader?.nodeId ?? null,
    leaderAddress: error.leader?.address?.slice(0, MAX_TEXT_CHARACTERS) ?? null,
    details: detailsText(error.details),
  });
}

export function unpackError(bytes: Uint8Array): ErrorRecord {
  const record = unpackRecord(bytes, RECORD.error);
  const code = stringField(record, 'code');
  const outcome = stringField(record, 'outcome');
  if (!/^KEELSON_[A-Z_]{1,64}$/.test(code)) throw corruptFrame('an unknown error code');
  if (outcome !== 'rejected' && outcome !== 'unknown') throw corruptFrame('an unknown outcome');
  const leaderAddress = record.leaderAddress;
  if (leaderAddress !== null) stringField(record, 'leaderAddress');
  return {
    code: code as ErrorCode,
    message: stringField(record, 'message'),
    outcome: outcome satisfies Outcome,
    leader:
      record.leaderId === null
        ? undefined
        : {
            nodeId: integerField(record, 'leaderId', 1),
            address: leaderAddress === null ? undefined : (leaderAddress as string),
          },
    details: parseDetails(stringField(record, 'details')),
  };
}

/** Details are for people: those that do not fit stay behind. */
function detailsText(details: ErrorRecord['details']): string {
  const scalars = Object.entries(details ?? {}).filter(
    ([, value]) => typeof value === 'number' || typeof value === 'string' || value === true,
  );
  const text = JSON.stringify(Object.fromEntries(scalars));
  return text.length > MAX_TEXT_CHARACTERS ? '{}' : text;
}

function parseDetails(text: string): Readonly<Record<string, unknown>> {
  let details: unknown;
  try {
    details = JSON.parse(text);
  } catch {
    throw corruptFrame('details of an error that are not JSON');
  }
  if (typeof details !== 'object' || details === null || Array.isArray(details)) {
    throw corruptFrame('details of an error that are not an object');
  }
  return details as Record<string, unknown>;
}
