import type { Scheduler } from '../base/scheduler.js';
import { CallScope } from './call-scope.js';
import { type Forwarder, isUnanswered } from './forwarder.js';

/**
 * Linearizable reads on a follower: asks the leader for a read index. One request at a time is under
 * way; reads that arrive meanwhile share the next one, because an index that was asked for before the
 * read began proves nothing about it. A shared request has a time limit of its own: the impatience of
 * one caller must not fail the others, and a caller with more patience shares another one. The limit is
 * an election timeout at least: a request that has no time to pause would be repeated without a pause.
 */
export class ReadIndexBatcher {
  private readonly forwarder: Forwarder;
  private readonly scheduler: Scheduler;
  private readonly timeoutMs: number;
  private current: Promise<number> | undefined;
  private next: Promise<number> | undefined;

  constructor(forwarder: Forwarder, scheduler: Scheduler, timeoutMs: number) {
    this.forwarder = forwarder;
    this.scheduler = scheduler;
    this.timeoutMs = timeoutMs;
  }

  async request(scope: CallScope): Promise<number> {
    for (;;) {
      try {
        return await scope.race(this.join(), 'rejected');
      } catch (error) {
        if (scope.remainingMs() === 0 || !isUnanswered(error)) throw error;
      }
    }
  }

  private join(): Promise<number> {
    if (this.current === undefined) return this.begin();
    this.next ??= this.current.then(this.begin, this.begin);
    return this.next;
  }

  private readonly begin = (): Promise<number> => {
    const scope = new CallScope(this.scheduler, undefined, this.timeoutMs);
    const request = this.forwarder.readIndex(scope);
    this.next = undefined;
    this.current = request;
    const done = (): void => {
      if (this.current === request) this.current = undefined;
    };
    request.then(done, done);
    return request;
  };
}
