import type { CallOptions } from '../api.js';
import { KeelsonError, type Outcome } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';

/** The time limit and abort signal of one call, shared by all its steps. */
export class CallScope {
  readonly deadlineMs: number;
  readonly signal: AbortSignal | undefined;
  private readonly scheduler: Scheduler;
  private readonly timeoutMs: number;

  /** @throws KeelsonError KEELSON_INVALID_ARGUMENT for a `timeoutMs` that is no positive number */
  constructor(scheduler: Scheduler, options: CallOptions | undefined, defaultTimeoutMs: number) {
    this.scheduler = scheduler;
    this.timeoutMs = checkTimeout(options?.timeoutMs ?? defaultTimeoutMs);
    this.deadlineMs = scheduler.now() + this.timeoutMs;
    this.signal = options?.signal;
  }

  remainingMs(): number {
    return Math.max(0, this.deadlineMs - this.scheduler.now());
  }

  /** @throws KeelsonError KEELSON_ABORTED or KEELSON_TIMEOUT, when the call is over already. */
  check(): void {
    if (this.signal?.aborted === true) throw this.aborted('rejected');
    if (this.remainingMs() === 0) throw this.timedOut('rejected');
  }

  /**
   * Waits for `promise`, but no longer than the scope lasts. `outcome` is what the caller may conclude
   * when it gave up. `onAbandon` runs then, to end the work that nobody waits for any more.
   */
  race<T>(promise: Promise<T>, outcome: Outcome, onAbandon?: () => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const finish = (): void => {
        timer.cancel();
        this.signal?.removeEventListener('abort', onAbort);
      };
      const abandon = (error: KeelsonError): void => {
        finish();
        reject(error);
        onAbandon?.();
      };
      const onAbort = (): void => abandon(this.aborted(outcome));
      const timer = this.scheduler.setTimer(this.remainingMs(), () =>
        abandon(this.timedOut(outcome)),
      );
      this.signal?.addEventListener('abort', onAbort, { once: true });
      promise.then(
        (value) => {
          finish();
          resolve(value);
        },
        (error: unknown) => {
          finish();
          reject(error);
        },
      );
      if (this.signal?.aborted === true) onAbort();
    });
  }

  timedOut(outcome: Outcome): KeelsonError {
    return timeoutError(this.timeoutMs, outcome);
  }

  aborted(outcome: Outcome): KeelsonError {
    return new KeelsonError('KEELSON_ABORTED', 'the call was aborted by its signal', {
      outcome,
      cause: this.signal?.reason,
    });
  }
}

export function checkTimeout(timeoutMs: number): number {
  if (typeof timeoutMs !== 'number' || !(timeoutMs > 0)) {
    throw new KeelsonError(
      'KEELSON_INVALID_ARGUMENT',
      `timeoutMs must be a positive number of milliseconds, not ${String(timeoutMs)}`,
    );
  }
  return Math.min(timeoutMs, MAX_TIMEOUT_MS);
}

/** What a timer takes: about 24 days. Longer, or for ever, is as long as that. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export function timeoutError(timeoutMs: number | undefined, outcome: Outcome): KeelsonError {
  const limit = timeoutMs === undefined ? 'its time limit' : `${timeoutMs} ms`;
  return new KeelsonError('KEELSON_TIMEOUT', `no answer within ${limit}`, { outcome });
}
