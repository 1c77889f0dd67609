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

export class LeaderTasks {
  private readonly observers: Observers;
  private readonly status: () => Status;
  private readonly logger: Logger;
  private readonly tasks = new Map<LeaderTask, AbortController | undefined>();
  private term = 0;

  constructor(observers: Observers, status: () => Status, logger: Logger) {
    this.observers = observers;
    this.status = status;
    this.logger = logger;
  }

  add(task: LeaderTask): () => void {
    if (this.tasks.size === 0) this.observers.events.on('status', this.update);
    this.tasks.set(task, undefined);
    if (this.term !== 0) this.start(task);
    else this.update(this.status());
    return () => this.remove(task);
  }

  stop(): void {
    for (const task of [...this.tasks.keys()]) this.remove(task);
  }

  private remove(task: LeaderTask): void {
    this.tasks.get(task)?.abort();
    this.tasks.delete(task);
    if (this.tasks.size > 0) return;
    this.observers.events.off('status', this.update);
    this.term = 0;
  }

  private readonly update = (status: Status): void => {
    const term = status.readyToLead ? status.term : 0;
    if (term === this.term) return;
    this.term = term;
    for (const [task, running] of this.tasks) {
      running?.abort();
      this.tasks.set(task, undefined);
      if (term !== 0) this.start(task);
    }
  };

  private start(task: LeaderTask): void {
    const controller = new AbortController();
    this.tasks.set(task, controller);
    const { term } = this;
    const { signal } = controller;
    // Not at once: the caller may be in the middle of a step of the engine.
    Promise.resolve()
      .then(() => task({ term, signal }))
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
