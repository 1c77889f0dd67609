/**
 * The seam to the thread that reads and writes snapshots. It is not one of the log's threads: a read of
 * the log, or a flush, never waits behind a snapshot, and its death does not poison the log.
 */
import { existsSync } from 'node:fs';
import type { Piscina } from 'piscina';
import { fromErrorRecord, KeelsonError } from '../base/errors.js';
import { fileOf } from '../base/file-of.js';
import { type Scheduler, untilTime } from '../base/scheduler.js';
import type { Disk } from './disk.js';
import { oneThreadPool } from './one-thread-pool.js';
import {
  type SnapshotTask,
  type SnapshotTaskResult,
  SnapshotTaskRunner,
} from './snapshot-tasks.js';
import type { SnapshotAnswer } from './snapshot-worker.js';

export interface SnapshotExecutor {
  /** Runs a task; rejects with a KeelsonError. Tasks run one after the other, in their order. */
  run<T extends SnapshotTask>(
    task: T,
    moved?: readonly ArrayBuffer[],
  ): Promise<SnapshotTaskResult<T>>;
  /** Stops the thread, whatever it is at; one that hangs in the kernel is left behind at `untilMs`. */
  close(untilMs: number): Promise<void>;
}

/** Runs the tasks in this thread through the scheduler, over any disk: for simulations and tests. */
export class InlineSnapshotExecutor implements SnapshotExecutor {
  private readonly runner: SnapshotTaskRunner;
  private readonly scheduler: Scheduler;

  constructor(disk: Disk, scheduler: Scheduler) {
    this.runner = new SnapshotTaskRunner(disk);
    this.scheduler = scheduler;
  }

  run<T extends SnapshotTask>(task: T): Promise<SnapshotTaskResult<T>> {
    return new Promise((resolve, reject) => {
      this.scheduler.enqueue(() => {
        try {
          resolve(this.runner.run(task));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  async close(): Promise<void> {
    this.runner.close();
  }
}

export class PiscinaSnapshotExecutor implements SnapshotExecutor {
  private readonly scheduler: Scheduler;
  private readonly pool: Piscina;
  private failure: KeelsonError | undefined;

  /** @throws KeelsonError MISSING_FILE */
  constructor(
    scheduler: Scheduler,
    workerFile: URL = new URL('./snapshot-worker.js', import.meta.url),
  ) {
    this.scheduler = scheduler;
    if (workerFile.protocol === 'file:' && !existsSync(workerFile)) {
      const file = fileOf(workerFile);
      throw new KeelsonError(
        'KEELSON_MISSING_FILE',
        `The snapshot worker ${file} does not exist. If the application is bundled, keep the keelson ` +
          'package external, or copy its dist folder beside the bundle.',
        { details: { file } },
      );
    }
    this.pool = oneThreadPool(workerFile, (error) => this.died(error));
  }

  async run<T extends SnapshotTask>(
    task: T,
    moved: readonly ArrayBuffer[] = [],
  ): Promise<SnapshotTaskResult<T>> {
    if (this.failure !== undefined) throw this.failure;
    let answer: SnapshotAnswer;
    try {
      answer = (await this.pool.run(task, { transferList: [...moved] })) as SnapshotAnswer;
    } catch (error) {
      throw this.died(error);
    }
    if (!answer.ok) throw fromErrorRecord(answer.error);
    return answer.value as SnapshotTaskResult<T>;
  }

  async close(untilMs: number): Promise<void> {
    await untilTime(this.scheduler, untilMs, this.pool.destroy());
  }

  /** Final: a thread in its place would know none of the open files. */
  private died(error: unknown): KeelsonError {
    const reason = error instanceof Error ? error.message : String(error);
    this.failure ??= new KeelsonError(
      'KEELSON_STORAGE_FAILED',
      `the snapshot thread died: ${reason}. The log goes on; snapshots need a restart of the node.`,
      { cause: error },
    );
    return this.failure;
  }
}
