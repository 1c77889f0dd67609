/**
 * The seam to the threads that touch the disk. `PiscinaExecutor` runs them in workers,
 * `InlineExecutor` in this thread through the scheduler, over any `Disk`.
 *
 * Each lane is one long task: `submit` hands it batches in order, `completed` answers each in order. All
 * else are tasks of their own: plain data in, plain data out.
 */
import type { KeelsonError } from '../base/errors.js';
import type { BatchPlace, LaneStart, LaneWriterOptions, SealCommand } from './lane-writer.js';
import type { StorageTask, StorageTaskResult } from './storage-tasks.js';

export interface StorageExecutor {
  /** Starts the threads, one for each lane and one for all tasks; rejects when one does not answer. */
  open(lanes: number): Promise<void>;

  /**
   * Runs a task; rejects with a KeelsonError. What a recovery reads runs in the thread of its lane, which has
   * not begun; all others run one after the other.
   */
  run<T extends StorageTask>(task: T): Promise<StorageTaskResult<T>>;

  /** Resolves with the place of the carried batch, once the lane's first segment is durable. */
  startLane(
    options: LaneWriterOptions,
    start: LaneStart,
    events: LaneEvents,
  ): Promise<BatchPlace | undefined>;

  /** At most `LANE_QUEUE_LIMIT` batches of a lane wait for their completion. */
  submit(lane: number, command: SealCommand): void;

  /** Ends the tasks of all lanes behind what was submitted; waits for them as long as the disk takes. */
  stopLanes(): Promise<void>;

  /**
   * Stops the threads, whatever they are at, and reports nothing more. A thread that hangs in the
   * kernel is left behind at `untilMs`, by the scheduler's clock.
   */
  close(untilMs: number): Promise<void>;
}

export interface LaneEvents {
  /** One per submitted batch, in order. */
  completed(place: BatchPlace): void;
  /** Final: nothing completes after it. */
  failed(error: KeelsonError): void;
}

export const LANE_QUEUE_LIMIT = 16;
