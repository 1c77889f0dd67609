/**
 * One lane of the log: its ring, its files, and the logs of the groups that are written there. The lane is
 * recovered, written and closed for itself; what becomes of the store as a whole, the store says.
 *
 * ```
 * stage / receive ─▶ EntryRing ─▶ append ─▶ LaneLog ─▶ StorageExecutor ─▶ LaneWriter (worker)
 * read ─▶ GroupLog: blocks in the ring, else extents of the index ─▶ SegmentReader (worker)
 * ```
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler } from '../base/scheduler.js';
import type { IoId, LogId, LogIndex, Membership, RecoveredLog } from '../engine/types.js';
import { NO_LOG_ID, NO_VOTE } from '../engine/types.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import { LogIndex as SegmentIndex } from '../wasm/log-index.js';
import { SegmentUsage } from '../wasm/segment-usage.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { DiskUse } from './disk-use.js';
import { EntryRing } from './entry-ring.js';
import { GroupLog } from './group-log.js';
import { IndexBudget } from './index-budget.js';
import { LaneFiles } from './lane-files.js';
import { LaneLog, type WrittenBatch } from './lane-log.js';
import type { BatchPlace } from './lane-writer.js';
import type {
  EntriesLease,
  EntriesToStage,
  LogStoreEvents,
  LogStoreMetrics,
  StagedEntries,
} from './log-store.js';
import type { RecoveredLane, RecoveryMode } from './recovery.js';
import { describeGroup, recoverLane } from './recovery.js';
import { reportLosses, reportRecovery } from './recovery-report.js';
import type { StorageExecutor } from './storage-executor.js';
import type { StoreDamage } from './store-damage.js';
import type { LaneMemory, WalMemoryOptions } from './wal-memory.js';
import { maxIndexBytes, maxStageBytes, reserveReadScratch } from './wal-memory.js';

export interface WalLaneOptions extends WalMemoryOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  /** How many there are. */
  readonly lanes: number;
  readonly maxBatchEntries: number;
  readonly lingerMicros: number;
  readonly recovery: RecoveryMode;
  readonly directIo: 'auto' | 'off';
}

export interface WalLaneParts {
  readonly heap: SharedHeap;
  /** Of this lane alone. */
  readonly memory: LaneMemory;
  readonly executor: StorageExecutor;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly events: LogStoreEvents;
  readonly decodeMembership: (payload: Uint8Array, index: LogIndex) => Membership;
  /** Of all lanes of the store. */
  readonly diskUse: DiskUse;
  /** Throws when the store has failed or is closed. */
  readonly checkUsable: () => void;
  /** Whether the store may be written to. */
  readonly usable: () => boolean;
}

const TWO_POW_52 = 2 ** 52;

export class WalLane {
  /** What the store has lost, in whatever lane. */
  private damage: StoreDamage | undefined;
  private readonly options: WalLaneOptions;
  private readonly parts: WalLaneParts;
  private readonly ring: EntryRing;
  private readonly log: LaneLog;
  private readonly files: LaneFiles;
  private readonly indexBudget: IndexBudget;
  private readonly usage: SegmentUsage = new SegmentUsage();
  private readonly groups: Map<number, GroupLog> = new Map();
  private readonly recoveredLogs: Map<number, RecoveredLog> = new Map();
  private readonly lastTimes: Map<number, number> = new Map();
  private cacheHits = 0;
  private cacheMisses = 0;
  private readonly unpinned: () => void;

  constructor(options: WalLaneOptions, parts: WalLaneParts) {
    this.options = options;
    this.parts = parts;
    const { heap, memory, executor, scheduler, logger, events } = parts;
    const { directory, lane, lanes, segmentBytes, ringBytes, maxBatchBytes } = options;
    const stageBytes = maxStageBytes(options);
    this.ring = new EntryRing(memory.ring);
    this.indexBudget = new IndexBudget(maxIndexBytes(options), lanes);
    this.log = new LaneLog(
      heap,
      this.ring,
      (command) => executor.submit(lane, command),
      scheduler,
      { ...options, maxStageBytes: stageBytes },
      {
        flushed: (group: GroupLog, io: IoId) => events.flushed(group.id, io),
        written: (place: BatchPlace, batch: WrittenBatch) => this.files.written(place, batch),
        shrunk: (group: GroupLog) => this.indexBudget.count(group),
        failed: (error: KeelsonError) => events.failed(error),
        writable: () => events.writable(),
      },
      () => this.oldestSegment(),
      {
        admits: (bytes) => this.files.admits(bytes),
        refusal: (bytes) => this.diskRefusal(bytes),
      },
    );
    const direct = options.directIo === 'auto';
    const { zeros } = memory;
    this.files = new LaneFiles(
      {
        ...{ directory, lane, lanes, segmentBytes, ringBytes, maxBatchBytes },
        ...{ maxStageBytes: stageBytes, direct, zeros },
      },
      executor,
      logger,
      {
        groups: () => this.groups,
        usage: this.usage,
        move: (log, block) => this.log.move(log, block),
        roll: () => {
          const [log] = this.groups.values();
          if (log !== undefined && parts.usable()) this.log.roll(log);
        },
        queuedBytes: () => this.log.queuedBytes,
        diskUse: parts.diskUse,
        filled: () => this.log.filled(),
        roomy: () => this.log.roomy(),
        admitting: () => this.log.unpinned(),
      },
      scheduler,
    );
    this.unpinned = () => {
      if (this.files.movesWait) scheduler.enqueue(() => this.files.goOn());
      this.log.unpinned();
    };
  }

  /**
   * Reads what the files hold, and removes what a crash has left unfinished.
   * @throws KeelsonError as the store's `open`
   */
  async recover(): Promise<RecoveredLane> {
    const { heap, executor, memory, scheduler, logger } = this.parts;
    const { directory, lane, lanes, recovery: mode } = this.options;
    const recovered = await recoverLane(heap, executor, {
      directory,
      lane,
      lanes,
      mode,
      scratch: memory.ring.pointer,
      scratchBytes: memory.ring.ringBytes,
      summary: memory.summary,
      usage: this.usage,
      epoch: Math.floor(scheduler.random() * TWO_POW_52),
    });
    this.takeOver(recovered);
    if (recovered.losses.length > 0) reportLosses(logger, directory, recovered);
    return recovered;
  }

  /**
   * The files are read, and stay as they are; with `damage` for good.
   * @throws KeelsonError INVALID_CONFIG when there is no memory for what the files hold
   */
  beginReading({ largestBlockBytes }: RecoveredLane, damage: StoreDamage | undefined): void {
    this.damage = damage;
    const { heap, memory, checkUsable } = this.parts;
    const { bytes: indexBytes } = this.indexBudget;
    const scratch = reserveReadScratch(heap, this.options, { largestBlockBytes, indexBytes });
    this.files.beginReading({ ...scratch, summary: memory.summary }, checkUsable);
  }

  /** The lane, which is read already and has lost nothing, goes on; resolves when its first segment is durable. */
  async begin(recovered: RecoveredLane): Promise<void> {
    const { memory, executor, logger } = this.parts;
    const { directory, lane, lanes, segmentBytes, directIo } = this.options;
    const { writer, zeros } = memory;
    const place = await executor.startLane(
      { directory, lane, lanes, segmentBytes, direct: directIo === 'auto', ...writer, zeros },
      recovered.start,
      {
        completed: (done) => this.log.completed(done),
        failed: (error) => this.log.fail(error),
      },
    );
    if (place !== undefined) recovered.placeCarried(place);
    await this.files.begin(recovered);
    reportRecovery(logger, directory, lane, recovered);
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
    const log = this.group(group);
    const { firstIndex, count, term, kind } = entries;
    const termRuns = term === log.termRuns.lastTerm ? 0 : 1;
    const fromClients = kind === ENTRY_KIND.application;
    const refusal = fromClients ? this.diskRefusal(0) : undefined;
    if (refusal !== undefined) throw refusal;
    const lastIndex = firstIndex + count - 1;
    this.indexBudget.check(log, lastIndex, termRuns, fromClients);
    const staged = this.log.stage(log, entries);
    this.indexBudget.stage(log, lastIndex, termRuns);
    return staged;
  }

  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    const log = this.group(group);
    const staged = this.log.receive(log, firstIndex, parts);
    const { lastIndex, termRuns } = staged;
    this.indexBudget.check(log, lastIndex, termRuns.length, false);
    this.indexBudget.stage(log, lastIndex, termRuns.length);
    return staged;
  }

  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    const log = this.group(group);
    this.log.append(log, staged, firstIndex, io);
    log.forgetStaged();
  }

  saveVote(group: number, io: IoId): void {
    this.log.saveVote(this.group(group), io);
  }

  truncateAfter(group: number, index: LogIndex, io: IoId): void {
    this.log.truncateAfter(this.group(group), index, io);
  }

  purge(group: number, upTo: LogId): void {
    const log = this.group(group);
    if (upTo.index <= log.purged.index) return;
    invariant(upTo.index <= log.lastIndex, 'what is purged was in the log');
    this.log.purge(log, upTo);
  }

  resetLog(group: number, lastIncluded: LogId, io: IoId): void {
    const log = this.group(group);
    const { index } = lastIncluded;
    const ahead = index > log.purged.index && index >= log.committed;
    invariant(ahead, 'a log begins anew behind what it has purged and committed');
    this.log.reset(log, lastIncluded, io);
  }

  advanceIo(group: number, io: IoId): void {
    this.log.advanceIo(this.group(group), io);
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
    const log = this.group(group);
    const known = this.damage?.readableUpTo(group, firstIndex, lastIndex) ?? lastIndex;
    const last = log.termRuns.lastReadable(firstIndex, Math.min(known, log.lastIndex));
    const kept = firstIndex > log.purged.index && firstIndex <= last;
    invariant(kept, 'entries that are read are in the log');
    const lease = log.lease(this.parts.heap, firstIndex, last, maxBytes, this.unpinned);
    if (lease !== undefined) {
      this.cacheHits++;
      return lease;
    }
    this.cacheMisses++;
    return this.readFromSegments(log, firstIndex, last, maxBytes);
  }

  /** Durability is lost for good, here or in another lane. */
  fail(error: KeelsonError): void {
    this.log.fail(error);
  }

  /**
   * Resolves when nothing is under way any more and, where the lane was written, the last batch is durable or
   * durability is lost.
   */
  async shutDown(written: boolean): Promise<void> {
    // Nothing is moved any more: the last batch says that it is the last.
    const filesAtRest = this.files.stop();
    if (written) await this.log.shutDown(this.groups.values());
    await filesAtRest;
  }

  metrics(): LogStoreMetrics {
    const { log, ring, files } = this;
    let indexBytes = 0;
    for (const { index } of this.groups.values()) indexBytes += index.bytes;
    return {
      flushes: log.flushes,
      flushedEntries: log.flushedEntries,
      flushedBytes: log.flushedBytes,
      queuedBytes: log.queuedBytes,
      ringBytes: ring.ringBytes,
      ringUsedBytes: ring.usedBytes(),
      cacheHits: this.cacheHits,
      cacheMisses: this.cacheMisses,
      retiredSegments: files.retiredSegments,
      movedBytes: files.movedBytes,
      indexBytes,
    };
  }

  private takeOver(recovered: RecoveredLane): void {
    for (const [id, group] of recovered.groups) {
      const { checkpoint, index } = group;
      this.recoveredLogs.set(id, describeGroup(group, this.parts.decodeMembership));
      this.lastTimes.set(id, group.lastTime);
      const { vote, committed } = checkpoint;
      const log = new GroupLog(id, index, vote, committed, checkpoint.purged);
      this.groups.set(id, log);
      this.indexBudget.count(log);
    }
  }

  private oldestSegment(): number {
    return Math.min(this.files.newest, this.usage.oldest);
  }

  private group(id: number): GroupLog {
    let log = this.groups.get(id);
    if (log === undefined) {
      log = new GroupLog(
        id,
        new SegmentIndex(this.parts.heap, 1, this.usage),
        NO_VOTE,
        0,
        NO_LOG_ID,
      );
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
    this.parts.checkUsable();
    return this.read(log.id, firstIndex, lastIndex, maxBytes);
  }

  private diskRefusal(bytes: number): KeelsonError | undefined {
    if (this.files.hasRoom(bytes)) return undefined;
    const { directory } = this.options;
    return new KeelsonError(
      'KEELSON_STORAGE_FULL',
      `The disk of ${directory} is full. Nothing was changed, and reads and elections go on. Free ` +
        'space, or let the log be purged: entries are taken again by themselves.',
      { details: { directory } },
    );
  }
}
