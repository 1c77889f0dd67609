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
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { IoId, LogIndex, Membership, RecoveredLog } from '../engine/types.js';
import { NO_LOG_ID, NO_VOTE } from '../engine/types.js';
import { BlockCodec } from '../wasm/block-codec.js';
import { BLOCK, ITEM, SECTOR_BYTES } from '../wasm/layout.js';
import { LogIndex as SegmentIndex } from '../wasm/log-index.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { CountedLease } from './cached-block.js';
import { EntryRing } from './entry-ring.js';
import { GroupLog } from './group-log.js';
import { LaneLog } from './lane-log.js';
import type {
  EntriesLease,
  EntriesToStage,
  LogStore,
  LogStoreEvents,
  LogStoreMetrics,
  StagedEntries,
} from './log-store.js';
import { PiscinaExecutor } from './piscina-executor.js';
import type { RecoveredLane, RecoveryMode } from './recovery.js';
import { describeGroup, recoverLane } from './recovery.js';
import type { Zeros } from './segment-file.js';
import { SpareSegment } from './spare-segment.js';
import type { StorageExecutor } from './storage-executor.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';

export interface WalLogStoreOptions {
  /** The data directory; segments stand in its folder `wal`. */
  readonly directory: string;
  /** Size of one segment file, from 1 MiB. */
  readonly segmentBytes: number;
  /** Shared memory that stages entries and caches the newest part of the log. */
  readonly ringBytes: number;
  readonly maxBatchBytes: number;
  readonly maxBatchEntries: number;
  readonly maxQueuedBatches: number;
  readonly lingerMicros: number;
  readonly recovery: RecoveryMode;
  readonly directIo: 'auto' | 'off';
  /** How long `close` waits for a disk that does not answer; 5 s by default. */
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
const WRITER_SCRATCH_BYTES = 256 * 1024;
const ZERO_BYTES = 1024 * 1024;
const CLOSE_TIMEOUT_MS = 5_000;
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
  private readonly spare: SpareSegment;
  /** Scratch memory of the thread that runs the tasks. */
  private readonly summary: number;
  private readonly zeros: Zeros;
  private readonly groups: Map<number, GroupLog> = new Map();
  private readonly recoveredLogs: Map<number, RecoveredLog> = new Map();
  private readonly lastTimes: Map<number, number> = new Map();
  private failure: KeelsonError | undefined;
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
    const executor = parts.executor ?? new PiscinaExecutor(parts.heap, parts.scheduler);
    const pointer = reserveRing(parts.heap, options);
    const store = new WalLogStore(options, parts, executor, pointer);
    await executor.open();
    try {
      await store.recover(pointer);
    } catch (error) {
      await executor.close();
      throw error;
    }
    return store;
  }

  private constructor(
    options: WalLogStoreOptions,
    parts: WalLogStoreParts,
    executor: StorageExecutor,
    pointer: number,
  ) {
    this.options = options;
    this.heap = parts.heap;
    this.scheduler = parts.scheduler;
    this.events = parts.events;
    this.logger = parts.logger ?? silentLogger;
    this.decodeMembership = parts.decodeMembership;
    this.executor = executor;
    this.directory = `${options.directory}/wal`;
    const { ringBytes } = options;
    this.ring = new EntryRing({ pointer, ringBytes, controlSlots: controlSlots(options) });
    this.zeros = { pointer: this.heap.reserve(ZERO_BYTES, SECTOR_BYTES), bytes: ZERO_BYTES };
    this.summary = this.heap.reserve(BlockCodec.scratchBytes, 64);
    const limits = {
      ...options,
      maxStageBytes: Math.floor(Math.min(ringBytes, options.segmentBytes) / 4),
    };
    this.lane = new LaneLog(this.heap, this.ring, executor, this.scheduler, limits, {
      flushed: (group, io) => this.events.flushed(group.id, io),
      written: (place) => this.spare.written(place),
      failed: (error) => this.poison(error),
      writable: () => this.events.writable(),
    });
    this.spare = new SpareSegment(
      {
        directory: this.directory,
        lane: LANE,
        segmentBytes: options.segmentBytes,
        direct: options.directIo === 'auto',
        zeros: this.zeros,
      },
      executor,
      this.logger,
    );
    this.unpinned = () => this.lane.unpinned();
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

  lastTime(group: number): number {
    return this.lastTimes.get(group) ?? 0;
  }

  stage(group: number, entries: EntriesToStage): StagedEntries {
    this.checkUsable();
    return this.lane.stage(this.group(group), entries);
  }

  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    this.checkUsable();
    return this.lane.receive(this.group(group), firstIndex, parts);
  }

  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    if (!this.usable()) return;
    this.lane.append(this.group(group), staged, firstIndex, io);
  }

  saveVote(group: number, io: IoId): void {
    if (this.usable()) this.lane.saveVote(this.group(group), io);
  }

  truncateAfter(group: number, index: LogIndex, io: IoId): void {
    if (this.usable()) this.lane.truncateAfter(this.group(group), index, io);
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
    const last = Math.min(lastIndex, log.lastIndex);
    invariant(firstIndex >= 1 && firstIndex <= last, 'entries that are read are in the log');
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
    };
  }

  private async recover(scratch: number): Promise<void> {
    const { directory, executor, heap, options } = this;
    const recovered = await recoverLane(heap, executor, {
      directory,
      lane: LANE,
      mode: options.recovery,
      scratch,
      scratchBytes: options.ringBytes,
      summary: this.summary,
      epoch: Math.floor(this.scheduler.random() * TWO_POW_52),
    });
    const place = await executor.startLane(
      {
        directory,
        lane: LANE,
        segmentBytes: options.segmentBytes,
        direct: options.directIo === 'auto',
        scratch: heap.reserve(WRITER_SCRATCH_BYTES, SECTOR_BYTES),
        scratchBytes: WRITER_SCRATCH_BYTES,
        zeros: this.zeros,
      },
      recovered.start,
      {
        completed: (done) => this.lane.completed(done),
        failed: (error) => this.lane.fail(error),
      },
    );
    if (place !== undefined) recovered.placeCarried(place);
    for (const [id, group] of recovered.groups) {
      const { checkpoint, index } = group;
      this.recoveredLogs.set(id, describeGroup(group, this.decodeMembership));
      this.lastTimes.set(id, group.lastTime);
      const { vote, committed } = checkpoint;
      this.groups.set(id, new GroupLog(id, index, vote, committed, index.lastIndex));
    }
    this.logRecovery(recovered);
  }

  private logRecovery(recovered: RecoveredLane): void {
    const { batches, entries, tornTail, start } = recovered;
    const fields = { directory: this.directory, batches, entries, segment: start.sequence };
    this.logger.info({ event: 'storage.recovered', ...fields }, 'the log was recovered');
    if (tornTail === undefined) return;
    this.logger.warn(
      { event: 'storage.torn-tail', ...tornTail },
      'an unreadable tail that was never acknowledged was cut off',
    );
  }

  private group(id: number): GroupLog {
    let log = this.groups.get(id);
    if (log === undefined) {
      log = new GroupLog(id, new SegmentIndex(this.heap), NO_VOTE, 0, 0);
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
    const { generation } = log;
    const last = Math.min(lastIndex, log.firstCached() - 1);
    const extents = log.index.scan(firstIndex, last, maxBytes);
    invariant(extents.length > 0, 'what is not in memory is in the index');
    let scratchBytes: number = BLOCK.bytes;
    for (const extent of extents) scratchBytes += extent.items * ITEM.bytes + extent.payloadLength;
    const scratch = this.heap.allocate(scratchBytes);
    try {
      const { block, lastIndex: readLast } = await this.executor.run({
        type: 'read',
        directory: this.directory,
        lane: LANE,
        group: log.id,
        firstIndex,
        extents,
        scratch,
        scratchBytes,
        summary: this.summary,
      });
      this.checkUsable();
      if (log.generation === generation) {
        return new CountedLease(firstIndex, readLast, [block], block.length, [], () => {});
      }
    } finally {
      this.heap.release(scratch, scratchBytes);
    }
    // A truncation has overtaken the read: what it found may not be the log any more.
    if (firstIndex > log.lastIndex) {
      throw new KeelsonError(
        'KEELSON_ABORTED',
        `Entry ${firstIndex} of group ${log.id} was truncated while it was being read.`,
        { details: { group: log.id, index: firstIndex } },
      );
    }
    return this.read(log.id, firstIndex, lastIndex, maxBytes);
  }

  private async shutDown(): Promise<void> {
    try {
      await this.inTime(this.lane.shutDown(this.groups.values()).then(() => this.spare.stop()));
      await this.executor.stopLane();
    } finally {
      await this.executor.close();
    }
  }

  /** Resolves with the work, or when a disk that hangs has had its time. */
  private async inTime(work: Promise<void>): Promise<void> {
    let timer: Timer | undefined;
    const timeout = new Promise<void>((resolve) => {
      const delayMs = this.options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS;
      timer = this.scheduler.setTimer(delayMs, resolve);
    });
    await Promise.race([work, timeout]);
    timer?.cancel();
  }

  private poison(error: KeelsonError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.logger.error({ event: 'storage.failed', error }, error.message);
    this.events.failed(error);
  }

  private usable(): boolean {
    return this.failure === undefined && this.closing === undefined;
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

function controlSlots(options: WalLogStoreOptions): number {
  return options.maxQueuedBatches + 4;
}

function reserveRing(heap: SharedHeap, options: WalLogStoreOptions): number {
  const { ringBytes, maxQueuedBatches, maxBatchBytes, segmentBytes } = options;
  const problem =
    ringBytes % SECTOR_BYTES !== 0 || segmentBytes % SECTOR_BYTES !== 0
      ? 'ringBytes and segmentBytes are multiples of 4096'
      : maxBatchBytes > ringBytes / 4 || maxBatchBytes > segmentBytes / 4
        ? 'maxBatchBytes is at most a quarter of ringBytes and of segmentBytes'
        : maxQueuedBatches > LANE_QUEUE_LIMIT || maxQueuedBatches < 1
          ? `maxQueuedBatches is between 1 and ${LANE_QUEUE_LIMIT}`
          : undefined;
  if (problem !== undefined) {
    throw new KeelsonError('KEELSON_INVALID_ARGUMENT', `The log cannot be opened: ${problem}.`);
  }
  return heap.reserve(EntryRing.bytes(ringBytes, controlSlots(options)), SECTOR_BYTES);
}
