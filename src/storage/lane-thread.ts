/**
 * The thread of a lane: a pool of one thread, which holds one long task for as long as the store is open, and
 * the channel through which batches come to it.
 */
import type { Piscina } from 'piscina';
import { invariant } from '../base/assert.js';
import type { KeelsonError } from '../base/errors.js';
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
import type { LaneEvents } from './storage-executor.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';
import type { LaneTask, WorkerAnswer } from './storage-worker.js';
import { resultOf, threadDied } from './worker-result.js';

export class LaneThread {
  readonly pool: Piscina;
  private readonly channel: number;
  private readonly words: Int32Array;
  private events: LaneEvents | undefined;
  private task: Promise<void> | undefined;
  private started: ((place: BatchPlace | undefined) => void) | undefined;
  private submitted = 0;
  private completed = 0;
  private waiting = false;
  private draining = false;

  constructor(heap: SharedHeap, pool: Piscina) {
    this.pool = pool;
    this.channel = heap.reserve(LANE_CHANNEL_WORDS * Int32Array.BYTES_PER_ELEMENT, 64);
    this.words = new Int32Array(heap.bytes.buffer, this.channel, LANE_CHANNEL_WORDS);
  }

  /** See `StorageExecutor.startLane`. */
  start(
    options: LaneWriterOptions,
    start: LaneStart,
    events: LaneEvents,
  ): Promise<BatchPlace | undefined> {
    invariant(this.task === undefined, 'a lane is started once');
    this.events = events;
    return new Promise((resolve, reject) => {
      this.started = resolve;
      const task = { type: 'lane', options, start, channel: this.channel } as const;
      this.task = runLane(this.pool, task).then(
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

  /** Ends the task behind what was submitted. */
  async stop(): Promise<void> {
    if (this.task === undefined) return;
    Atomics.store(this.words, STOP, 1);
    ring(this.words);
    await this.task;
  }

  /** Nothing more completes. */
  fail(error: KeelsonError): void {
    const { events } = this;
    this.events = undefined;
    events?.failed(error);
  }

  /** Ends the thread, whatever it is at, and reports nothing more. */
  destroy(): Promise<void> {
    this.events = undefined;
    return this.pool.destroy();
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
