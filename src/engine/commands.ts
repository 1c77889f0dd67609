import type { ControlMessage } from './messages.js';
import type { IoId, LogId, LogIndex, Membership, NodeId, Role, Term, Vote } from './types.js';

/**
 * What the engine wants done. A command is emitted only when its condition holds, or it names the
 * condition; no order between lanes is assumed. Log commands never overtake one another.
 *
 * | lane          | command         | waits for                                                |
 * |---------------|-----------------|----------------------------------------------------------|
 * | log           | SaveVote        | nothing                                                  |
 * | log           | AppendEntries   | nothing                                                  |
 * | log           | TruncateAfter   | nothing                                                  |
 * | log           | AdvanceIo       | earlier I/O; writes no bytes                             |
 * | log           | PurgeUpTo       | nothing: emitted when the snapshot is durable, and no    |
 * |               |                 | transfer needs the entries                               |
 * | log           | ResetLog        | nothing: emitted when the installed snapshot is durable  |
 * | network       | Send            | nothing: the engine held it until its I/O was durable    |
 * | network       | Replicate       | entry bytes readable; still leader of its term when sent |
 * | network       | SendSnapshot    | the file is pinned; still leader of its term when sent   |
 * | state machine | Apply           | nothing: committed and locally flushed when emitted      |
 * | state machine | BuildSnapshot   | pins a view in the lane, then runs beside it             |
 * | state machine | InstallSnapshot | nothing: all of the file is verified and durable         |
 * | respond       | ReadReady …     | nothing                                                  |
 */
export type Command =
  | SaveVote
  | AppendEntries
  | TruncateAfter
  | AdvanceIo
  | PurgeUpTo
  | ResetLog
  | Send
  | Replicate
  | SendSnapshot
  | Commit
  | Apply
  | BuildSnapshot
  | InstallSnapshot
  | ReadReady
  | ReadFailed
  | LeadershipChanged
  | MembershipChanged;

export interface SaveVote {
  readonly type: 'SaveVote';
  readonly io: IoId;
}

/** Where the bytes of appended entries come from. */
export type EntrySource = 'client' | 'received' | 'blank' | 'bootstrap';

export interface AppendEntries {
  readonly type: 'AppendEntries';
  readonly io: IoId;
  readonly source: EntrySource;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  /** Term of the entries when the source is not `received`. */
  readonly term: Term;
}

/** Everything behind `index` is overwritten; its waiters fail with an unknown outcome. */
export interface TruncateAfter {
  readonly type: 'TruncateAfter';
  readonly io: IoId;
  readonly index: LogIndex;
}

export interface AdvanceIo {
  readonly type: 'AdvanceIo';
  readonly io: IoId;
}

/** Entries up to `upTo` may go: a durable snapshot holds their effect. */
export interface PurgeUpTo {
  readonly type: 'PurgeUpTo';
  readonly upTo: LogId;
}

/**
 * The log is empty behind `lastIncluded`: an installed snapshot took its place. Who waits for an entry
 * of the old log will never know.
 */
export interface ResetLog {
  readonly type: 'ResetLog';
  readonly io: IoId;
  readonly lastIncluded: LogId;
}

export interface Send {
  readonly type: 'Send';
  readonly target: NodeId;
  readonly message: ControlMessage;
}

/**
 * Send entries behind `prevLogId`, as many as fit into `maxBytes` (at least one, if there is any) and
 * none beyond `lastIndex`. They may be purged by the time that a held command is run. The runtime
 * answers with `engine.replicated(…)` or, when it cannot, `engine.replicateFailed(…)`; until then no
 * other Replicate goes to this target.
 *
 * It may be sent although a newer session has begun meanwhile: a leader's log is never changed within
 * its term, so the entries are right, and answers to an older session say nothing.
 */
export interface Replicate {
  readonly type: 'Replicate';
  readonly target: NodeId;
  readonly term: Term;
  readonly session: number;
  readonly prevLogId: LogId;
  readonly lastIndex: LogIndex;
  readonly maxBytes: number;
  readonly committed: LogIndex;
}

/**
 * Send the snapshot of `lastIncluded`; the follower needs entries that are purged. A command for the
 * same target takes the place of an earlier one. It ends with `snapshots.sendFailed(…)`, with the
 * follower's answer, or when `snapshots.sends(…)` is false.
 */
export interface SendSnapshot {
  readonly type: 'SendSnapshot';
  readonly target: NodeId;
  readonly term: Term;
  readonly session: number;
  readonly lastIncluded: LogId;
}

/** Build a snapshot of what is applied; ends with `snapshots.built` or `snapshots.buildFailed`. */
export interface BuildSnapshot {
  readonly type: 'BuildSnapshot';
}

/** Restore the machine from the durable snapshot of `lastIncluded`; ends with `snapshots.installed`. */
export interface InstallSnapshot {
  readonly type: 'InstallSnapshot';
  readonly lastIncluded: LogId;
}

export interface Commit {
  readonly type: 'Commit';
  readonly index: LogIndex;
}

export interface Apply {
  readonly type: 'Apply';
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
}

/** All reads of rounds up to `round` may be answered once `index` has been applied. */
export interface ReadReady {
  readonly type: 'ReadReady';
  readonly round: number;
  readonly index: LogIndex;
}

/** All reads of rounds up to `round` cannot be confirmed: this node no longer leads. */
export interface ReadFailed {
  readonly type: 'ReadFailed';
  readonly round: number;
}

/** Role, term, or the known leader has changed. `leader` is 0 when nobody is known. */
export interface LeadershipChanged {
  readonly type: 'LeadershipChanged';
  readonly role: Role;
  readonly term: Term;
  readonly leader: NodeId;
  readonly vote: Vote;
}

export interface MembershipChanged {
  readonly type: 'MembershipChanged';
  readonly index: LogIndex;
  readonly membership: Membership;
}
