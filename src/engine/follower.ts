import { invariant } from './invariant.js';
import type {
  AppendConflict,
  AppendRequest,
  AppendResponse,
  HeartbeatRequest,
  HeartbeatResponse,
  ReceivedEntries,
  SnapshotRequest,
  SnapshotResponse,
} from './messages.js';
import type { NodeState } from './node-state.js';
import type { LogIndex, NodeId, SnapshotMeta } from './types.js';

/**
 * The follower's side of replication. The sender is known to lead the present term.
 *
 * Only entries that differ are truncated: an old or repeated append changes nothing. What is
 * acknowledged is what this message verified, prefix and entries, and only once it is durable here;
 * for commitment the same bound holds.
 */
export function appendFromLeader(
  state: NodeState,
  from: NodeId,
  request: AppendRequest,
  entries: ReceivedEntries,
): void {
  const { prevLogId } = request;
  const conflict = findConflict(state, prevLogId.index, prevLogId.term);
  if (conflict !== undefined) {
    state.replyAfterVote(from, appendResponse(state, request, 0, conflict));
    return;
  }
  const { lastIndex } = entries;
  const firstMissing = state.log.firstMissing(prevLogId.index, entries.termRuns, lastIndex);
  if (firstMissing <= lastIndex) store(state, entries, firstMissing);
  else if (state.io.pending > 0) state.advanceIo();
  state.commitUpTo(Math.min(request.committed, lastIndex));
  state.replyAfterLog(from, appendResponse(state, request, lastIndex, undefined));
}

/**
 * Whether the snapshot that the leader offers is to be taken. One that this log leads to already is
 * not: its entries are committed, so the log stays, and is worth as much.
 */
export function wantsSnapshot(state: NodeState, from: NodeId, request: SnapshotRequest): boolean {
  const { lastIncluded } = request;
  if (!state.holds(lastIncluded)) return true;
  state.commitUpTo(lastIncluded.index);
  answerInstalled(state, from, request.session, lastIncluded.index);
  return false;
}

/** All of a snapshot is durable. An old one, or one that the log has caught up with, changes nothing. */
export function installFromLeader(
  state: NodeState,
  from: NodeId,
  request: SnapshotRequest,
  snapshot: SnapshotMeta,
): void {
  if (state.holds(snapshot.lastIncluded)) state.commitUpTo(snapshot.lastIncluded.index);
  else state.installSnapshot(snapshot);
  if (request.term !== state.term) return;
  answerInstalled(state, from, request.session, snapshot.lastIncluded.index);
}

export function rejectOldSnapshot(state: NodeState, from: NodeId, request: SnapshotRequest): void {
  state.replyAfterVote(from, snapshotResponse(state, request.session, 'failed', 0));
}

/** How far the file has come, or that it cannot be taken. Of a leader that is deposed nobody is told. */
export function answerSnapshot(
  state: NodeState,
  from: NodeId,
  { term, session }: SnapshotRequest,
  result: 'receiving' | 'failed',
  offset: number,
): void {
  if (term !== state.term) return;
  state.replyAfterVote(from, { ...snapshotResponse(state, session, result, 0), offset });
}

function answerInstalled(state: NodeState, from: NodeId, session: number, index: LogIndex): void {
  state.replyAfterLog(from, snapshotResponse(state, session, 'installed', index));
}

function snapshotResponse(
  state: NodeState,
  session: number,
  result: SnapshotResponse['state'],
  matchIndex: LogIndex,
): SnapshotResponse {
  const { term } = state;
  return { type: 'SnapshotResponse', term, session, state: result, offset: 0, matchIndex };
}

/** Answers an append of a leader that has been deposed: it learns the present term. */
export function rejectOldLeader(state: NodeState, from: NodeId, request: AppendRequest): void {
  state.replyAfterVote(from, appendResponse(state, request, 0, undefined));
}

export function answerHeartbeat(state: NodeState, from: NodeId, request: HeartbeatRequest): void {
  const response: HeartbeatResponse = {
    type: 'HeartbeatResponse',
    term: state.term,
    round: request.round,
  };
  state.replyAfterVote(from, response);
}

/**
 * A leader names in a heartbeat only what this follower has acknowledged as durable and equal, so
 * all of it is here, unless the disk has lost it.
 */
export function commitFromHeartbeat(state: NodeState, request: HeartbeatRequest): void {
  state.commitUpTo(Math.min(request.committed, state.log.lastIndex));
}

function findConflict(
  state: NodeState,
  prevIndex: LogIndex,
  prevTerm: number,
): AppendConflict | undefined {
  const { log } = state;
  const ownTerm = log.termAt(prevIndex);
  if (ownTerm === prevTerm) return undefined;
  if (prevIndex <= state.committed) {
    // The leader has every committed entry; what is purged here cannot be compared any more.
    invariant(ownTerm === -1, 'committed entries are equal', prevIndex, ownTerm);
    return undefined;
  }
  const { lastIndex } = log;
  if (prevIndex > lastIndex) {
    const firstIndex = log.firstIndexOfRunAt(lastIndex);
    return { rejectedIndex: prevIndex, term: log.lastTerm, firstIndex, lastIndex };
  }
  const firstIndex = log.firstIndexOfRunAt(prevIndex);
  return { rejectedIndex: prevIndex, term: ownTerm, firstIndex, lastIndex };
}

function store(state: NodeState, entries: ReceivedEntries, firstIndex: LogIndex): void {
  if (firstIndex <= state.log.lastIndex) state.truncateAfter(firstIndex - 1);
  state.appendReceived(entries.termRuns, firstIndex, entries.lastIndex);
  for (let i = 0; i < entries.memberships.length; i++) {
    const stored = entries.memberships[i]!;
    if (stored.index >= firstIndex) state.appendMembership(stored);
  }
}

function appendResponse(
  state: NodeState,
  request: AppendRequest,
  matchIndex: LogIndex,
  conflict: AppendConflict | undefined,
): AppendResponse {
  const { session } = request;
  return { type: 'AppendResponse', term: state.term, session, matchIndex, conflict };
}
