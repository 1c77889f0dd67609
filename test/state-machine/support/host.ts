import type { Scheduler } from '../../../dist/base/scheduler.js';
import { msgpackCodec } from '../../../dist/state-machine/codec.js';
import { MainThreadHost } from '../../../dist/state-machine/main-thread-host.js';
import { WorkerHost } from '../../../dist/state-machine/worker-host.js';
import { block, lease, shared, type TestEntry, type TestLease } from './blocks.js';

export const limits = {
  maxApplyEntries: 4096,
  maxApplyBytes: 4 * 1024 * 1024,
  applySliceMs: 8,
  maxQueuedApplies: 4,
  workerStartTimeoutMs: 5000,
};

export function realScheduler(): Scheduler {
  return {
    now: () => performance.now(),
    wallTime: () => Date.now(),
    random: () => Math.random(),
    setTimer(delayMs, callback) {
      const timer = setTimeout(callback, delayMs);
      timer.unref();
      return { cancel: () => clearTimeout(timer) };
    },
    enqueue: (job) => void setImmediate(job),
    enqueueLate: (job) => void setImmediate(job),
  };
}

/** Time stands still unless the test moves it; the run queue runs when the test says so. */
export class ManualScheduler implements Scheduler {
  time = 0;
  readonly jobs: (() => void)[] = [];

  now(): number {
    return this.time;
  }
  wallTime(): number {
    return this.time;
  }
  random(): number {
    return 0;
  }
  setTimer(): { cancel(): void } {
    return { cancel() {} };
  }
  enqueueLate(job: () => void): void {
    this.enqueue(job);
  }

  enqueue(job: () => void): void {
    this.jobs.push(job);
  }
  runOneJob(): void {
    this.jobs.shift()?.();
  }
}

export interface Applied {
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly responses: readonly unknown[];
}

/** Collects what a host tells, and lets a test wait for it. */
export class RecordedEvents {
  readonly appliedRanges: Applied[] = [];
  readonly failures: Error[] = [];
  private waiting: { holds(): boolean; resolve(): void }[] = [];

  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void {
    this.appliedRanges.push({ firstIndex, lastIndex, responses });
    this.wake();
  }

  failed(error: Error): void {
    this.failures.push(error);
    this.wake();
  }

  get appliedIndex(): number {
    return this.appliedRanges.at(-1)?.lastIndex ?? 0;
  }

  get responses(): unknown[] {
    return this.appliedRanges.flatMap(({ responses }) => responses);
  }

  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.waiting.push({ holds, resolve });
      this.wake();
    });
  }

  untilApplied(index: number): Promise<void> {
    return this.until(() => {
      if (this.failures[0] !== undefined) throw this.failures[0];
      return this.appliedIndex >= index;
    });
  }

  untilFailed(): Promise<void> {
    return this.until(() => this.failures.length > 0);
  }

  private wake(): void {
    this.waiting = this.waiting.filter((waiter) => {
      if (!waiter.holds()) return true;
      waiter.resolve();
      return false;
    });
  }
}

/** A lease of one block of commands, in shared memory unless told otherwise. */
export function commandLease(
  firstIndex: number,
  commands: readonly unknown[],
  options: { readonly term?: number; readonly memory?: 'shared' | 'own' } = {},
): TestLease {
  const entries: TestEntry[] = commands.map((command) => ({
    payload: msgpackCodec.encode(command),
    term: options.term ?? 1,
  }));
  const bytes = block(firstIndex, entries);
  const part = options.memory === 'own' ? bytes : shared(bytes);
  return lease(firstIndex, firstIndex + commands.length - 1, [part]);
}

export function mainThreadHost(
  machine: ConstructorParameters<typeof MainThreadHost>[0],
  events: RecordedEvents,
  scheduler: Scheduler = realScheduler(),
): MainThreadHost {
  return new MainThreadHost(machine, { group: 5, events, scheduler, limits });
}

export function workerHost(
  url: URL,
  events: RecordedEvents,
  options: { workerStartTimeoutMs?: number; workerFile?: URL; maxQueuedApplies?: number } = {},
): WorkerHost {
  const { workerFile, ...rest } = options;
  return new WorkerHost(url, {
    group: 5,
    events,
    scheduler: realScheduler(),
    limits: { ...limits, ...rest },
    ...(workerFile === undefined ? {} : { workerFile }),
  });
}

export const fixture = (name: string): URL => new URL(`./${name}`, import.meta.url);
