/**
 * Where the term changes along the log of one group. One verification takes a bounded number of such
 * runs (`MAX_TERM_RUNS`), so what is read at once must not have more: a follower would refuse it for
 * ever.
 */
import type { LogIndex, Term, TermRun } from '../engine/types.js';
import { MAX_TERM_RUNS } from '../wasm/block-codec.js';

export class TermRunList {
  private readonly firsts: LogIndex[] = [];
  private readonly terms: Term[] = [];

  get count(): number {
    return this.firsts.length;
  }

  /** Of the last entry; 0 when there is none. */
  get lastTerm(): Term {
    return this.terms[this.terms.length - 1] ?? 0;
  }

  list(): TermRun[] {
    return this.firsts.map((firstIndex, at) => ({ firstIndex, term: this.terms[at]! }));
  }

  /** The log goes on from `firstIndex` with entries of these runs, the first of which may begin before. */
  append(firstIndex: LogIndex, runs: readonly TermRun[]): void {
    for (let at = 0; at < runs.length; at++) {
      const run = runs[at]!;
      const next = runs[at + 1];
      if (run.term === this.lastTerm || (next !== undefined && next.firstIndex <= firstIndex)) {
        continue;
      }
      this.firsts.push(Math.max(firstIndex, run.firstIndex));
      this.terms.push(run.term);
    }
  }

  /** The log ends at `lastIndex`. */
  truncateAfter(lastIndex: LogIndex): void {
    while (this.firsts.length > 0 && this.firsts[this.firsts.length - 1]! > lastIndex) {
      this.firsts.pop();
      this.terms.pop();
    }
  }

  /** The entries up to `index` are gone. */
  purge(index: LogIndex): void {
    const { firsts, terms } = this;
    let gone = 0;
    while (gone + 1 < firsts.length && firsts[gone + 1]! <= index + 1) gone++;
    firsts.splice(0, gone);
    terms.splice(0, gone);
    if (firsts.length > 0) firsts[0] = Math.max(firsts[0]!, index + 1);
  }

  /** How far up to `lastIndex` entries from `firstIndex` on can be read at once. */
  lastReadable(firstIndex: LogIndex, lastIndex: LogIndex): LogIndex {
    const { firsts } = this;
    if (firsts.length <= MAX_TERM_RUNS) return lastIndex;
    let low = 0;
    let high = firsts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (firsts[middle]! <= firstIndex) low = middle;
      else high = middle - 1;
    }
    const next = firsts[low + MAX_TERM_RUNS];
    return next === undefined ? lastIndex : Math.min(lastIndex, next - 1);
  }
}
