import type { KeelsonError } from './base/errors.js';
import type { GroupLoss, LogId, NodeId, Role } from './engine/types.js';

/** Options that every asynchronous method takes. */
export interface CallOptions {
  /** Gives up waiting. A write that was already appended may still commit: outcome `unknown`. */
  readonly signal?: AbortSignal;
  /**
   * Time for the whole call, ms. Default: `limits.callTimeoutMs` of the configuration; none for opening
   * and closing.
   */
  readonly timeoutMs?: number;
}

export interface WriteResult<Response> {
  readonly response: Response;
  readonly logId: LogId;
}

/**
 * - `linearizable` (default): sees every write that was acknowledged anywhere before the call.
 * - `local`: what this node has applied, at once; may be old.
 * - `{ atLeast }`: waits until this node has applied that log id.
 */
export type Consistency = 'linearizable' | 'local' | { readonly atLeast: Pick<LogId, 'index'> };

export interface ReadOptions extends CallOptions {
  readonly consistency?: Consistency;
}

export interface SnapshotOptions extends CallOptions {
  /** Called as the snapshot is written, and not after the call has ended. What it throws ends the call. */
  readonly onProgress?: (progress: SnapshotProgress) => void;
}

export interface SnapshotProgress {
  /** Bytes of the state that are written so far. */
  readonly bytes: number;
}

/** A snapshot of this node's state machine that is durable on this node. */
export interface SnapshotResult {
  /** The last entry whose effect it holds. */
  readonly logId: LogId;
  /** Size of its file. */
  readonly bytes: number;
  /** No other snapshot, of whatever node, has the same. */
  readonly id: string;
  /** ms since the epoch. */
  readonly created: number;
}

/** A snapshot on its way from a leader to a follower. */
export interface SnapshotTransferStatus {
  /** The last entry that it includes. */
  readonly index: number;
  /** Bytes that have arrived. */
  readonly bytes: number;
  readonly totalBytes: number;
}

/** An immutable snapshot of what a node knows: it is frozen, and so are its lists and tables. */
export interface Status {
  readonly nodeId: NodeId;
  readonly clusterId: string;
  readonly incarnation: string;
  readonly state: Role | 'stopped';
  readonly term: number;
  /** Node id of the leader, undefined when none is known. */
  readonly leader: NodeId | undefined;
  readonly leaderAddress: string | undefined;
  readonly lastLogIndex: number;
  readonly flushedIndex: number;
  readonly committedIndex: number;
  readonly appliedIndex: number;
  /** The newest durable snapshot holds everything up to here; 0 without one. */
  readonly snapshotIndex: number;
  /** Entries up to here are gone from the log: a snapshot holds their effect. */
  readonly purgedIndex: number;
  readonly voters: readonly NodeId[];
  readonly learners: readonly NodeId[];
  readonly addresses: Readonly<Record<NodeId, string>>;
  /** Leads, and has applied all that earlier leaders committed. */
  readonly readyToLead: boolean;
  /** Writes accepted and not yet answered. */
  readonly pendingWrites: number;
  /** On a leader: highest index that each peer is known to hold durably. */
  readonly matchIndexes: Readonly<Record<NodeId, number>>;
  /** On a leader: snapshots on their way to peers that need entries which are purged here. */
  readonly snapshotsSent: Readonly<Record<NodeId, SnapshotTransferStatus>>;
  /** The snapshot that a leader sends to this node, until all of it is in its file and verified. */
  readonly snapshotReceived: (SnapshotTransferStatus & { readonly from: NodeId }) | undefined;
  /** Why the node has stopped, if it has. */
  readonly failure: KeelsonError | undefined;
  /** What its log has lost, where `storage.recovery` is `repair`; undefined when that is nothing. */
  readonly damage: LogDamage | undefined;
}

/**
 * What is lost of the log of a node that was opened for local reads alone. Its `state` is `damaged`; it neither
 * votes nor acknowledges nor speaks with its peers, and the other indexes of its status end before the first
 * lost entry that no snapshot holds.
 */
export interface LogDamage extends GroupLoss {
  /** What writes and linearizable reads are refused with. It names the first place that was found. */
  readonly error: KeelsonError;
}

export interface RaftEvents {
  /** Something in the status is different; changes of one turn are told once. */
  status: [status: Status];
  /** Another node leads, or another term has begun; `nodeId` is undefined while nobody is known to. */
  leader: [leader: { readonly nodeId: NodeId | undefined; readonly term: number }];
  /** Another membership is in force, committed or not. */
  membership: [
    membership: { readonly voters: readonly NodeId[]; readonly learners: readonly NodeId[] },
  ];
  /** The node has stopped, or a task of `whileLeader` threw. */
  error: [error: KeelsonError];
}

/** The part of a `Raft` that a server needs; what `keelson/http` is written against. */
export interface RaftHandle<Command, Response, Query, Answer> {
  write(command: Command, options?: CallOptions): Promise<WriteResult<Response>>;
  writeMany(commands: readonly Command[], options?: CallOptions): Promise<WriteResult<Response>[]>;
  read(query: Query, options?: ReadOptions): Promise<Answer>;
  /** Resolves when this node has applied everything acknowledged before the call. */
  readBarrier(options?: CallOptions): Promise<void>;
  status(): Status;
  waitFor(predicate: (status: Status) => boolean, options?: CallOptions): Promise<Status>;
  /**
   * Resolves when proposals are accepted again after KEELSON_OVERLOADED or KEELSON_STORAGE_FULL; at once
   * if they are. Fails on a node that has stopped.
   */
  writable(options?: CallOptions): Promise<void>;
  close(options?: CallOptions): Promise<void>;
}
