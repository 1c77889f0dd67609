import type { LogId, LogIndex, StoredMembership, Term, TermRun } from './types.js';

/**
 * What nodes say to one another. Entry bytes are not here: the network carries them untouched beside
 * an `AppendRequest`, and the receiver's runtime describes them to the engine as `ReceivedEntries`.
 *
 * `term` is always the sender's current term, except in a pre-vote, where it is the term that the
 * sender would campaign in.
 */
export interface PreVoteRequest {
  readonly type: 'PreVoteRequest';
  readonly term: Term;
  readonly lastLogId: LogId;
}

export interface PreVoteResponse {
  readonly type: 'PreVoteResponse';
  readonly term: Term;
  /** The term that was asked about. */
  readonly requestTerm: Term;
  readonly granted: boolean;
}

export interface VoteRequest {
  readonly type: 'VoteRequest';
  readonly term: Term;
  readonly lastLogId: LogId;
}

export interface VoteResponse {
  readonly type: 'VoteResponse';
  readonly term: Term;
  readonly requestTerm: Term;
  readonly granted: boolean;
}

export interface AppendRequest {
  readonly type: 'AppendRequest';
  readonly term: Term;
  /** Replication session of the leader towards this follower; answers to an older one are dropped. */
  readonly session: number;
  readonly prevLogId: LogId;
  /** Index of the last entry carried; equal to `prevLogId.index` for an empty probe. */
  readonly lastIndex: LogIndex;
  readonly committed: LogIndex;
}

/** How the runtime describes the verified entries of an `AppendRequest` to the engine. */
export interface ReceivedEntries {
  /** Runs of the entries, starting at `prevLogId.index + 1`; empty for a probe. */
  readonly termRuns: readonly TermRun[];
  readonly lastIndex: LogIndex;
  readonly memberships: readonly StoredMembership[];
}

export interface AppendResponse {
  readonly type: 'AppendResponse';
  readonly term: Term;
  readonly session: number;
  /** Accepted: everything up to here is durable and equal to the leader's log. */
  readonly matchIndex: LogIndex;
  /** Set when `prevLogId` did not match. */
  readonly conflict: AppendConflict | undefined;
}

/**
 * Where the leader shall look next: the follower's term at the rejected place (or its last entry)
 * and the first index that it holds of that term. `term` 0 means: nothing there.
 */
export interface AppendConflict {
  readonly rejectedIndex: LogIndex;
  readonly term: Term;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
}

export interface HeartbeatRequest {
  readonly type: 'HeartbeatRequest';
  readonly term: Term;
  /** Never beyond what the leader knows this follower to match. */
  readonly committed: LogIndex;
  /** Heartbeat round; acknowledgements confirm reads that were requested before it began. */
  readonly round: number;
}

export interface HeartbeatResponse {
  readonly type: 'HeartbeatResponse';
  readonly term: Term;
  readonly round: number;
}

/**
 * A piece of a snapshot file, for a follower that needs purged entries; the bytes stand beside it. One
 * without bytes offers the snapshot, or asks how far it is.
 */
export interface SnapshotRequest {
  readonly type: 'SnapshotRequest';
  readonly term: Term;
  /** Replication session, as in an append. */
  readonly session: number;
  /** 16 bytes in hexadecimal. */
  readonly snapshotId: string;
  readonly lastIncluded: LogId;
  /** Of the whole file. */
  readonly totalBytes: number;
  /** Where the bytes stand in the file. */
  readonly offset: number;
}

/**
 * - `receiving`: everything before `offset` is written; send on from there. At the end of the file: it
 *   is being verified and installed.
 * - `installed`: everything up to `matchIndex` is durable and equal to the leader's log.
 * - `failed`: it could not be taken; begin again later.
 */
export interface SnapshotResponse {
  readonly type: 'SnapshotResponse';
  readonly term: Term;
  readonly session: number;
  readonly state: 'receiving' | 'installed' | 'failed';
  readonly offset: number;
  readonly matchIndex: LogIndex;
}

export type ControlMessage =
  | PreVoteRequest
  | PreVoteResponse
  | VoteRequest
  | VoteResponse
  | AppendResponse
  | HeartbeatRequest
  | HeartbeatResponse
  | SnapshotResponse;

export type Message = ControlMessage | AppendRequest | SnapshotRequest;
