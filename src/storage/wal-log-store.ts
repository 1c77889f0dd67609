/**
 * The log of a host on disk: one or several lanes, each with the logs of its groups (see wal-lane.ts). The store
 * opens and closes them with their threads, finds the lane of a group, and says whether the log may be used.
 *
 * Rule: nothing is reported as durable that is not; the first failure of a write, a sync or a thread, in
 * whatever lane, poisons the store for good.
 */
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { silentLogger } from '../base/logger.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { IoId, LogId, LogIndex, Membership, RecoveredLog } from '../engine/types.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { LOG_FOLDER } from './data-directory.js';
import { DiskUse } from './disk-use.js';
import { laneOfGroup } from './lane-of-group.js';
import type {
  EntriesLease,
  EntriesToStage,
  LogStore,
  LogStoreEvents,
  LogStoreMetrics,
  StagedEntries,
} from './log-store.js';
import { PiscinaExecutor } from './piscina-executor.js';
import type { StorageExecutor } from './storage-executor.js';
import { StoreDamage } from './store-damage.js';
import { WalLane, type WalLaneOptions } from './wal-lane.js';
import { type LaneMemory, reserveWalMemory } from './wal-memory.js';

export interface WalLogStoreOptions extends Omit<WalLaneOptions, 'lane' | 'lanes'> {
  /** See `WalMemoryOptions.lanes`. */
  readonly lanes?: number;
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

const CLOSE_TIMEOUT_MS = 5_000;
/** Of the time for `close`, kept for threads that have to be ended without having answered. */
const THREADS_END_SHARE = 1 / 4;

export class WalLogStore implements LogStore {
  /** Set by a recovery in the mode `repair`: the store is read only. */
  damage: StoreDamage | undefined;
  private readonly scheduler: Scheduler;
  private readonly events: LogStoreEvents;
  private readonly logger: Logger;
  private readonly executor: StorageExecutor;
  private readonly closeTimeoutMs: number;
  private readonly lanes: readonly WalLane[];
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
      await executor.open(memory.length);
      await store.begin();
    } catch (error) {
      await store.end(false);
      throw error;
    }
    return store;
  }

  private constructor(
    options: WalLogStoreOptions,
    parts: WalLogStoreParts,
    executor: StorageExecutor,
    memory: readonly LaneMemory[],
  ) {
    const { heap, scheduler, events, decodeMembership, logger = silentLogger } = parts;
    this.scheduler = scheduler;
    this.events = events;
    this.logger = logger;
    this.executor = executor;
    this.closeTimeoutMs = options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS;
    const directory = `${options.directory}/${LOG_FOLDER}`;
    const common = {
      ...{ heap, executor, scheduler, logger, decodeMembership },
      events: {
        flushed: (group: number, io: IoId) => events.flushed(group, io),
        failed: (error: KeelsonError) => this.poison(error),
        writable: () => events.writable(),
      },
      diskUse: new DiskUse(),
      checkUsable: () => this.checkUsable(),
      usable: () => this.usable(),
    };
    this.lanes = memory.map((ofLane, lane) => {
      const ofOptions = { ...options, directory, lane, lanes: memory.length };
      return new WalLane(ofOptions, { ...common, memory: ofLane });
    });
  }

  recovered(group: number): RecoveredLog {
    return this.lane(group).recovered(group);
  }

  lastTime(group: number): number {
    return this.lane(group).lastTime(group);
  }

  stage(group: number, entries: EntriesToStage): StagedEntries {
    this.checkUsable();
    this.checkWritable();
    return this.lane(group).stage(group, entries);
  }

  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    this.checkUsable();
    this.checkWritable();
    return this.lane(group).receive(group, firstIndex, parts);
  }

  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    if (this.usable()) this.lane(group).append(group, staged, firstIndex, io);
  }

  saveVote(group: number, io: IoId): void {
    if (this.usable()) this.lane(group).saveVote(group, io);
  }

  truncateAfter(group: number, index: LogIndex, io: IoId): void {
    if (this.usable()) this.lane(group).truncateAfter(group, index, io);
  }

  purge(group: number, upTo: LogId): void {
    if (this.usable()) this.lane(group).purge(group, upTo);
  }

  resetLog(group: number, lastIncluded: LogId, io: IoId): void {
    if (this.usable()) this.lane(group).resetLog(group, lastIncluded, io);
  }

  advanceIo(group: number, io: IoId): void {
    if (this.usable()) this.lane(group).advanceIo(group, io);
  }

  recordCommitted(group: number, index: LogIndex): void {
    this.lane(group).recordCommitted(group, index);
  }

  read(
    group: number,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): EntriesLease | Promise<EntriesLease> {
    this.checkUsable();
    return this.lane(group).read(group, firstIndex, lastIndex, maxBytes);
  }

  close(): Promise<void> {
    // Nothing was written to a damaged log, so there is nothing to end in order.
    this.closing ??= this.end(this.damage === undefined);
    return this.closing;
  }

  /** Of all lanes together. */
  metrics(): LogStoreMetrics {
    return this.lanes.map((lane) => lane.metrics()).reduce(sumOf);
  }

  private lane(group: number): WalLane {
    const { lanes } = this;
    return lanes[laneOfGroup(group, lanes.length)]!;
  }

  private async begin(): Promise<void> {
    const { lanes } = this;
    const recovered = await all(lanes.map((lane) => lane.recover()));
    const damaged = recovered.some(({ losses }) => losses.length > 0);
    this.damage = damaged ? new StoreDamage(recovered) : undefined;
    // All that a configuration can be refused for comes before the first write.
    for (const [at, lane] of lanes.entries()) lane.beginReading(recovered[at]!, this.damage);
    if (damaged) return;
    await all(lanes.map((lane, at) => lane.begin(recovered[at]!)));
  }

  /**
   * In order if the log was `written`. One limit for all of it: what a disk that hangs leaves undone is
   * abandoned, as in a crash.
   */
  private async end(written: boolean): Promise<void> {
    const { scheduler, closeTimeoutMs: limitMs } = this;
    const untilMs = scheduler.now() + limitMs;
    const atRest = Promise.all(this.lanes.map((lane) => lane.shutDown(written)));
    const inOrder = atRest.then(() => this.executor.stopLanes());
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
    for (const lane of this.lanes) lane.fail(error);
    this.events.failed(error);
  }

  private usable(): boolean {
    this.checkWritable();
    return this.failure === undefined && this.closing === undefined;
  }

  private checkWritable(): void {
    if (this.damage !== undefined) throw this.damage.refusal();
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

/** As `Promise.all`, but leaves nothing under way when one is rejected. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

function sumOf(left: LogStoreMetrics, right: LogStoreMetrics): LogStoreMetrics {
  const sum: Record<keyof LogStoreMetrics, number> = { ...left };
  for (const name of Object.keys(left) as (keyof LogStoreMetrics)[]) sum[name] += right[name];
  return sum;
}
