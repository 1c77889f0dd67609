/**
 * The log of a host on disk. A lane holds the logs of its groups (see wal-lane.ts); the store opens and closes
 * it with its threads, and says whether it may be used.
 *
 * Rule: nothing is reported as durable that is not; the first failure of a write, a sync or a thread
 * poisons the store for good.
 */
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { silentLogger } from '../base/logger.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { IoId, LogId, LogIndex, Membership, RecoveredLog } from '../engine/types.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { LOG_FOLDER } from './data-directory.js';
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
import type { StorageExecutor } from './storage-executor.js';
import { WalLane, type WalLaneOptions } from './wal-lane.js';
import { reserveWalMemory, type WalMemory } from './wal-memory.js';

export interface WalLogStoreOptions extends Omit<WalLaneOptions, 'lane'> {
  /** The data directory; segments stand in its folder `wal`. */
  readonly directory: string;
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

export class WalLogStore implements LogStore {
  private readonly scheduler: Scheduler;
  private readonly events: LogStoreEvents;
  private readonly logger: Logger;
  private readonly executor: StorageExecutor;
  private readonly closeTimeoutMs: number;
  private readonly lane: WalLane;
  private failure: KeelsonError | undefined;
  private closing: Promise<void> | undefined;

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
      await store.lane.begin(await store.lane.recover());
    } catch (error) {
      await executor.close(parts.scheduler.now() + store.closeTimeoutMs);
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
    const { heap, scheduler, events, decodeMembership, logger = silentLogger } = parts;
    this.scheduler = scheduler;
    this.events = events;
    this.logger = logger;
    this.executor = executor;
    this.closeTimeoutMs = options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS;
    this.lane = new WalLane(
      { ...options, directory: `${options.directory}/${LOG_FOLDER}`, lane: LANE },
      {
        heap,
        memory,
        executor,
        scheduler,
        logger,
        events: {
          flushed: (group, io) => events.flushed(group, io),
          failed: (error) => this.poison(error),
          writable: () => events.writable(),
        },
        decodeMembership,
        checkUsable: () => this.checkUsable(),
        usable: () => this.usable(),
      },
    );
  }

  recovered(group: number): RecoveredLog {
    return this.lane.recovered(group);
  }

  /** What is lost of a group, where the mode `repair` has opened a damaged log; undefined in a whole one. */
  lossOf(group: number): GroupLoss | undefined {
    return this.lane.lossOf(group);
  }

  lastTime(group: number): number {
    return this.lane.lastTime(group);
  }

  stage(group: number, entries: EntriesToStage): StagedEntries {
    this.checkUsable();
    this.checkWritable();
    return this.lane.stage(group, entries);
  }

  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    this.checkUsable();
    this.checkWritable();
    return this.lane.receive(group, firstIndex, parts);
  }

  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    if (this.usable()) this.lane.append(group, staged, firstIndex, io);
  }

  saveVote(group: number, io: IoId): void {
    if (this.usable()) this.lane.saveVote(group, io);
  }

  truncateAfter(group: number, index: LogIndex, io: IoId): void {
    if (this.usable()) this.lane.truncateAfter(group, index, io);
  }

  purge(group: number, upTo: LogId): void {
    if (this.usable()) this.lane.purge(group, upTo);
  }

  resetLog(group: number, lastIncluded: LogId, io: IoId): void {
    if (this.usable()) this.lane.resetLog(group, lastIncluded, io);
  }

  advanceIo(group: number, io: IoId): void {
    if (this.usable()) this.lane.advanceIo(group, io);
  }

  recordCommitted(group: number, index: LogIndex): void {
    this.lane.recordCommitted(group, index);
  }

  read(
    group: number,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): EntriesLease | Promise<EntriesLease> {
    this.checkUsable();
    return this.lane.read(group, firstIndex, lastIndex, maxBytes);
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  metrics(): LogStoreMetrics {
    return this.lane.metrics();
  }

  /** One limit for all of it: what a disk that hangs leaves undone is abandoned, as in a crash. */
  private async shutDown(): Promise<void> {
    const { scheduler, closeTimeoutMs: limitMs } = this;
    const untilMs = scheduler.now() + limitMs;
    const inOrder = this.lane.shutDown().then(() => this.executor.stopLane());
    try {
      await untilTime(scheduler, untilMs - limitMs * THREADS_END_SHARE, inOrder);
    } finally {
      await this.executor.close(untilMs);
    }
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
    const { damage } = this.lane;
    if (damage !== undefined) throw damage.refusal();
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
