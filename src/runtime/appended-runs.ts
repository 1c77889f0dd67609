/**
 * Where appended writes stand in the log: one run for each block that was appended, in order. A run
 * says of its slots which index the first entry has, their term, and when they were appended; so
 * appending a block of a thousand writes touches one run and none of the writes.
 *
 * A ring of parallel arrays, which grows to the most blocks that were ever under way at once.
 */
export class AppendedRuns {
  private mask = FIRST_CAPACITY - 1;
  // Plain arrays: an index or a term that comes from one of floats is boxed anew in each log id.
  /** Position behind the last slot of the run. */
  private ends: number[] = new Array(FIRST_CAPACITY).fill(0);
  private firstIndexes: number[] = new Array(FIRST_CAPACITY).fill(0);
  /** Of the entries of the last slot. */
  private lastIndexes: number[] = new Array(FIRST_CAPACITY).fill(0);
  private terms: number[] = new Array(FIRST_CAPACITY).fill(0);
  private times = new Float64Array(FIRST_CAPACITY);
  private head = 0;
  private tail = 0;

  get empty(): boolean {
    return this.head === this.tail;
  }

  /** Of the oldest run. */
  get end(): number {
    return this.ends[this.head & this.mask]!;
  }

  get firstIndex(): number {
    return this.firstIndexes[this.head & this.mask]!;
  }

  get term(): number {
    return this.terms[this.head & this.mask]!;
  }

  /** Of the newest run. */
  get newestLastIndex(): number {
    return this.lastIndexes[(this.tail - 1) & this.mask]!;
  }

  /** The slots before position `end` that are in no run yet hold `firstIndex … lastIndex`. */
  push(end: number, firstIndex: number, lastIndex: number, term: number, timeMs: number): void {
    if (this.tail - this.head > this.mask) this.grow();
    const run = this.tail++ & this.mask;
    this.ends[run] = end;
    this.firstIndexes[run] = firstIndex;
    this.lastIndexes[run] = lastIndex;
    this.terms[run] = term;
    this.times[run] = timeMs;
  }

  /** All slots of the oldest run were answered. */
  shift(): void {
    this.head++;
  }

  /** The last slot of the newest run, with `entries` entries, is overwritten; its position is `at`. */
  dropLastSlot(at: number, entries: number): void {
    const run = (this.tail - 1) & this.mask;
    this.ends[run] = at;
    this.lastIndexes[run]! -= entries;
    if (this.lastIndexes[run]! < this.firstIndexes[run]!) this.tail--;
  }

  /** Calls `visit` for each run, oldest first, with the position behind it and when it was appended. */
  forEach(visit: (end: number, timeMs: number) => void): void {
    for (let run = this.head; run !== this.tail; run++) {
      visit(this.ends[run & this.mask]!, this.times[run & this.mask]!);
    }
  }

  /** Nothing is appended: from the first places again. */
  startOver(): void {
    this.head = 0;
    this.tail = 0;
  }

  private grow(): void {
    const { head, tail, mask } = this;
    const capacity = (mask + 1) * 2;
    const ring = <T extends { [position: number]: number }>(from: T, to: T): T => {
      for (let run = head; run !== tail; run++) to[run & (capacity - 1)] = from[run & mask]!;
      return to;
    };
    const numbers = (from: number[]): number[] => ring(from, new Array(capacity).fill(0));
    this.ends = numbers(this.ends);
    this.firstIndexes = numbers(this.firstIndexes);
    this.lastIndexes = numbers(this.lastIndexes);
    this.terms = numbers(this.terms);
    this.times = ring(this.times, new Float64Array(capacity));
    this.mask = capacity - 1;
  }
}

/** A power of two. */
const FIRST_CAPACITY = 16;
