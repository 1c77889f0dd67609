/**
 * Runs a machine that was given as the URL of a module, in a worker of its own.
 *
 * Bytes on shared memory are passed as views, and their lease is held until the task has ended; other
 * bytes are copied once and moved. What waits while `maxQueuedApplies` tasks are out is joined into
 * the next task. A machine that threw, or whose worker died, is lost: nothing is ever run twice, and
 * nothing runs after it.
 *
 * Between tasks the worker's event loop stands still; a machine must not count on timers of its own.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { invariant } from '../base/assert.js';
import { fromErrorRecord, KeelsonError } from '../base/errors.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { EntriesLease } from '../storage/log-store.js';
import { msgpackCodec } from './codec.js';
import { feedRestore } from './feed-restore.js';
import type { MachineEvents, MachineHost, MachineSnapshot } from './machine-host.js';
import { loadCodec, missingFile } from './machine-module.js';
import type { ApplyRange, LoadedModule, MachineResult, MachineTask } from './machine-tasks.js';
import { checkLastApplied, closedError } from './main-thread-host.js';
import { RestoreGate } from './restore-gate.js';
import type { Codec } from './state-machine.js';

export interface WorkerLimits {
  readonly maxApplyEntries: number;
  readonly maxApplyBytes: number;
  /** Apply tasks that are given to the worker at a time. */
  readonly maxQueuedApplies: number;
  readonly workerStartTimeoutMs: number;
}

export interface WorkerHostOptions {
  readonly group: number;
  readonly events: MachineEvents;
  readonly scheduler: Scheduler;
  readonly limits: WorkerLimits;
  /** Time for the worker to end what it has when the host closes. Default 10 s. */
  readonly shutdownTimeoutMs?: number;
  /** The file that the worker runs; only tests name another. */
  readonly workerFile?: URL;
}

const SHUTDOWN_TIMEOUT_MS = 10_000;
const MAX_RUNNING_QUERIES = 64;
const MAX_QUEUED_QUERIES = 65_536;

export class WorkerHost implements MachineHost {
  private readonly url: URL;
  private readonly options: WorkerHostOptions;
  private readonly group: number;
  private pool: Piscina | undefined;
  private codec: Codec<unknown> = msgpackCodec;
  private machineVersion = 1;
  private lastAccepted = 0;
  private readonly gate = new RestoreGate();
  private queue: QueuedApply[] = [];
  /** Apply tasks that the worker has, oldest first. */
  private running: RunningApply[] = [];
  private waitingQueries: (() => void)[] = [];
  private runningQueries = 0;
  private opened = false;
  private concurrentSnapshot = false;
  private snapshots = 0;
  /** Snapshots by whose end applies wait in the queue. */
  private readonly holds = new Set<number>();
  private failure: KeelsonError | undefined;
  private closing: Promise<void> | undefined;
  private idle: (() => void) | undefined;

  constructor(url: URL, options: WorkerHostOptions) {
    this.url = url;
    this.options = options;
    this.group = options.group;
  }

  get version(): number {
    return this.machineVersion;
  }

  async open(): Promise<number> {
    const workerFile = this.options.workerFile ?? new URL('./machine-worker.js', import.meta.url);
    for (const file of [workerFile, this.url]) {
      if (file.protocol === 'file:' && !existsSync(fileURLToPath(file))) {
        this.failure = missingFile(file, 'there is no such file');
        throw this.failure;
      }
    }
    const concurrency = this.options.limits.maxQueuedApplies + MAX_RUNNING_QUERIES + 1;
    this.pool = new Piscina({
      filename: workerFile.href,
      minThreads: 1,
      maxThreads: 1,
      concurrentTasksPerWorker: concurrency,
      stricterFIFO: true,
      recordTiming: false,
      trackUnmanagedFds: false,
    });
    this.pool.on('error', (error: Error) => this.lost(error.message));
    this.pool.on('workerDestroy', () => this.workerGone());
    try {
      const { version, ownCodec, concurrentSnapshot } = await this.load(this.pool, workerFile);
      this.machineVersion = version;
      this.concurrentSnapshot = concurrentSnapshot;
      if (ownCodec) this.codec = await loadCodec(this.url.href);
      this.lastAccepted = checkLastApplied(await this.run({ type: 'open' }));
      this.opened = true;
      return this.lastAccepted;
    } catch (error) {
      this.failure ??= error as KeelsonError;
      await this.pool.destroy();
      throw error;
    }
  }

  apply(lease: EntriesLease, firstIndex: number, lastIndex: number): void {
    if (this.closing !== undefined || this.failure !== undefined) return;
    if (firstIndex !== this.lastAccepted + 1 || lastIndex < firstIndex) {
      invariant(false, `apply of ${firstIndex}…${lastIndex} must follow ${this.lastAccepted}`);
    }
    this.lastAccepted = lastIndex;
    lease.retain();
    this.queue.push({ lease, firstIndex, lastIndex });
    this.pump();
  }

  async query(query: unknown): Promise<unknown> {
    this.checkUsable();
    if (this.gate.isShut) await this.gate.pass();
    if (this.runningQueries >= MAX_RUNNING_QUERIES) await this.queryTurn();
    this.checkUsable();
    this.runningQueries++;
    try {
      return await this.run({ type: 'query', query });
    } finally {
      this.runningQueries--;
      this.waitingQueries.shift()?.();
      this.checkIdle();
    }
  }

  /** Behind the applies that the worker has; those that wait here come after it. */
  async snapshot(): Promise<MachineSnapshot> {
    this.checkUsable();
    const snapshot = ++this.snapshots;
    if (!this.concurrentSnapshot) this.holds.add(snapshot);
    let lastIndex: number;
    try {
      lastIndex = (await this.run({ type: 'beginSnapshot', snapshot })) as number;
    } catch (error) {
      this.goOn(snapshot);
      throw error;
    }
    let ended = false;
    return {
      lastIndex,
      next: async (into) => {
        if (ended) throw new KeelsonError('KEELSON_ABORTED', 'the snapshot was ended');
        return (await this.run({ type: 'nextOfSnapshot', snapshot, into })) as number | undefined;
      },
      end: async () => {
        if (ended) return;
        ended = true;
        this.goOn(snapshot);
        if (this.failure === undefined && this.closing === undefined) {
          await this.run({ type: 'endSnapshot', snapshot });
        }
      },
    };
  }

  async restore(chunks: AsyncIterable<Uint8Array>, lastIndex: number): Promise<void> {
    this.checkUsable();
    const idle = this.queue.length === 0 && this.running.length === 0;
    invariant(idle, 'a machine is restored between applies');
    await this.gate.during(async () => {
      await this.run({ type: 'beginRestore' });
      await feedRestore((task, moved) => this.run(task, moved), chunks);
      await this.run({ type: 'endRestore', lastIndex });
    });
    this.lastAccepted = lastIndex;
  }

  encode(command: unknown): Uint8Array {
    return this.codec.encode(command);
  }

  /** Digest of the machine's state, or undefined if it has none. */
  async digest(): Promise<string | undefined> {
    this.checkUsable();
    return (await this.run({ type: 'digest' })) as string | undefined;
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async shutDown(): Promise<void> {
    this.releaseQueue();
    this.wakeQueries();
    if (this.failure === undefined && this.pool !== undefined) {
      await this.closeWorker();
    }
    await this.pool?.destroy();
  }

  /** Lets the worker end what it has and close its machine; a worker that hangs is abandoned. */
  private async closeWorker(): Promise<void> {
    const { scheduler, shutdownTimeoutMs = SHUTDOWN_TIMEOUT_MS } = this.options;
    const untilMs = scheduler.now() + shutdownTimeoutMs;
    const idle = new Promise<void>((resolve) => {
      this.idle = resolve;
    });
    this.checkIdle();
    const closed = idle.then(() => (this.failure === undefined ? this.run({ type: 'close' }) : 0));
    try {
      await untilTime(scheduler, untilMs, closed);
    } finally {
      closed.catch(ignoreLate);
    }
  }

  /** The first task, under a time limit: a worker that cannot start may never answer. */
  private load(pool: Piscina, workerFile: URL): Promise<LoadedModule> {
    const { scheduler, limits } = this.options;
    const task: MachineTask = { type: 'load', url: this.url.href, group: this.group };
    return new Promise((resolve, reject) => {
      const timer = scheduler.setTimer(limits.workerStartTimeoutMs, () => {
        const reason = `the worker did not load it within ${limits.workerStartTimeoutMs} ms`;
        reject(missingFile(this.url, reason));
      });
      const settle = (result: MachineResult): void => {
        timer.cancel();
        if (result.error !== undefined) reject(fromErrorRecord(result.error));
        else resolve(result.value as LoadedModule);
      };
      pool.run(task).then(settle, (error: Error) => {
        timer.cancel();
        reject(missingFile(workerFile, `the worker did not start (${error.message})`, error));
      });
    });
  }

  /** Runs one task; what the worker reports as an error is thrown, its death too. */
  private async run(task: MachineTask, transferList: ArrayBuffer[] = []): Promise<unknown> {
    let result: MachineResult;
    try {
      result = (await this.pool!.run(task, { transferList })) as MachineResult;
    } catch (error) {
      throw this.lost(error instanceof Error ? error.message : String(error));
    }
    if (result.error !== undefined) throw fromErrorRecord(result.error);
    return result.value;
  }

  /** The snapshot has ended. */
  private goOn(snapshot: number): void {
    this.holds.delete(snapshot);
    this.pump();
  }

  private pump(): void {
    const { limits } = this.options;
    if (this.holds.size > 0) return;
    while (this.queue.length > 0 && this.running.length < limits.maxQueuedApplies) {
      if (this.failure !== undefined) return;
      this.startApply(this.takeBatch());
    }
  }

  /** As many queued ranges as fit one task, at least one. */
  private takeBatch(): QueuedApply[] {
    const { maxApplyEntries, maxApplyBytes } = this.options.limits;
    let entries = 0;
    let bytes = 0;
    let count = 0;
    for (const { lease, firstIndex, lastIndex } of this.queue) {
      entries += lastIndex - firstIndex + 1;
      bytes += lease.bytes;
      if (count > 0 && (entries > maxApplyEntries || bytes > maxApplyBytes)) break;
      count++;
    }
    return this.queue.splice(0, count);
  }

  private startApply(batch: readonly QueuedApply[]): void {
    const { maxApplyEntries, maxApplyBytes } = this.options.limits;
    const moved: ArrayBuffer[] = [];
    const held: EntriesLease[] = [];
    const ranges = batch.map((queued) => portableRange(queued, moved, held));
    const running: RunningApply = {
      firstIndex: batch[0]!.firstIndex,
      lastIndex: batch.at(-1)!.lastIndex,
      batch,
      held,
    };
    this.running.push(running);
    this.run(
      { type: 'apply', ranges, maxEntries: maxApplyEntries, maxBytes: maxApplyBytes },
      moved,
    ).then(
      (responses) => this.applied(running, responses as unknown[]),
      (error) => this.applyFailed(running, error as KeelsonError),
    );
  }

  private applied(running: RunningApply, responses: readonly unknown[]): void {
    invariant(this.running[0] === running, 'applies complete in order');
    this.running.shift();
    for (const lease of running.held) lease.release();
    if (this.closing === undefined && this.failure === undefined) {
      this.tell(running, responses);
      this.pump();
    }
    this.checkIdle();
  }

  /** One event for each `apply`, however many the task joined. */
  private tell({ firstIndex, batch }: RunningApply, responses: readonly unknown[]): void {
    const { events } = this.options;
    for (const range of batch) {
      const from = range.firstIndex - firstIndex;
      const until = range.lastIndex + 1 - firstIndex;
      const own = batch.length === 1 ? responses : responses.slice(from, until);
      events.applied(range.firstIndex, range.lastIndex, own);
    }
  }

  private applyFailed(running: RunningApply, error: KeelsonError): void {
    const place = this.running.indexOf(running);
    invariant(place >= 0, 'a task ends once');
    this.running.splice(place, 1);
    for (const lease of running.held) lease.release();
    this.fail(error);
    this.checkIdle();
  }

  /** The worker has ended. Tasks that it had say why; without any, nobody else would tell. */
  private workerGone(): void {
    if (this.closing === undefined && this.failure === undefined && this.running.length === 0) {
      if (this.runningQueries === 0) this.lost('it exited');
    }
  }

  private lost(reason: string): KeelsonError {
    const [oldest] = this.running;
    const range =
      oldest === undefined
        ? 'while no entry was being applied'
        : `while it applied the indexes ${oldest.firstIndex}…${this.running.at(-1)!.lastIndex}`;
    const error = new KeelsonError(
      'KEELSON_STATE_MACHINE_FAILED',
      `the worker of the state machine of group ${this.group} died ${range}: ${reason}. ` +
        'The group has stopped on this node; restart the node to rebuild the machine from the log.',
      { outcome: 'unknown', details: { group: this.group, firstIndex: oldest?.firstIndex } },
    );
    this.fail(error);
    return this.failure ?? error;
  }

  private fail(error: KeelsonError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.releaseQueue();
    this.wakeQueries();
    if (this.opened && this.closing === undefined) this.options.events.failed(error);
  }

  private checkUsable(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.closing !== undefined) throw closedError(this.group);
  }

  private queryTurn(): Promise<void> {
    if (this.waitingQueries.length >= MAX_QUEUED_QUERIES) {
      const message = `${MAX_QUEUED_QUERIES} queries wait for the state machine of group ${this.group}`;
      throw new KeelsonError('KEELSON_OVERLOADED', `${message}; try again later`);
    }
    return new Promise((resolve) => this.waitingQueries.push(resolve));
  }

  private wakeQueries(): void {
    for (const wake of this.waitingQueries.splice(0)) wake();
  }

  private releaseQueue(): void {
    for (const { lease } of this.queue.splice(0)) lease.release();
  }

  private checkIdle(): void {
    if (this.running.length === 0 && this.runningQueries === 0) this.idle?.();
    else if (this.failure !== undefined) this.idle?.();
  }
}

/** An abandoned worker rejects when it is stopped; the time limit has told already. */
function ignoreLate(): void {}

interface QueuedApply {
  readonly lease: EntriesLease;
  readonly firstIndex: number;
  readonly lastIndex: number;
}

interface RunningApply {
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** The applies that it joins. */
  readonly batch: readonly QueuedApply[];
  /** Leases on shared memory that the worker reads. */
  readonly held: readonly EntriesLease[];
}

/**
 * Views on shared memory go as they are. Others are copied into a buffer of their own, because
 * sending a view sends the whole buffer under it, and a moved buffer would be lost to the store.
 */
function portableRange(
  { lease, firstIndex, lastIndex }: QueuedApply,
  moved: ArrayBuffer[],
  held: EntriesLease[],
): ApplyRange {
  if (lease.parts.every((part) => part.buffer instanceof SharedArrayBuffer)) {
    held.push(lease);
    return { parts: lease.parts, firstIndex, lastIndex };
  }
  const copy = new Uint8Array(lease.parts.reduce((sum, part) => sum + part.length, 0));
  let filled = 0;
  for (const part of lease.parts) {
    copy.set(part, filled);
    filled += part.length;
  }
  moved.push(copy.buffer);
  lease.release();
  return { parts: [copy], firstIndex, lastIndex };
}
