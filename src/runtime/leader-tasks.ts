import type { Status } from '../api.js';
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Observers } from './observers.js';

/** Work that runs only while this node leads (`whileLeader`). */
export type LeaderTask = (leadership: {
  readonly term: number;
  /** Aborts when the node no longer leads the term. */
  readonly signal: AbortSignal;
}) => void | Promise<void>;

/** One call of `whileLeader`; the same function may be given to several. */
interface Registration {
  readonly task: LeaderTask;
  running: AbortController | undefined;
}

export class LeaderTasks {
  private readonly observers: Observers;
  private readonly status: () => Status;
  private readonly logger: Logger;
  private readonly registrations = new Set<Registration>();
  private term = 0;

  constructor(observers: Observers, status: () => Status, logger: Logger) {
    this.observers = observers;
    this.status = status;
    this.logger = logger;
  }

  add(task: LeaderTask): () => void {
    if (this.registrations.size === 0) this.observers.on('status', this.update);
    const registration: Registration = { task, running: undefined };
    this.registrations.add(registration);
    if (this.term !== 0) this.start(registration);
    else this.update(this.status());
    return () => this.remove(registration);
  }

  stop(): void {
    for (const registration of [...this.registrations]) this.remove(registration);
  }

  private remove(registration: Registration): void {
    registration.running?.abort();
    if (!this.registrations.delete(registration) || this.registrations.size > 0) return;
    this.observers.off('status', this.update);
    this.term = 0;
  }

  private readonly update = (status: Status): void => {
    const term = status.readyToLead ? status.term : 0;
    if (term === this.term) return;
    this.term = term;
    for (const registration of this.registrations) {
      registration.running?.abort();
      registration.running = undefined;
      if (term !== 0) this.start(registration);
    }
  };

  private start(registration: Registration): void {
    const controller = new AbortController();
    registration.running = controller;
    const { term } = this;
    const { task } = registration;
    const { signal } = controller;
    // Not at once: the caller may be in the middle of a step of the engine. Until then it may be over.
    Promise.resolve()
      .then(() => (signal.aborted ? undefined : task({ term, signal })))
      .catch((error: unknown) => this.report(error, term));
  }

  private report(cause: unknown, term: number): void {
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.logger.error({ event: 'leader-task.failed', term, reason }, 'a leader task threw');
    this.observers.emit(
      'error',
      new KeelsonError('KEELSON_LEADER_TASK_FAILED', `a leader task threw: ${reason}`, { cause }),
    );
  }
}
