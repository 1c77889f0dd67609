/**
 * Runs storage in worker threads: one pool of a single thread for the lane, which holds one long
 * task for as long as the store is open, and one for all other tasks, so that a read never waits
 * behind a write.
 *
 * A thread that dies is final: the pool is closed and never asked again, because what the dead
 * thread had written is unknown. A thread that hangs in the kernel does not hang `close`.
 */
import { existsSync } from 'node:fs';
import type { Piscina } from 'piscina';
import { invariant } from '../base/assert.js';
import { fromErrorRecord, KeelsonError } from '../base/errors.js';
import { fileOf } from '../base/file-of.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import {
  COMPLETED,
  EVENT,
  LANE_CHANNEL_WORDS,
  RUNNING,
  readCarriedPlace,
  readPlace,
  ring,
  STOP,
  SUBMITTED,
  writeCommand,
} from './lane-channel.js';
import type { BatchPlace, LaneStart, LaneWriterOptions, SealCommand } from './lane-writer.js';
import { oneThreadPool } from './one-thread-pool.js';
import type { LaneEvents, StorageExecutor } from './storage-executor.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';
import type { StorageTask, StorageTaskResult } from './storage-tasks.js';
import type { LaneTask, WorkerAnswer, WorkerTask } from './storage-worker.js';

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
  private readonly channel: number;
  private readonly words: Int32Array;
  private lanePool: Piscina | undefined;
  private taskPool: Piscina | undefined;
  private events: LaneEvents | undefined;
  private laneTask: Promise<void> | undefined;
  private started: ((place: BatchPlace | undefined) => void) | undefined;
  private submitted = 0;
  private completed = 0;
  private waiting = false;
  private draining = false;

  constructor(heap: SharedHeap, scheduler: Scheduler, options: PiscinaExecutorOptions = {}) {
    this.heap = heap;
    this.scheduler = scheduler;
    this.workerFile = options.workerFile ?? new URL('./storage-worker.js', import.meta.url);
    this.handshakeTimeoutMs = options.handshakeTimeoutMs ?? 5_000;
    this.channel = heap.reserve(LANE_CHANNEL_WORDS * Int32Array.BYTES_PER_ELEMENT, 64);
    this.words = new Int32Array(heap.bytes.buffer, this.channel, LANE_CHANNEL_WORDS);
  }

  async open(): Promise<void> {
    if (this.workerFile.protocol === 'file:' && !existsSync(this.workerFile)) {
      throw this.missingFile('it does not exist');
    }
    this.lanePool = this.makePool('keelson-lane');
    this.taskPool = this.makePool('keelson-storage');
    await Promise.all([this.handshake(this.lanePool), this.handshake(this.taskPool)]);
  }

  async run<T extends StorageTask>(task: T): Promise<StorageTaskResult<T>> {
    const pool = this.taskPool;
    invariant(pool !== undefined, 'the executor is open');
    let answer: WorkerAnswer;
    try {
      answer = (await pool.run(task)) as WorkerAnswer;
    } catch (error) {
      // Not left to who asked for the task: it may go on without its result, the store may not.
      if (pool === this.taskPool) this.threadFailed(error);
      throw threadDied(error);
    }
    return resultOf(answer) as StorageTaskResult<T>;
  }

  startLane(
    options: LaneWriterOptions,
    start: LaneStart,
    events: LaneEvents,
  ): Promise<BatchPlace | undefined> {
    const pool = this.lanePool;
    invariant(pool !== undefined && this.laneTask === undefined, 'a lane is started once');
    this.events = events;
    return new Promise((resolve, reject) => {
      this.started = resolve;
      this.laneTask = runLane(pool, { type: 'lane', options, start, channel: this.channel }).then(
        () => this.drain(),
        (error: KeelsonError) => {
          // What was durable before the failure is still reported.
          this.drain();
          const starting = this.started !== undefined;
          this.started = undefined;
          if (starting) reject(error);
          else this.events?.failed(error);
          this.events = undefined;
        },
      );
      this.await();
    });
  }

  submit(command: SealCommand): void {
    invariant(this.submitted - this.completed < LANE_QUEUE_LIMIT, 'the queue of a lane is bounded');
    writeCommand(this.words, this.submitted, command);
    this.submitted++;
    Atomics.store(this.words, SUBMITTED, this.submitted | 0);
    ring(this.words);
    this.await();
  }

  async stopLane(): Promise<void> {
    if (this.laneTask === undefined) return;
    Atomics.store(this.words, STOP, 1);
    ring(this.words);
    await this.laneTask;
  }

  async close(untilMs: number): Promise<void> {
    this.events = undefined;
    const pools = [this.lanePool, this.taskPool];
    this.lanePool = undefined;
    this.taskPool = undefined;
    const stopping = pools.map((pool) => pool?.destroy());
    await untilTime(this.scheduler, untilMs, Promise.all(stopping));
  }

  /** Reports what is complete, then waits for more while anything is under way. */
  private await(): void {
    if (this.waiting || this.draining) return;
    for (;;) {
      const seen = Atomics.load(this.words, EVENT);
      this.drain();
      if (this.started === undefined && this.submitted === this.completed) return;
      const wait = Atomics.waitAsync(this.words, EVENT, seen);
      if (!wait.async) continue;
      this.waiting = true;
      wait.value.then(() => {
        this.waiting = false;
        this.await();
      });
      return;
    }
  }

  private drain(): void {
    if (this.draining) return;
    this.draining = true;
    const { words } = this;
    try {
      if (this.started !== undefined && Atomics.load(words, RUNNING) === 1) {
        const resolve = this.started;
        this.started = undefined;
        resolve(readCarriedPlace(words));
      }
      while ((this.completed | 0) !== Atomics.load(words, COMPLETED)) {
        const place = readPlace(words, this.completed);
        this.completed++;
        this.events?.completed(place);
      }
    } finally {
      // A completion that throws must not silence all later ones.
      this.draining = false;
    }
  }

  private makePool(name: string): Piscina {
    return oneThreadPool(this.workerFile, (error) => this.threadFailed(error), { name });
  }

  private threadFailed(error: unknown): void {
    const { events } = this;
    this.events = undefined;
    events?.failed(threadDied(error));
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
    if (!answer.ok) throw fromErrorRecord(answer.error);
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

async function runLane(pool: Piscina, task: LaneTask): Promise<void> {
  let answer: WorkerAnswer;
  try {
    answer = (await pool.run(task)) as WorkerAnswer;
  } catch (error) {
    throw threadDied(error);
  }
  resultOf(answer);
}

function resultOf(answer: WorkerAnswer): unknown {
  if (!answer.ok) throw fromErrorRecord(answer.error);
  return answer.value;
}

function threadDied(error: unknown): KeelsonError {
  const reason = error instanceof Error ? error.message : String(error);
  return new KeelsonError(
    'KEELSON_STORAGE_FAILED',
    `A storage thread died: ${reason}. What it was writing may or may not be durable; nothing more ` +
      'is acknowledged. Open the store again.',
    { outcome: 'unknown', cause: error },
  );
}
