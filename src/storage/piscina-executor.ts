/**
 * Runs storage in worker threads: one for each lane, which reads what the lane holds and then writes it (see
 * lane-thread.ts), and one for all other tasks, so that a read never waits behind a write.
 *
 * A thread that dies is final: its pool is never asked again, because what the dead thread had written is
 * unknown. A thread that hangs in the kernel does not hang `close`.
 */
import { existsSync } from 'node:fs';
import type { Piscina } from 'piscina';
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import { fileOf } from '../base/file-of.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { LaneThread } from './lane-thread.js';
import type { BatchPlace, LaneStart, LaneWriterOptions, SealCommand } from './lane-writer.js';
import { oneThreadPool } from './one-thread-pool.js';
import type { LaneEvents, StorageExecutor } from './storage-executor.js';
import type { StorageTask, StorageTaskResult } from './storage-tasks.js';
import type { WorkerAnswer, WorkerTask } from './storage-worker.js';
import { resultOf, threadDied } from './worker-result.js';

export interface PiscinaExecutorOptions {
  /** The compiled storage-worker.js. */
  readonly workerFile?: URL;
  readonly handshakeTimeoutMs?: number | undefined;
}

export class PiscinaExecutor implements StorageExecutor {
  private readonly heap: SharedHeap;
  private readonly scheduler: Scheduler;
  private readonly workerFile: URL;
  private readonly handshakeTimeoutMs: number;
  private readonly lanes: LaneThread[] = [];
  /** Of all tasks but those of a recovery. */
  private taskPool: Piscina | undefined;

  constructor(heap: SharedHeap, scheduler: Scheduler, options: PiscinaExecutorOptions = {}) {
    this.heap = heap;
    this.scheduler = scheduler;
    this.workerFile = options.workerFile ?? new URL('./storage-worker.js', import.meta.url);
    this.handshakeTimeoutMs = options.handshakeTimeoutMs ?? 5_000;
  }

  async open(lanes: number): Promise<void> {
    if (this.workerFile.protocol === 'file:' && !existsSync(this.workerFile)) {
      throw this.missingFile('it does not exist');
    }
    for (let lane = 0; lane < lanes; lane++) {
      this.lanes.push(new LaneThread(this.heap, this.makePool(`keelson-lane-${lane}`)));
    }
    this.taskPool = this.makePool('keelson-storage');
    const pools = [...this.lanes.map((lane) => lane.pool), this.taskPool];
    await Promise.all(pools.map((pool) => this.handshake(pool)));
  }

  async run<T extends StorageTask>(task: T): Promise<StorageTaskResult<T>> {
    const { taskPool } = this;
    invariant(taskPool !== undefined, 'the executor is open');
    // Until a lane begins, its thread has nothing else to do; one more reads ahead.
    const ofLane = task.type === 'inspect' || (task.type === 'scan' && !task.beside);
    const pool = ofLane ? this.thread(task.lane).pool : taskPool;
    let answer: WorkerAnswer;
    try {
      answer = (await pool.run(task)) as WorkerAnswer;
    } catch (error) {
      // Not left to who asked for the task: it may go on without its result, the store may not.
      if (this.taskPool !== undefined) this.threadFailed(error);
      throw threadDied(error);
    }
    return resultOf(answer) as StorageTaskResult<T>;
  }

  startLane(
    options: LaneWriterOptions,
    start: LaneStart,
    events: LaneEvents,
  ): Promise<BatchPlace | undefined> {
    return this.thread(options.lane).start(options, start, events);
  }

  submit(lane: number, command: SealCommand): void {
    this.thread(lane).submit(command);
  }

  async stopLanes(): Promise<void> {
    await Promise.all(this.lanes.map((lane) => lane.stop()));
  }

  async close(untilMs: number): Promise<void> {
    const { lanes, taskPool } = this;
    this.taskPool = undefined;
    const stopping = [...lanes.map((lane) => lane.destroy()), taskPool?.destroy()];
    await untilTime(this.scheduler, untilMs, Promise.all(stopping));
  }

  private thread(lane: number): LaneThread {
    const thread = this.lanes[lane];
    invariant(thread !== undefined, 'there is a thread for each lane');
    return thread;
  }

  private makePool(name: string): Piscina {
    return oneThreadPool(this.workerFile, (error) => this.threadFailed(error), { name });
  }

  private threadFailed(error: unknown): void {
    for (const lane of this.lanes) lane.fail(threadDied(error));
  }

  private async handshake(pool: Piscina): Promise<void> {
    let timer: { cancel(): void } | undefined;
    const timeout = new Promise<never>((_resolve, reject) => {
      timer = this.scheduler.setTimer(this.handshakeTimeoutMs, () => {
        reject(this.missingFile(`it did not answer within ${this.handshakeTimeoutMs} ms`));
      });
      pool.once('error', (error: Error) => reject(this.missingFile(error.message)));
    });
    try {
      await Promise.race([this.greet(pool), timeout]);
    } finally {
      timer?.cancel();
    }
  }

  /** Nothing but a file that does not load makes this task fail. */
  private async greet(pool: Piscina): Promise<void> {
    const task: WorkerTask = { type: 'handshake', heap: this.heap.transferable };
    let answer: WorkerAnswer;
    try {
      answer = (await pool.run(task)) as WorkerAnswer;
    } catch (error) {
      throw this.missingFile(error instanceof Error ? error.message : String(error));
    }
    resultOf(answer);
  }

  private missingFile(reason: string): KeelsonError {
    const file = fileOf(this.workerFile);
    return new KeelsonError(
      'KEELSON_MISSING_FILE',
      `The storage worker ${file} could not be started: ${reason}. If the application is bundled, ` +
        'keep the keelson package external, or copy its dist folder beside the bundle.',
      { details: { file } },
    );
  }
}
