import { SeededRandom } from '../../dist/base/random.js';
import type { Scheduler, Timer } from '../../dist/base/scheduler.js';

/** Runs jobs as microtasks, whatever the time: the same calls give the same order. No timer fires. */
export class MicrotaskScheduler implements Scheduler {
  private readonly generator: SeededRandom;

  constructor(seed: number) {
    this.generator = new SeededRandom(seed);
  }

  now(): number {
    return 0;
  }

  wallTime(): number {
    return 1_700_000_000_000;
  }

  random(): number {
    return this.generator.next();
  }

  setTimer(): Timer {
    return { cancel: () => {} };
  }

  enqueue(job: () => void): void {
    queueMicrotask(job);
  }

  enqueueLate(job: () => void): void {
    queueMicrotask(job);
  }
}
