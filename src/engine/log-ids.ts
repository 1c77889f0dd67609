import { invariant } from './invariant.js';
import type { LogId, LogIndex, Term, TermRun } from './types.js';

/**
 * Which term each entry of the log has, as runs: all entries from one run's first index up to the
 * next run's carry one term. Terms never decrease along a log, so runs are as few as elections.
 *
 *   purged.index | first[0] … | first[1] … | … lastIndex
 *   purged.term  | term[0]    | term[1]    |
 *
 * Works on ranges; nothing here costs per entry.
 */
export class LogIds {
  purged: LogId;
  lastIndex: LogIndex;
  lastTerm: Term;
  private readonly firstIndexes: LogIndex[] = [];
  private readonly terms: Term[] = [];

  constructor(purged: LogId, runs: readonly TermRun[], lastIndex: LogIndex) {
    this.purged = purged;
    this.lastIndex = purged.index;
    this.lastTerm = purged.term;
    this.appendRuns(runs, purged.index + 1, lastIndex);
    invariant(this.lastIndex === lastIndex, 'term runs cover the log', this.lastIndex, lastIndex);
  }

  /** The term at `index`, or -1 where this log does not know it. */
  termAt(index: LogIndex): Term {
    if (index > this.lastIndex) return -1;
    const last = this.firstIndexes.length - 1;
    if (last >= 0 && index >= this.firstIndexes[last]!) return this.lastTerm;
    if (index === this.purged.index) return this.purged.term;
    if (index < this.purged.index) return -1;
    return this.terms[this.runAt(index)]!;
  }

  /** First index of the run that holds `index`; the purged entry stands for itself. */
  firstIndexOfRunAt(index: LogIndex): LogIndex {
    if (index <= this.purged.index) return index;
    return this.firstIndexes[this.runAt(index)]!;
  }

  /** The last index up to `upper` whose term is at most `term`, never below the purged entry. */
  lastIndexWithTermAtMost(upper: LogIndex, term: Term): LogIndex {
    const limit = Math.min(upper, this.lastIndex);
    for (let run = this.firstIndexes.length - 1; run >= 0; run--) {
      const firstIndex = this.firstIndexes[run]!;
      if (firstIndex > limit || this.terms[run]! > term) continue;
      return Math.min(limit, this.lastIndexOfRun(run));
    }
    return this.purged.index;
  }

  /**
   * The first of the entries (`after`, `lastIndex`], described by `runs`, that this log lacks or
   * holds with another term; `lastIndex + 1` when it holds all of them. Purged entries are
   * committed and therefore equal.
   */
  firstMissing(after: LogIndex, runs: readonly TermRun[], lastIndex: LogIndex): LogIndex {
    let index = Math.max(after, this.purged.index) + 1;
    for (let i = 0; i < runs.length; i++) {
      const next = runs[i + 1];
      const end = next === undefined ? lastIndex : next.firstIndex - 1;
      while (index <= end) {
        if (index > this.lastIndex) return index;
        const run = this.runAt(index);
        if (this.terms[run] !== runs[i]!.term) return index;
        index = Math.min(end, this.lastIndexOfRun(run)) + 1;
      }
    }
    return lastIndex + 1;
  }

  append(firstIndex: LogIndex, lastIndex: LogIndex, term: Term): void {
    invariant(firstIndex === this.lastIndex + 1, 'append is adjacent', firstIndex, this.lastIndex);
    invariant(lastIndex >= firstIndex, 'append is not empty', firstIndex, lastIndex);
    invariant(term >= this.lastTerm && term > 0, 'terms never decrease', this.lastTerm, term);
    if (term !== this.lastTerm || this.firstIndexes.length === 0) {
      this.firstIndexes.push(firstIndex);
      this.terms.push(term);
      this.lastTerm = term;
    }
    this.lastIndex = lastIndex;
  }

  /** Appends those of the entries that `runs` describe from `firstIndex` on. */
  appendRuns(runs: readonly TermRun[], firstIndex: LogIndex, lastIndex: LogIndex): void {
    for (let i = 0; i < runs.length; i++) {
      const run = runs[i]!;
      const next = runs[i + 1];
      const end = next === undefined ? lastIndex : next.firstIndex - 1;
      if (end < firstIndex) continue;
      this.append(Math.max(run.firstIndex, firstIndex), end, run.term);
    }
  }

  truncateAfter(index: LogIndex): void {
    invariant(index >= this.purged.index, 'purged entries stay', index, this.purged.index);
    while (this.firstIndexes.length > 0 && this.firstIndexes.at(-1)! > index) {
      this.firstIndexes.pop();
      this.terms.pop();
    }
    this.lastIndex = index;
    this.lastTerm = this.terms.at(-1) ?? this.purged.term;
  }

  /** Forgets the entries up to `index`, which is in the log. */
  purge(index: LogIndex): void {
    invariant(index <= this.lastIndex, 'what is purged was there', index, this.lastIndex);
    this.purged = { term: this.termAt(index), index };
    let gone = 0;
    while (gone < this.terms.length && this.lastIndexOfRun(gone) <= index) gone++;
    this.firstIndexes.splice(0, gone);
    this.terms.splice(0, gone);
    if (this.terms.length > 0) this.firstIndexes[0] = Math.max(this.firstIndexes[0]!, index + 1);
  }

  /** Forgets every entry; the log goes on behind `lastIncluded`. */
  reset(lastIncluded: LogId): void {
    this.purged = lastIncluded;
    this.firstIndexes.length = 0;
    this.terms.length = 0;
    this.lastIndex = lastIncluded.index;
    this.lastTerm = lastIncluded.term;
  }

  private lastIndexOfRun(run: number): LogIndex {
    return run + 1 < this.firstIndexes.length ? this.firstIndexes[run + 1]! - 1 : this.lastIndex;
  }

  private runAt(index: LogIndex): number {
    let low = 0;
    let high = this.firstIndexes.length - 1;
    if (index >= this.firstIndexes[high]!) return high;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.firstIndexes[middle]! <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Raft's comparison of logs: the later last term wins, then the longer log (paper, 5.4.1). */
export function isUpToDate(candidate: LogId, ownTerm: Term, ownIndex: LogIndex): boolean {
  return candidate.term > ownTerm || (candidate.term === ownTerm && candidate.index >= ownIndex);
}
