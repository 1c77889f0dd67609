import { EventEmitter } from 'node:events';
import type { CallOptions, RaftEvents, Status } from '../api.js';
import type { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler } from '../base/scheduler.js';
import { CallScope } from './call-scope.js';

/**
 * Who is told when a node's status changes: event listeners and `waitFor`. Changes of one turn of the
 * run queue are told once; nobody listening costs nothing. Once the status can change no more, what
 * the last one does not satisfy fails at once.
 */
interface Waiter {
  readonly predicate: (status: Status) => boolean;
  readonly resolve: (status: Status) => void;
  readonly reject: (error: unknown) => void;
}

type Listener<K extends keyof RaftEvents> = (...values: RaftEvents[K]) => void;

export class Observers {
  private readonly events: EventEmitter<RaftEvents> = new EventEmitter();
  private readonly scheduler: Scheduler;
  private readonly logger: Logger;
  private readonly status: () => Status;
  private readonly waiters = new Set<Waiter>();
  /** Waiters and listeners of `status`, counted as they come and go: a write asks several times. */
  private audience = 0;
  private scheduled = false;
  /** Why the status changes no more. */
  private ended: KeelsonError | undefined;

  constructor(scheduler: Scheduler, logger: Logger, status: () => Status) {
    this.scheduler = scheduler;
    this.logger = logger;
    this.status = status;
  }

  on<K extends keyof RaftEvents>(event: K, listener: Listener<K>): void {
    this.events.on(event, listener as never);
    this.countAudience();
  }

  off<K extends keyof RaftEvents>(event: K, listener: Listener<K>): void {
    this.events.off(event, listener as never);
    this.countAudience();
  }

  private countAudience(): void {
    this.audience = this.waiters.size + this.events.listenerCount('status');
  }

  /** Something in the status is different now. */
  changed(): void {
    if (this.audience === 0 || this.scheduled) return;
    this.scheduled = true;
    this.scheduler.enqueue(this.tell);
  }

  private readonly tell = (): void => {
    this.scheduled = false;
    const status = this.status();
    for (const waiter of this.waiters) this.ask(waiter, status);
    this.emit('status', status);
    if (this.ended !== undefined) this.failAll(this.ended);
  };

  private ask(waiter: Waiter, status: Status): void {
    try {
      if (!waiter.predicate(status)) return;
      waiter.resolve(status);
    } catch (error) {
      waiter.reject(error);
    }
    this.leave(waiter);
  }

  private leave(waiter: Waiter): boolean {
    const waited = this.waiters.delete(waiter);
    this.countAudience();
    return waited;
  }

  /** Resolves with the first status for which the predicate holds, the present one included. */
  waitFor(
    predicate: (status: Status) => boolean,
    options: CallOptions | undefined,
    defaultTimeoutMs: number,
  ): Promise<Status> {
    const scope = new CallScope(this.scheduler, options, defaultTimeoutMs);
    let waiter: Waiter | undefined;
    const promise = new Promise<Status>((resolve, reject) => {
      waiter = { predicate, resolve, reject };
      this.waiters.add(waiter);
      this.countAudience();
      this.ask(waiter, this.status());
      if (this.ended !== undefined && this.leave(waiter)) reject(this.ended);
    });
    return scope.race(promise, 'rejected', () => this.leave(waiter as Waiter));
  }

  emit<K extends keyof RaftEvents>(event: K, ...values: RaftEvents[K]): void {
    // An 'error' that nobody listens for would be thrown by the emitter, into the middle of a step.
    if (event === 'error' && this.events.listenerCount('error') === 0) return;
    // One by one: a listener that throws must not keep the others from hearing of it.
    for (const listener of (this.events as EventEmitter).rawListeners(event)) {
      try {
        listener.apply(this.events, values);
      } catch (error) {
        this.logger.error(
          { event: 'listener.failed', listener: event, error },
          `a listener of the event '${event}' threw`,
        );
      }
    }
  }

  /** The status changes this once and no more. */
  end(reason: KeelsonError): void {
    this.ended = reason;
    this.changed();
  }

  private failAll(error: KeelsonError): void {
    for (const waiter of this.waiters) waiter.reject(error);
    this.waiters.clear();
    this.countAudience();
  }
}
