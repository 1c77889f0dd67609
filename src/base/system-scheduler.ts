/**
 * Time, chance and the run queue of the process: the one place that calls the platform's clock,
 * timers and random numbers.
 *
 * The run queue is two arrays: jobs are taken from one while new ones go to the other, then they
 * swap; slots are reused, nothing is shifted. All that is queued runs in one microtask, and so do the
 * jobs that these jobs queue, until a budget of 1 ms per turn of the event loop is used up. The rest
 * waits for the next turn (`setImmediate`), so that sockets and timers live even when jobs and
 * promise continuations wake one another for ever.
 *
 * A job that throws loses nobody's work: its error is thrown again in a turn of its own, where the
 * process sees it as an uncaught exception, and the queue goes on.
 */
// The global of the same name is a getter, which costs as much again as reading the clock.
import { performance } from 'node:perf_hooks';
import { invariant } from './assert.js';
import type { Scheduler, Timer } from './scheduler.js';

const BUDGET_MS = 1;
/** Reading the clock costs as much as ten small jobs. */
const JOBS_PER_CLOCK_READ = 16;
/** The arrays keep room for that many jobs; a longer burst gives its memory back. */
const MAX_KEPT_SLOTS = 65_536;
const MAX_DELAY_MS = 2 ** 31 - 1;

const DONE = Promise.resolve();
const noJob = (): void => {};

export class SystemScheduler implements Scheduler {
  private incoming: (() => void)[] = [];
  private incomingCount = 0;
  private current: (() => void)[] = [];
  private currentCount = 0;
  private position = 0;
  /** A microtask or the end of the turn will run what is queued. */
  private awake = false;
  /** The first jobs of this turn have run and its end is armed. */
  private turnOpen = false;
  private turnStartedAt = 0;
  private jobsUntilClockRead = JOBS_PER_CLOCK_READ;

  now(): number {
    return performance.now();
  }

  wallTime(): number {
    return Date.now();
  }

  random(): number {
    return Math.random();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    invariant(delayMs >= 0 && delayMs <= MAX_DELAY_MS, `timer of ${delayMs} ms`);
    return new SystemTimer(delayMs, callback);
  }

  /** Keeps the process alive until it is cancelled: timers do not, and neither does waiting. */
  keepAlive(): Timer {
    const handle = setInterval(noJob, MAX_DELAY_MS);
    return { cancel: () => clearInterval(handle) };
  }

  enqueue(job: () => void): void {
    this.incoming[this.incomingCount++] = job;
    if (this.awake) return;
    this.awake = true;
    // A third of the price of queueMicrotask, which makes an async resource each time.
    DONE.then(this.drain);
  }

  enqueueLate(job: () => void): void {
    setImmediate(this.runLate, job);
  }

  private readonly runLate = (job: () => void): void => this.enqueue(job);

  private readonly drain = (): void => {
    if (!this.turnOpen) {
      this.turnOpen = true;
      this.turnStartedAt = performance.now();
      this.jobsUntilClockRead = JOBS_PER_CLOCK_READ;
      setImmediate(this.endTurn);
    }
    while (this.takeIncoming()) {
      try {
        // Over budget: `awake` stays on, the armed end of the turn goes on from here.
        if (!this.runCurrent()) return;
      } catch (error) {
        setImmediate(rethrow, error);
      }
    }
    this.awake = false;
  };

  private readonly endTurn = (): void => {
    this.turnOpen = false;
    if (this.position < this.currentCount || this.incomingCount > 0) {
      this.awake = true;
      this.drain();
    }
  };

  /** Makes sure that `current` holds a job; false when there is none. */
  private takeIncoming(): boolean {
    if (this.position < this.currentCount) return true;
    if (this.incomingCount === 0) return false;
    const drained = this.current;
    if (drained.length > MAX_KEPT_SLOTS) drained.length = 0;
    this.current = this.incoming;
    this.currentCount = this.incomingCount;
    this.position = 0;
    this.incoming = drained;
    this.incomingCount = 0;
    return true;
  }

  /** Runs the jobs in `current`; false when the budget is used up before its end. */
  private runCurrent(): boolean {
    const jobs = this.current;
    const count = this.currentCount;
    while (this.position < count) {
      if (--this.jobsUntilClockRead === 0) {
        this.jobsUntilClockRead = JOBS_PER_CLOCK_READ;
        if (performance.now() - this.turnStartedAt >= BUDGET_MS) {
          this.jobsUntilClockRead = 1;
          return false;
        }
      }
      const position = this.position++;
      const job = jobs[position]!;
      jobs[position] = noJob;
      job();
    }
    return true;
  }
}

class SystemTimer implements Timer {
  private readonly dueAt: number;
  private readonly callback: () => void;
  private handle: NodeJS.Timeout;

  constructor(delayMs: number, callback: () => void) {
    this.dueAt = performance.now() + delayMs;
    this.callback = callback;
    this.handle = setTimeout(this.fire, delayMs).unref();
  }

  cancel(): void {
    clearTimeout(this.handle);
  }

  private readonly fire = (): void => {
    // The platform counts whole milliseconds and may be up to one early.
    const missingMs = this.dueAt - performance.now();
    if (missingMs > 0) this.handle = setTimeout(this.fire, Math.ceil(missingMs)).unref();
    else this.callback();
  };
}

function rethrow(error: unknown): never {
  throw error;
}

/** The scheduler that everything outside of simulations shares. */
export const systemScheduler: SystemScheduler = new SystemScheduler();
