import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { LogIndex } from '../engine/types.js';
import type { CallScope } from './call-scope.js';

/**
 * Reads that wait. First for a ReadIndex round, whose confirmation gives the index that the read must
 * see; then for that index to be applied. All reads that ask before a round begins share it.
 */
interface Waiter<T> {
  readonly at: number;
  readonly resolve: (value: T) => void;
  readonly reject: (error: KeelsonError) => void;
}

export class ReadLane {
  /** Ascending by round. */
  private readonly rounds: Waiter<LogIndex>[] = [];
  /** Ascending by index. */
  private readonly indexes: Waiter<void>[] = [];
  private readonly maxPendingReads: number;
  private appliedIndex: LogIndex;

  constructor(appliedIndex: LogIndex, maxPendingReads: number) {
    this.appliedIndex = appliedIndex;
    this.maxPendingReads = maxPendingReads;
  }

  /** Why no more reads may ask for a round, those of followers included; undefined when they may. */
  get refusal(): KeelsonError | undefined {
    if (this.rounds.length < this.maxPendingReads) return undefined;
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      `${this.rounds.length} reads wait for a quorum already`,
    );
  }

  /** Resolves with the index that a read of this round must see. */
  waitForRound(round: number, scope: CallScope): Promise<LogIndex> {
    const last = this.rounds.at(-1);
    invariant(last === undefined || last.at <= round, 'read rounds never go back');
    return this.wait(this.rounds, this.rounds.length, round, scope);
  }

  ready(round: number, index: LogIndex): void {
    for (const waiter of this.takeRounds(round)) waiter.resolve(index);
  }

  failed(round: number, error: KeelsonError): void {
    for (const waiter of this.takeRounds(round)) waiter.reject(error);
  }

  private takeRounds(round: number): Waiter<LogIndex>[] {
    let end = 0;
    while (end < this.rounds.length && this.rounds[end]!.at <= round) end++;
    return this.rounds.splice(0, end);
  }

  /** Resolves when everything up to `index` is applied on this node. */
  waitForApplied(index: LogIndex, scope: CallScope): Promise<void> {
    if (index <= this.appliedIndex) return Promise.resolve();
    let place = this.indexes.length;
    while (place > 0 && this.indexes[place - 1]!.at > index) place--;
    return this.wait(this.indexes, place, index, scope);
  }

  /** A read whose time is up leaves its queue at once: nothing else bounds how long it would wait. */
  private wait<T>(queue: Waiter<T>[], place: number, at: number, scope: CallScope): Promise<T> {
    let waiter: Waiter<T> | undefined;
    const promise = new Promise<T>((resolve, reject) => {
      waiter = { at, resolve, reject };
      queue.splice(place, 0, waiter);
    });
    return scope.race(promise, 'rejected', () => {
      const position = queue.indexOf(waiter as Waiter<T>);
      if (position >= 0) queue.splice(position, 1);
    });
  }

  applied(index: LogIndex): void {
    this.appliedIndex = index;
    if (this.indexes.length === 0 || this.indexes[0]!.at > index) return;
    let end = 0;
    while (end < this.indexes.length && this.indexes[end]!.at <= index) end++;
    for (const waiter of this.indexes.splice(0, end)) waiter.resolve();
  }

  failAll(error: KeelsonError): void {
    for (const waiter of this.rounds.splice(0)) waiter.reject(error);
    for (const waiter of this.indexes.splice(0)) waiter.reject(error);
  }
}
