/**
 * Limits and times of the network of one host. Every queue is bounded by a field here or by a
 * constant of the protocol beside it.
 */
export interface NetworkConfig {
  /**
   * Largest body of one frame, bytes: an append's entries with their fixed fields, or a forwarded
   * command. A longer frame ends its connection. 4 KiB … 1 GiB; at least the largest entry.
   */
  readonly maxFrameBytes: number;
  /**
   * Bytes that may wait to be sent to one peer on one connection. Beyond it control messages are
   * dropped (Raft repeats them) and appends are refused until half of it has drained.
   */
  readonly maxQueuedBytes: number;
  /** Client requests forwarded to other nodes that may wait for an answer, count. */
  readonly maxRequests: number;
  /**
   * Time for a TCP connection to open, ms. Also how long an open one may make no progress (nothing
   * written, no ping answered) before it is given up and dialled anew.
   */
  readonly connectTimeoutMs: number;
  /** Time from an open connection to a completed handshake, ms. */
  readonly handshakeTimeoutMs: number;
  /** First pause before a lost connection is dialled anew, ms; doubles with each failure. */
  readonly reconnectMinMs: number;
  /** Longest pause between two attempts, ms. Each pause is shortened at random by up to a half. */
  readonly reconnectMaxMs: number;
}

export const DEFAULT_NETWORK_CONFIG: NetworkConfig = {
  maxFrameBytes: 16 * 1024 * 1024,
  maxQueuedBytes: 32 * 1024 * 1024,
  maxRequests: 16_384,
  connectTimeoutMs: 3_000,
  handshakeTimeoutMs: 3_000,
  reconnectMinMs: 50,
  reconnectMaxMs: 2_000,
};
