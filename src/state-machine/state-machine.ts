/**
 * The state machine that an application brings. Commands are applied in log order, each exactly once
 * per life of the machine, on every node alike: `apply` must depend on nothing but the state and the
 * entries it is given (use `entry.time`, never the clock).
 */
export interface StateMachine<
  Command = unknown,
  Response = unknown,
  Query = unknown,
  Answer = unknown,
> {
  /**
   * Applies entries in order and returns one response each. Synchronous: while it runs, the thread
   * does nothing else. If it throws, the group stops and names term and index.
   * Binary fields of a command are the machine's own to keep (the default codec copies them).
   */
  apply(entries: readonly Entry<Command>[]): Response[];
  /** Answers a read; must not change the state. */
  query(query: Query): Answer | Promise<Answer>;
  /**
   * Yields the state as it is at the call, in chunks of at most about 64 KiB; they are taken between
   * applies, and a chunk must not change until the next one is asked for. The first one is asked for at
   * once. When the snapshot is given up, the iterator's `return` is called.
   * Applies wait until the iteration has ended, unless `concurrentSnapshot` says that they may go on.
   */
  snapshot(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /**
   * Replaces the whole state by a snapshot, whose bytes come in other chunks than `snapshot` yielded.
   * `chunks` throws when the file is damaged: then a restore from an older one follows.
   */
  restore(chunks: AsyncIterable<Uint8Array>): void | Promise<void>;
  /**
   * What `snapshot` yields is not changed by applies that come after its call: they go on beside it.
   * Default false.
   */
  readonly concurrentSnapshot?: boolean;
  /** How commands become bytes; msgpack when absent. */
  readonly codec?: Codec<Command>;
  /** Version of the machine's commands and snapshots; part of the handshake. Default 1. */
  readonly version?: number;
  /** For machines that are durable themselves: index of the last applied entry. */
  open?(): number | Promise<number>;
  close?(): void | Promise<void>;
  /** Digest of the state, equal on all nodes that applied the same entries. */
  digest?(): string | Promise<string>;
}

export interface Entry<Command> {
  readonly logId: { readonly term: number; readonly index: number };
  /** ms since the epoch, assigned by the leader, never decreasing along the log. */
  readonly time: number;
  readonly command: Command;
}

/** Turns commands into bytes and back. `decode` gets a view that ends when `apply` returns. */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  decode(bytes: Uint8Array): T;
}

// biome-ignore lint/suspicious/noExplicitAny: matches every machine, whatever its types
export type AnyStateMachine = StateMachine<any, any, any, any>;
