/**
 * Time, chance and the run queue of a simulation: nothing happens until the caller says so, and the
 * same seed and the same calls give the same run.
 *
 * Timers fire in the order of their due time, those of one time in the order in which they were set;
 * time stands at the due time while a timer's callback and the jobs that it queued run.
 */
import { invariant } from './assert.js';
import { SeededRandom } from './random.js';
import type { Scheduler, Timer } from './scheduler.js';

/** Jobs that wake one another for ever would hang a simulation without a word. */
const MAX_JOBS_PER_RUN = 10_000_000;

export interface ManualSchedulerOptions {
  readonly seed?: number;
  /** Wall-clock time at the start, in ms since the epoch. */
  readonly wallTimeMs?: number;
}

export class ManualScheduler implements Scheduler {
  private readonly generator: SeededRandom;
  private readonly wallTimeAtStartMs: number;
  private readonly timers = new TimerHeap();
  private incoming: (() => void)[] = [];
  private current: (() => void)[] = [];
  private position = 0;
  private nowMs = 0;
  private timersSet = 0;
  private running = false;

  constructor(options: ManualSchedulerOptions = {}) {
    this.generator = new SeededRandom(options.seed ?? 1);
    this.wallTimeAtStartMs = options.wallTimeMs ?? 1_700_000_000_000;
  }

  now(): number {
    return this.nowMs;
  }

  wallTime(): number {
    return this.wallTimeAtStartMs + Math.floor(this.nowMs);
  }

  random(): number {
    return this.generator.next();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    invariant(delayMs >= 0 && Number.isFinite(delayMs), `timer of ${delayMs} ms`);
    const timer = new ManualTimer(this.nowMs + delayMs, this.timersSet++, callback);
    this.timers.push(timer);
    return timer;
  }

  enqueue(job: () => void): void {
    this.incoming.push(job);
  }

  enqueueLate(job: () => void): void {
    this.enqueue(job);
  }

  /** Jobs that wait in the run queue. */
  pendingJobs(): number {
    return this.incoming.length + this.current.length - this.position;
  }

  /** When the next timer is due, or undefined when none is set. */
  nextTimerAt(): number | undefined {
    return this.timers.first()?.dueAt;
  }

  /**
   * Runs all jobs, and those that they queue, until none is left. What a job throws reaches the
   * caller; the remaining jobs stay queued.
   */
  runJobs(): void {
    invariant(!this.running, 'runJobs is not called from a job');
    this.running = true;
    try {
      for (let ran = 0; this.pendingJobs() > 0; ran++) {
        invariant(ran < MAX_JOBS_PER_RUN, 'jobs do not wake one another for ever');
        if (this.position === this.current.length) {
          this.current = this.incoming;
          this.incoming = [];
          this.position = 0;
        }
        this.current[this.position++]!();
      }
    } finally {
      this.running = false;
    }
  }

  /** Runs all jobs, then lets time pass, firing the timers that come due. */
  advance(durationMs: number): void {
    const endMs = this.nowMs + durationMs;
    this.runJobs();
    for (;;) {
      const timer = this.timers.first();
      if (timer === undefined || timer.dueAt > endMs) break;
      this.timers.pop();
      this.nowMs = timer.dueAt;
      timer.callback();
      this.runJobs();
    }
    this.nowMs = endMs;
  }
}

class ManualTimer implements Timer {
  readonly dueAt: number;
  readonly sequence: number;
  readonly callback: () => void;
  cancelled = false;

  constructor(dueAt: number, sequence: number, callback: () => void) {
    this.dueAt = dueAt;
    this.sequence = sequence;
    this.callback = callback;
  }

  cancel(): void {
    this.cancelled = true;
  }

  isBefore(other: ManualTimer): boolean {
    return (
      this.dueAt < other.dueAt || (this.dueAt === other.dueAt && this.sequence < other.sequence)
    );
  }
}

/** Binary heap, earliest timer first; cancelled timers leave when they reach the top. */
class TimerHeap {
  private readonly items: ManualTimer[] = [];

  first(): ManualTimer | undefined {
    while (this.items[0]?.cancelled === true) this.pop();
    return this.items[0];
  }

  push(timer: ManualTimer): void {
    const { items } = this;
    let place = items.length;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      if (!timer.isBefore(items[parent]!)) break;
      items[place] = items[parent]!;
      place = parent;
    }
    items[place] = timer;
  }

  pop(): void {
    const { items } = this;
    const last = items.pop();
    if (last === undefined || items.length === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && items[child + 1]!.isBefore(items[child]!)) child++;
      if (!items[child]!.isBefore(last)) break;
      items[place] = items[child]!;
      place = child;
    }
    items[place] = last;
  }
}
