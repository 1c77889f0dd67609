/**
 * The log of a host on disk: one lane of segments for all its groups.
 *
 * ```
 * stage / receive ─▶ EntryRing ─▶ append ─▶ LaneLog ─▶ StorageExecutor ─▶ LaneWriter (worker)
 * read ─▶ GroupLog: blocks in the ring, else extents of the index ─▶ SegmentReader (worker)
 * ```
 *
 * Rule: nothing is reported as durable that is not; the first failure of a write, a sync or a thread
 * poisons the store for good.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { silentLogger } from '../base/logger.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { IoId, LogId, LogIndex, Membership, RecoveredLog } from '../engine/types.js';
import { NO_LOG_ID, NO_VOTE } from '../engine/types.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import { LogIndex as SegmentIndex } from '../wasm/log-index.js';
import { SegmentUsage } from '../wasm/segment-usage.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { LOG_FOLDER } from './data-directory.js';
import { EntryRing } from './entry-ring.js';
import { GroupLog } from './group-log.js';
import { IndexBudget } from './index-budget.js';
import { LaneFiles } from './lane-files.js';
import { LaneLog, type WrittenBatch } from './lane-log.js';
import type { BatchPlace } from './lane-writer.js';
import type {
  EntriesLease,
  EntriesToStage,
  LogStore,
  LogStoreEvents,
  LogStoreMetrics,
  StagedEntries,
} from './log-store.js';
import type { GroupLoss } from './lost-ranges.js';
import { PiscinaExecutor } from './piscina-executor.js';
import type { RecoveredLane, RecoveryMode } from './recovery.js';
import { describeGroup, recoverLane } from './recovery.js';
import { reportLosses, reportRecovery } from './recovery-report.js';
import type { StorageExecutor } from './storage-executor.js';
import { StoreDamage } from './store-damage.js';
import type { WalMemory, WalMemoryOptions } from './wal-memory.js';
import {
  maxIndexBytes,
  maxStageBytes,
  reserveReadScratch,
  reserveWalMemory,
} from './wal-memory.js';

export interface WalLogStoreOptions extends WalMemoryOptions {
  /** The data directory; segments stand in its folder `wal`. */
  readonly directory: string;
  readonly maxBatchEntries: number;
  readonly lingerMicros: number;
  readonly recovery: RecoveryMode;
  readonly directIo: 'auto' | 'off';
  /** Time for the threads to load their files; 5 s by default. */
  readonly workerStartTimeoutMs?: number;
  /** The most that `close` takes, whatever does not answer; 5 s by default. */
  readonly closeTimeoutMs?: number;
}

export interface WalLogStoreParts {
  readonly scheduler: Scheduler;
  readonly heap: SharedHeap;
  readonly events: LogStoreEvents;
  readonly decodeMembership: (payload: Uint8Array, index: LogIndex) => Membership;
  /** Worker threads when absent. */
  readonly executor?: StorageExecutor;
  readonly logger?: Logger;
}

const LANE = 0;
const CLOSE_TIMEOUT_MS = 5_000;
/** Of the time for `close`, kept for threads that have to be ended without having answered. */
const THREADS_END_SHARE = 1 / 4;
const TWO_POW_52 = 2 ** 52;

export class WalLogStore implements LogStore {
  private readonly options: WalLogStoreOptions;
  private readonly heap: SharedHeap;
  private readonly scheduler: Scheduler;
  private readonly events: LogStoreEvents;
  private readonly logger: Logger;
  private readonly executor: StorageExecutor;
  private readonly decodeMembership: WalLogStoreParts['decodeMembership'];
  private readonly directory: string;
  private readonly ring: EntryRing;
  private readonly lane: LaneLog;
  private readonly memory: WalMemory;
  private readonly indexBudget: IndexBudget;
  private readonly files: LaneFiles;
  private readonly usage: SegmentUsage = new SegmentUsage();
  private readonly groups: Map<number, GroupLog> = new Map();
  private readonly recoveredLogs: Map<number, RecoveredLog> = new Map();
  private readonly lastTimes: Map<number, number> = new Map();
  private failure: KeelsonError | undefined;
  /** Set by a recovery in the mode `repair`: the store is read only. */
  private damage: StoreDamage | undefined;
  private closing: Promise<void> | undefined;
  private cacheHits = 0;
  private cacheMisses = 0;
  private readonly unpinned: () => void;

  /**
   * Recovers the directory and starts its threads.
   * @throws KeelsonError STORAGE_CORRUPT when acknowledged data is lost, STORAGE_VERSION,
   * STORAGE_FULL, STORAGE_FAILED, MISSING_FILE when a worker file is not there.
   */
  static async open(options: WalLogStoreOptions, parts: WalLogStoreParts): Promise<WalLogStore> {
    const executor =
      parts.executor ??
      new PiscinaExecutor(parts.heap, parts.scheduler, {
        handshakeTimeoutMs: options.workerStartTimeoutMs,
      });
    const memory = reserveWalMemory(parts.heap, options);
    const store = new WalLogStore(options, parts, executor, memory);
    try {
      await executor.open();
      await store.recover();
    } catch (error) {
      await executor.close(parts.scheduler.now() + store.closeTimeoutMs());
      throw error;
    }
    return store;
  }

  private constructor(
    options: WalLogStoreOptions,
    parts: WalLogStoreParts,
    executor: StorageExecutor,
    memory: WalMemory,
  ) {
    this.options = options;
    this.heap = parts.heap;
    this.scheduler = parts.scheduler;
    this.events = parts.events;
    this.logger = parts.logger ?? silentLogger;
    this.decodeMembership = parts.decodeMembership;
    this.executor = executor;
    this.directory = `${options.directory}/${LOG_FOLDER}`;
    this.memory = memory;
    this.ring = new EntryRing(memory.ring);
    this.indexBudget = new IndexBudget(maxIndexBytes(options));
    const limits = { ...options, maxStageBytes: maxStageBytes(options) };
    const events = {
      flushed: (group: GroupLog, io: IoId) => this.events.flushed(group.id, io),
      written: (place: BatchPlace, batch: WrittenBatch) => this.files.written(place, batch),
      shrunk: (group: GroupLog) => this.indexBudget.count(group),
      failed: (error: KeelsonError) => this.poison(error),
      writable: () => this.events.writable(),
    };
    this.lane = new LaneLog(
      this.heap,
      this.ring,
      executor,
      this.scheduler,
      limits,
      events,
      () => this.oldestSegment(),
      {
        admits: (bytes) => this.files.admits(bytes),
        refusal: (bytes) => this.diskRefusal(bytes),
      },
    );
    this.files = new LaneFiles(
      {
        directory: this.directory,
        lane: LANE,
        segmentBytes: options.segmentBytes,
        ringBytes: options.ringBytes,
        maxBatchBytes: options.maxBatchBytes,
        maxStageBytes: limits.maxStageBytes,
        direct: options.directIo === 'auto',
        zeros: memory.zeros,
      },
      executor,
      this.logger,
      {
        groups: () => this.groups,
        usage: this.usage,
        move: (log, block) => this.lane.move(log, block),
        roll: () => {
          const [log] = this.groups.values();
          if (log !== undefined && this.usable()) this.lane.roll(log);
        },
        queuedBytes: () => this.lane.queuedBytes,
        filled: () => this.lane.filled(),
        roomy: () => this.lane.roomy(),
        admitting: () => this.lane.unpinned(),
      },
      this.scheduler,
    );
    this.unpinned = () => {
      if (this.files.movesWait) this.scheduler.enqueue(() => this.files.goOn());
      this.lane.unpinned();
    };
  }

  recovered(group: number): RecoveredLog {
    return (
      this.recoveredLogs.get(group) ?? {
        vote: NO_VOTE,
        purged: NO_LOG_ID,
        termRuns: [],
        lastIndex: 0,
        committed: 0,
        memberships: [],
      }
    );
  }

  /** What is lost of a group, where the mode `repair` has opened a damaged log; undefined in a whole one. */
  lossOf(group: number): GroupLoss | undefined {
    return this.damage?.of(group);
  }

  lastTime(group: number): number {
    return this.lastTimes.get(group) ?? 0;
  }

  stage(group: number, entries: EntriesToStage): StagedEntries {
    this.checkUsable();
    this.checkWritable();
    const log = this.group(group);
    const { firstIndex, count, term, kind } = entries;
    const termRuns = term === log.termRuns.lastTerm ? 0 : 1;
    const fromClients = kind === ENTRY_KIND.application;
    const refusal = fromClients ? this.diskRefusal(0) : undefined;
    if (refusal !== undefined) throw refusal;
    const lastIndex = firstIndex + count - 1;
    this.indexBudget.check(log, lastIndex, termRuns, fromClients);
    const staged = this.lane.stage(log, entries);
    this.indexBudget.stage(log, lastIndex, termRuns);
    return staged;
  }

  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    this.checkUsable();
    this.checkWritable();
    const log = this.group(group);
    const staged = this.lane.receive(log, firstIndex, parts);
    const { lastIndex, termRuns } = staged;
    this.indexBudget.check(log, lastIndex, termRuns.length, false);
    this.indexBudget.stage(log, lastIndex, termRuns.length);
    return staged;
  }

  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    if (!this.usable()) return;
    const log = this.group(group);
    this.lane.append(log, staged, firstIndex, io);
    log.forgetStaged();
  }

  saveVote(group: number, io: IoId): void {
    if (this.usable()) this.lane.saveVote(this.group(group), io);
  }

  truncateAfter(group: number, index: LogIndex, io: IoId): void {
    if (this.usable()) this.lane.truncateAfter(this.group(group), index, io);
  }

  purge(group: number, upTo: LogId): void {
    if (!this.usable()) return;
    const log = this.group(group);
    if (upTo.index <= log.purged.index) return;
    invariant(upTo.index <= log.lastIndex, 'what is purged was in the log');
    this.lane.purge(log, upTo);
  }

  resetLog(group: number, lastIncluded: LogId, io: IoId): void {
    if (!this.usable()) return;
    const log = this.group(group);
    const { index } = lastIncluded;
    const ahead = index > log.purged.index && index >= log.committed;
    invariant(ahead, 'a log begins anew behind what it has purged and committed');
    this.lane.reset(log, lastIncluded, io);
  }

  advanceIo(group: number, io: IoId): void {
    if (this.usable()) this.lane.advanceIo(this.group(group), io);
  }

  recordCommitted(group: number, index: LogIndex): void {
    const log = this.group(group);
    log.committed = Math.max(log.committed, index);
  }

  read(
    group: number,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): EntriesLease | Promise<EntriesLease> {
    this.checkUsable();
    const log = this.group(group);
    const known = this.damage?.readableUpTo(group, firstIndex, lastIndex) ?? lastIndex;
    const last = log.termRuns.lastReadable(firstIndex, Math.min(known, log.lastIndex));
    const kept = firstIndex > log.purged.index && firstIndex <= last;
    invariant(kept, 'entries that are read are in the log');
    const lease = log.lease(this.heap, firstIndex, last, maxBytes, this.unpinned);
    if (lease !== undefined) {
      this.cacheHits++;
      return lease;
    }
    this.cacheMisses++;
    return this.readFromSegments(log, firstIndex, last, maxBytes);
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  metrics(): LogStoreMetrics {
    const { lane, ring } = this;
    return {
      flushes: lane.flushes,
      flushedEntries: lane.flushedEntries,
      flushedBytes: lane.flushedBytes,
      queuedBytes: lane.queuedBytes,
      ringBytes: ring.ringBytes,
      ringUsedBytes: ring.usedBytes(),
      cacheHits: this.cacheHits,
      cacheMisses: this.cacheMisses,
      retiredSegments: this.files.retiredSegments,
      movedBytes: this.files.movedBytes,
      indexBytes: this.indexBytes(),
    };
  }

  private async recover(): Promise<void> {
    const { directory, executor, heap, options, memory } = this;
    const recovered = await recoverLane(heap, executor, {
      directory,
      lane: LANE,
      mode: options.recovery,
      scratch: memory.ring.pointer,
      scratchBytes: memory.ring.ringBytes,
      summary: memory.summary,
      usage: this.usage,
      epoch: Math.floor(this.scheduler.random() * TWO_POW_52),
    });
    this.takeOver(recovered);
    // All that a configuration can be refused for comes before the first write.
    const { largestBlockBytes } = recovered;
    const { bytes: indexBytes } = this.indexBudget;
    const scratch = reserveReadScratch(heap, options, { largestBlockBytes, indexBytes });
    const readMemory = { ...scratch, summary: memory.summary };
    if (recovered.losses.length > 0) {
      this.damage = new StoreDamage(recovered.losses, recovered.lost);
      this.files.beginReading(readMemory, () => this.checkUsable());
      reportLosses(this.logger, directory, recovered);
      return;
    }
    const place = await executor.startLane(
      {
        directory,
        lane: LANE,
        segmentBytes: options.segmentBytes,
        direct: options.directIo === 'auto',
        ...memory.writer,
        zeros: memory.zeros,
      },
      recovered.start,
      {
        completed: (done) => this.lane.completed(done),
        failed: (error) => this.lane.fail(error),
      },
    );
    if (place !== undefined) recovered.placeCarried(place);
    await this.files.begin(recovered, readMemory, () => this.checkUsable());
    reportRecovery(this.logger, directory, recovered);
  }

  private takeOver(recovered: RecoveredLane): void {
    for (const [id, group] of recovered.groups) {
      const { checkpoint, index } = group;
      this.recoveredLogs.set(id, describeGroup(group, this.decodeMembership));
      this.lastTimes.set(id, group.lastTime);
      const { vote, committed } = checkpoint;
      const log = new GroupLog(id, index, vote, committed, checkpoint.purged);
      this.groups.set(id, log);
      this.indexBudget.count(log);
    }
  }

  private indexBytes(): number {
    let bytes = 0;
    for (const { index } of this.groups.values()) bytes += index.bytes;
    return bytes;
  }

  private oldestSegment(): number {
    return Math.min(this.files.newest, this.usage.oldest);
  }

  private group(id: number): GroupLog {
    let log = this.groups.get(id);
    if (log === undefined) {
      log = new GroupLog(id, new SegmentIndex(this.heap, 1, this.usage), NO_VOTE, 0, NO_LOG_ID);
      this.groups.set(id, log);
    }
    return log;
  }

  private async readFromSegments(
    log: GroupLog,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): Promise<EntriesLease> {
    const lastOnDisk = Math.min(lastIndex, log.firstCached() - 1);
    const lease = await this.files.read(log, firstIndex, lastOnDisk, maxBytes);
    if (lease !== undefined) return lease;
    if (firstIndex > log.lastIndex || firstIndex <= log.purged.index) {
      throw new KeelsonError(
        'KEELSON_ABORTED',
        `Entry ${firstIndex} of group ${log.id} went from the log while it was being read.`,
        { details: { group: log.id, index: firstIndex } },
      );
    }
    return this.read(log.id, firstIndex, lastIndex, maxBytes);
  }

  /** One limit for all of it: what a disk that hangs leaves undone is abandoned, as in a crash. */
  private async shutDown(): Promise<void> {
    const { scheduler } = this;
    const limitMs = this.closeTimeoutMs();
    const untilMs = scheduler.now() + limitMs;
    // Nothing is moved any more: the last batch says that it is the last.
    const filesAtRest = this.files.stop();
    // Nothing was written to a damaged log, so there is nothing to end in order.
    const lane = this.damage === undefined ? this.lane.shutDown(this.groups.values()) : undefined;
    const inOrder = Promise.resolve(lane)
      .then(() => filesAtRest)
      .then(() => this.executor.stopLane());
    try {
      await untilTime(scheduler, untilMs - limitMs * THREADS_END_SHARE, inOrder);
    } finally {
      await this.executor.close(untilMs);
    }
  }

  private closeTimeoutMs(): number {
    return this.options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS;
  }

  private poison(error: KeelsonError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.logger.error({ event: 'storage.failed', error }, error.message);
    this.events.failed(error);
  }

  private usable(): boolean {
    this.checkWritable();
    return this.failure === undefined && this.closing === undefined;
  }

  private checkWritable(): void {
    if (this.damage !== undefined) throw this.damage.refusal();
  }

  private diskRefusal(bytes: number): KeelsonError | undefined {
    if (this.files.hasRoom(bytes)) return undefined;
    return new KeelsonError(
      'KEELSON_STORAGE_FULL',
      `The disk of ${this.directory} is full. Nothing was changed, and reads and elections go on. Free ` +
        'space, or let the log be purged: entries are taken again by themselves.',
      { details: { directory: this.directory } },
    );
  }

  private checkUsable(): void {
    if (this.failure !== undefined) {
      const { code, message } = this.failure;
      throw new KeelsonError(code, message, { cause: this.failure });
    }
    if (this.closing !== undefined) {
      throw new KeelsonError('KEELSON_CLOSED', 'The log is closed.');
    }
  }
}
