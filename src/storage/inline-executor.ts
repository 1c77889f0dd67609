/**
 * Runs the lanes and all storage tasks in this thread through the scheduler's run queue, over any
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

/** A lane that has begun. */
interface InlineLane {
  readonly events: LaneEvents;
  readonly queue: SealCommand[];
  /** Undefined once it has failed or was closed. */
  writer: LaneWriter | undefined;
}

export class InlineExecutor implements StorageExecutor {
  private readonly memory: SharedHeap;
  private readonly disk: Disk;
  private readonly scheduler: Scheduler;
  private readonly runner: StorageTaskRunner;
  private readonly lanes: Map<number, InlineLane> = new Map();

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
      this.lanes.set(options.lane, { events, queue: [], writer });
      return place;
    });
  }

  submit(lane: number, command: SealCommand): void {
    const begun = this.lanes.get(lane);
    invariant(begun !== undefined, 'the lane has begun');
    invariant(begun.queue.length < LANE_QUEUE_LIMIT, 'the queue of a lane is bounded');
    begun.queue.push(command);
    this.scheduler.enqueue(() => writeNext(begun));
  }

  async stopLanes(): Promise<void> {
    for (const lane of this.lanes.values()) {
      lane.writer?.close();
      lane.writer = undefined;
    }
  }

  async close(): Promise<void> {
    await this.stopLanes();
    this.runner.close();
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

function writeNext(lane: InlineLane): void {
  const { writer, events, queue } = lane;
  if (writer === undefined) return;
  const command = queue.shift();
  invariant(command !== undefined, 'one job per submitted batch');
  let place: BatchPlace;
  try {
    place = writer.write(command);
  } catch (error) {
    lane.writer = undefined;
    writer.close();
    events.failed(error as KeelsonError);
    return;
  }
  events.completed(place);
}
