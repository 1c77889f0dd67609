import type { ErrorRecord } from '../base/errors.js';
import type { AppendRequest, ControlMessage, SnapshotRequest } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';

/**
 * The seam between nodes. Messages may be lost, and are never reordered within one connection; a
 * full queue drops control messages (Raft repeats them) and refuses appends.
 */
export interface Network {
  /** Binds and begins to accept; resolves with the bound address `host:port`. */
  start(handler: NetworkHandler): Promise<string>;
  /**
   * Whom to keep connections to. Names are resolved on every connect. A peer that is taken out is
   * cut off without `disconnected`.
   */
  setPeers(peers: ReadonlyMap<NodeId, string>): void;
  /** Queues a control message; dropped when the peer is not connected or its queue is full. */
  send(target: NodeId, message: ControlMessage): void;
  /**
   * Queues an append with the bytes of its entries, untouched. Returns false, and takes no reference,
   * when the peer is not connected or holds too much already; `handler.writable(target)` follows.
   * When true, `entries.release()` is called exactly once when the bytes are no longer needed.
   */
  sendAppend(target: NodeId, message: AppendRequest, entries: OutgoingEntries): boolean;
  /**
   * Queues a piece of a snapshot. The bytes must not change any more. Returns false when the peer is not
   * connected or holds too much already; `handler.writable(target)` follows.
   */
  sendSnapshot(target: NodeId, message: SnapshotRequest, bytes: Uint8Array): boolean;
  /** Sends a client request one hop. Rejects with KEELSON_NO_LEADER (rejected) if it was never sent. */
  request(target: NodeId, request: ForwardRequest): Promise<ForwardResponse>;
  close(): Promise<void>;
  metrics(): NetworkMetrics;
}

export interface OutgoingEntries {
  readonly parts: readonly Uint8Array[];
  readonly bytes: number;
  release(): void;
}

export interface NetworkHandler {
  message(from: NodeId, message: ControlMessage): void;
  /**
   * `parts` joined are the entry bytes; the views end when the call returns. It may throw
   * CORRUPT_FRAME: a connection between processes that brought such bytes is closed.
   */
  append(from: NodeId, message: AppendRequest, parts: readonly Uint8Array[]): void;
  /** A piece of a snapshot: `parts` joined are bytes of its file; the views end when the call returns. */
  snapshot(from: NodeId, message: SnapshotRequest, parts: readonly Uint8Array[]): void;
  request(from: NodeId, request: ForwardRequest): Promise<ForwardResponse>;
  connected(peer: NodeId): void;
  disconnected(peer: NodeId): void;
  /** A peer that refused an append, or a piece of a snapshot, takes more now. */
  writable(peer: NodeId): void;
  /** A peer has refused the handshake, for a reason that goes on until somebody changes something. */
  refused?(peer: NodeId, reason: string, text: string): void;
}

/** A client's write or read, sent by a follower to the leader; never forwarded again. */
export interface ForwardRequest {
  readonly kind: 'write' | 'readIndex';
  /**
   * Encoded command of a write; empty for a read index. Not copied: it must not change before the
   * request is settled.
   */
  readonly payload: Uint8Array;
  /** Time left, in ms, when it was sent. */
  readonly timeoutMs: number;
}

export interface ForwardResponse {
  /** Encoded response of the state machine (writes only). Not copied: it must not change any more. */
  readonly payload: Uint8Array;
  readonly index: number;
  readonly term: number;
  readonly error?: ErrorRecord | undefined;
}

/** Who we are, and whom we accept; travels in the handshake. */
export interface NodeIdentity {
  /** 16 bytes in hexadecimal: hash of the cluster's name and initial voters. */
  readonly clusterId: string;
  readonly nodeId: NodeId;
  /** 16 random bytes in hexadecimal, made with the data directory. */
  readonly incarnation: string;
}

export interface NetworkMetrics {
  readonly connectedPeers: readonly NodeId[];
  readonly queuedBytes: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly droppedMessages: number;
  readonly refusedHandshakes: number;
}
