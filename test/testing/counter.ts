import type { Entry, StateMachine } from '../../dist/index.js';

/** Adds numbers and remembers every entry that it was given. */
export class Counter implements StateMachine<number, number, 'sum', number> {
  sum = 0;
  readonly applied: { index: number; term: number; time: number; command: number }[] = [];

  apply(entries: readonly Entry<number>[]): number[] {
    return entries.map(({ logId, time, command }) => {
      this.applied.push({ ...logId, time, command });
      this.sum += command;
      return this.sum;
    });
  }

  query(): number {
    return this.sum;
  }

  *snapshot(): Iterable<Uint8Array> {}

  restore(): void {}
}
