import type { KeelsonError } from '../base/errors.js';
import type { IoId, LogId, LogIndex, RecoveredLog, Term, TermRun } from '../engine/types.js';
import type { StoreDamage } from './store-damage.js';

/**
 * The log of the Raft groups of one host. Lives on the main thread and never touches a disk there;
 * calls that stage or start I/O return at once, completions come through `LogStoreEvents`.
 *
 * Bytes are encoded once: `stage` or `receive` puts blocks (see src/wasm/layout.ts) into memory of
 * the store, `append` hands them to the log, `read` gives the same bytes to network and state
 * machine. At most one staged range exists per group at a time: the next `stage` or `receive` of the
 * group discards one that was not appended.
 */
export interface LogStore {
  /** What recovery found; called once per group, before anything else. */
  recovered(group: number): RecoveredLog;
  /**
   * Time of the last entry of the log that recovery found, ms since the epoch; 0 when it is empty: of what
   * was purged only the snapshot tells.
   */
  lastTime(group: number): number;
  /** What a damaged log has lost that was opened all the same: it can be read, and takes nothing. */
  readonly damage?: StoreDamage | undefined;

  /**
   * Encodes payloads as one block of consecutive entries. Copies each payload once.
   * @throws KeelsonError OVERLOADED when the ring has no room, STORAGE_FULL when the log may not grow;
   * nothing is changed then. Only entries of clients are refused as long as there is headroom.
   */
  stage(group: number, entries: EntriesToStage): StagedEntries;

  /**
   * Copies blocks that came from a leader (one copy) and verifies them (one call).
   * @throws KeelsonError CORRUPT_FRAME when they do not verify, OVERLOADED when the ring has no room,
   * STORAGE_FULL when the log may not grow; nothing is changed then.
   */
  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries;

  /**
   * Appends the staged entries from `io`'s first new index on; what is staged before `firstIndex` is
   * dropped. Overwrites the log from there if it reaches further.
   */
  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void;
  saveVote(group: number, io: IoId): void;
  truncateAfter(group: number, index: LogIndex, io: IoId): void;
  /**
   * Gives up the entries up to `upTo`, which a durable snapshot holds. Recorded with one of the next batches
   * and answered by nothing; until that is durable, recovery finds an earlier `RecoveredLog.purged`. Leases
   * stay valid.
   */
  purge(group: number, upTo: LogId): void;
  /**
   * The log begins anew behind `lastIncluded`, the last entry of a durable snapshot that was installed,
   * and which is not behind what was committed: one record, whole or not at all.
   */
  resetLog(group: number, lastIncluded: LogId, io: IoId): void;
  /** Completes in order behind earlier I/O of the group; writes no bytes. */
  advanceIo(group: number, io: IoId): void;
  /** Recorded with the next batch of the group, needs no sync; never beyond what is durable with it. */
  recordCommitted(group: number, index: LogIndex): void;

  /**
   * Entries from `firstIndex` on, up to `lastIndex` and `maxBytes` (block bytes), at least one, and
   * never of more terms than `receive` takes at once. None of them is purged.
   * Synchronous from memory, else a promise from the segments. Verify `lease.firstIndex` and term
   * before use: truncation may have overtaken an asynchronous read.
   */
  read(
    group: number,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): EntriesLease | Promise<EntriesLease>;

  /** Syncs a clean-shutdown batch, stops the workers and gives up the directory. */
  close(): Promise<void>;

  metrics(): LogStoreMetrics;
}

export interface EntriesToStage {
  readonly firstIndex: LogIndex;
  readonly term: Term;
  /** ms since the epoch. */
  readonly time: number;
  /** See ENTRY_KIND. */
  readonly kind: number;
  /** One payload per entry; `payloads[0 … count)` are used. */
  readonly payloads: readonly Uint8Array[];
  readonly count: number;
}

export interface StagedEntries {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly termRuns: readonly TermRun[];
  /** Payloads of entries of kind membership; views that end with the staging. */
  readonly memberships: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[];
  /** Bytes of the blocks. */
  readonly bytes: number;
  /** Time of the last entry. */
  readonly lastTime: number;
}

/**
 * A counted reference to block bytes. The views stay valid until `release`, which must be called
 * exactly once; `retain` adds one more release.
 */
export interface EntriesLease {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  /** Consecutive whole blocks; `parts` joined are what `LogStore.receive` accepts. */
  readonly parts: readonly Uint8Array[];
  /** The same bytes where they stand, from a store that has views of its memory at hand. */
  readonly spans?: readonly BlockSpan[];
  readonly bytes: number;
  retain(): void;
  release(): void;
}

/** The bytes [start, end) of a view that begins where its buffer begins. */
export interface BlockSpan {
  readonly view: DataView;
  readonly start: number;
  readonly end: number;
}

export interface LogStoreEvents {
  /** The I/O and all earlier ones of the group are durable. */
  flushed(group: number, io: IoId): void;
  /** Durability is lost for good: the store is poisoned and acknowledges nothing more. */
  failed(error: KeelsonError): void;
  /** Room in the ring again, after `stage` was refused. */
  writable(): void;
}

export interface LogStoreMetrics {
  readonly flushes: number;
  readonly flushedEntries: number;
  readonly flushedBytes: number;
  readonly queuedBytes: number;
  readonly ringBytes: number;
  readonly ringUsedBytes: number;
  readonly cacheHits: number;
  readonly cacheMisses: number;
  /** Segment files that were needed no more and given up, to be used again or removed. */
  readonly retiredSegments: number;
  /** Memory that tells where entries stand. */
  readonly indexBytes: number;
  /** Bytes of entries that were written once more, so that old segments could be given up. */
  readonly movedBytes: number;
}
