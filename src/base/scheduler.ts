/**
 * The seam to time, chance and the run queue. Nothing in runtime, storage or network calls
 * `setTimeout`, `Date.now`, `performance` or `Math.random` past it, so that a whole cluster can run
 * in one thread from one seed.
 */
export interface Scheduler {
  /** Monotonic time in ms, fractional. */
  now(): number;
  /** Wall-clock time in ms since the Unix epoch, whole. Only ever a label, never a measure. */
  wallTime(): number;
  /** A number in [0, 1). */
  random(): number;
  /** Calls `callback` once, not earlier than `delayMs` from now. Does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): Timer;
  /**
   * Puts a job at the end of the run queue. The queue is drained in one microtask and yields to the
   * event loop after about 1 ms, so that sockets and timers live.
   */
  enqueue(job: () => void): void;
  /**
   * Puts a job behind all that is ready in this turn of the event loop: more sockets may have
   * something to read, which would join it. Costs a turn.
   */
  enqueueLate(job: () => void): void;
}

export interface Timer {
  cancel(): void;
}

/** Waits for work until a time by the scheduler's clock; the work itself goes on. */
export async function untilTime(
  scheduler: Scheduler,
  untilMs: number,
  work: Promise<unknown>,
): Promise<void> {
  let timer: Timer | undefined;
  const timeUp = new Promise<void>((resolve) => {
    timer = scheduler.setTimer(Math.max(0, untilMs - scheduler.now()), resolve);
  });
  try {
    await Promise.race([work, timeUp]);
  } finally {
    timer?.cancel();
  }
}
