import { SeededRandom } from '../../../dist/base/random.js';
import type { Scheduler, Timer } from '../../../dist/base/scheduler.js';

/** Real time; the run queue is drained in one microtask that yields after 1 ms. */
export class RealScheduler implements Scheduler {
  private queue: (() => void)[] = [];
  private next = 0;
  private draining = false;
  private readonly seeded: SeededRandom = new SeededRandom(1);

  now(): number {
    return performance.now();
  }

  wallTime(): number {
    return Date.now();
  }

  random(): number {
    return this.seeded.next();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const handle = setTimeout(callback, delayMs);
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  }

  enqueue(job: () => void): void {
    this.queue.push(job);
    if (this.draining) return;
    this.draining = true;
    queueMicrotask(() => this.drain());
  }

  private drain(): void {
    const end = performance.now() + 1;
    while (this.next < this.queue.length) {
      this.queue[this.next++]!();
      if (performance.now() > end) {
        setImmediate(() => this.drain());
        return;
      }
    }
    this.queue = [];
    this.next = 0;
    this.draining = false;
  }
}

/** Virtual time: nothing happens but in `run` and `advance`. */
export class VirtualScheduler implements Scheduler {
  private timeMs = 0;
  private readonly queue: (() => void)[] = [];
  private readonly timers: Set<{ dueMs: number; callback: () => void }> = new Set();
  private readonly seeded: SeededRandom = new SeededRandom(2);

  now(): number {
    return this.timeMs;
  }

  wallTime(): number {
    return Math.floor(this.timeMs);
  }

  random(): number {
    return this.seeded.next();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { dueMs: this.timeMs + delayMs, callback };
    this.timers.add(timer);
    return { cancel: () => this.timers.delete(timer) };
  }

  enqueue(job: () => void): void {
    this.queue.push(job);
  }

  /** Drains the run queue. */
  run(): void {
    for (let job = this.queue.shift(); job !== undefined; job = this.queue.shift()) job();
  }

  /** Lets time pass, timer by timer. */
  advance(byMs: number): void {
    const endMs = this.timeMs + byMs;
    this.run();
    for (;;) {
      const due = [...this.timers].sort((a, b) => a.dueMs - b.dueMs)[0];
      if (due === undefined || due.dueMs > endMs) break;
      this.timers.delete(due);
      this.timeMs = due.dueMs;
      due.callback();
      this.run();
    }
    this.timeMs = endMs;
  }

  get openTimers(): number {
    return this.timers.size;
  }
}
