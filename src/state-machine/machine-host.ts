import type { EntriesLease } from '../storage/log-store.js';

/**
 * Where a state machine runs: on the main thread (given as an object) or in a worker (given as a
 * module URL). Applies of one machine are ordered; one `apply` may be followed by the next before
 * the first has completed.
 */
export interface MachineHost {
  /** Loads and opens the machine; resolves with the index of its last applied entry (0: empty). */
  open(): Promise<number>;
  /**
   * Applies the entries `firstIndex … lastIndex` of the lease (which may hold more). The host
   * retains the lease while it needs it. Entries that are not of kind application get the response
   * `undefined` and do not reach the machine. Completion comes through `MachineEvents.applied`.
   */
  apply(lease: EntriesLease, firstIndex: number, lastIndex: number): void;
  /** The answer, or a promise of it or of an error; how long to wait for that is up to the caller. */
  query(query: unknown): unknown;
  /**
   * Begins a snapshot of what the applies have led to so far, behind one that is whole. One is
   * built at a time, but one that was given up may end when the next has begun: each has an end of its own.
   * One that has not begun may give its place to the next.
   * Applies that come later go on beside it if the machine allows that; else they wait until its end.
   * @throws KeelsonError STATE_MACHINE_FAILED when the machine throws: its state is what it was; ABORTED for one
   * that gave its place away
   */
  snapshot(): Promise<MachineSnapshot>;
  /**
   * Replaces the state by that of a snapshot whose last included entry has `lastIndex`, while no apply is
   * under way; the next one follows that entry. Queries wait for it. It takes the chunks' memory. What `chunks` throws is thrown; then another may be tried.
   * @throws KeelsonError STATE_MACHINE_FAILED
   */
  restore(chunks: AsyncIterable<Uint8Array>, lastIndex: number): Promise<void>;
  /** Version of the machine's commands and snapshots; known once `open` has resolved. */
  readonly version: number;
  /** Encodes a command with the machine's codec. */
  encode(command: unknown): Uint8Array;
  close(): Promise<void>;
}

export interface MachineEvents {
  /**
   * One `apply` has completed: called exactly once for each, in their order, possibly before that
   * call returns. `responses[i]` answers entry `firstIndex + i`.
   */
  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void;
  /** The machine is lost (it threw, or its worker died): the group stops. */
  failed(error: Error): void;
}

/** A snapshot that is being taken, piece by piece. */
export interface MachineSnapshot {
  /** The last entry whose effect it holds. */
  readonly lastIndex: number;
  /**
   * Puts the next bytes of it into `into`, memory that threads share. Returns how many, which may be fewer than
   * fit, or none yet; undefined behind the end, and only there.
   * @throws KeelsonError STATE_MACHINE_FAILED, ABORTED after `end`
   */
  next(into: Uint8Array<SharedArrayBuffer>): Promise<number | undefined>;
  /** Ends it, whole or not; to be called in any case. Applies that waited for it go on at once. */
  end(): Promise<void>;
}
