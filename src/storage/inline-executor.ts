/**
 * Runs the lane and all storage tasks in this thread through the scheduler's run queue, over any
 * disk: for simulations, where one seed decides everything, and for tests on a disk in memory.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk } from './disk.js';
import type { BatchPlace, LaneStart, LaneWriterOptions, SealCommand } from './lane-writer.js';
import { LaneWriter, storageFailure } from './lane-writer.js';
import type { LaneEvents, StorageExecutor } from './storage-executor.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';
import type { StorageTask, StorageTaskResult } from './storage-tasks.js';
import { StorageTaskRunner } from './storage-tasks.js';

export class InlineExecutor implements StorageExecutor {
  private readonly memory: SharedHeap;
  private readonly disk: Disk;
  private readonly scheduler: Scheduler;
  private readonly runner: StorageTaskRunner;
  private readonly queue: SealCommand[] = [];
  private writer: LaneWriter | undefined;
  private events: LaneEvents | undefined;

  constructor(memory: SharedHeap, disk: Disk, scheduler: Scheduler) {
    this.memory = memory;
    this.disk = disk;
    this.scheduler = scheduler;
    this.runner = new StorageTaskRunner(memory, disk);
  }

  async open(): Promise<void> {}

  run<T extends StorageTask>(task: T): Promise<StorageTaskResult<T>> {
    return this.later(() => this.runner.run(task));
  }

  startLane(
    options: LaneWriterOptions,
    start: LaneStart,
    events: LaneEvents,
  ): Promise<BatchPlace | undefined> {
    return this.later(() => {
      const writer = new LaneWriter(this.memory, this.disk, options);
      const place = writer.begin(start);
      this.writer = writer;
      this.events = events;
      return place;
    });
  }

  submit(command: SealCommand): void {
    invariant(this.queue.length < LANE_QUEUE_LIMIT, 'the queue of a lane is bounded');
    this.queue.push(command);
    this.scheduler.enqueue(() => this.writeNext());
  }

  async stopLane(): Promise<void> {
    this.writer?.close();
    this.writer = undefined;
  }

  async close(): Promise<void> {
    await this.stopLane();
    this.runner.close();
  }

  private writeNext(): void {
    const { writer, events } = this;
    if (writer === undefined || events === undefined) return;
    const command = this.queue.shift();
    invariant(command !== undefined, 'one job per submitted batch');
    let place: BatchPlace;
    try {
      place = writer.write(command);
    } catch (error) {
      this.writer = undefined;
      writer.close();
      events.failed(error as KeelsonError);
      return;
    }
    events.completed(place);
  }

  private later<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.scheduler.enqueue(() => {
        try {
          resolve(work());
        } catch (error) {
          reject(error instanceof KeelsonError ? error : storageFailure(error, 'memory'));
        }
      });
    });
  }
}
