/**
 * In which segments the entries of one log stand, and how many bytes of it each of them holds: a run for
 * each stretch that one segment holds. There are about as many runs as segments.
 *
 * Where a run is cut, the index tells the bytes of its first part: so the index still has what is cut off,
 * or not yet what comes in its place.
 */

/** Entries of one log that stand in one segment. */
export interface SegmentRun {
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly segment: number;
  /** Of items and payloads. */
  readonly bytes: number;
}

export class SegmentRuns {
  private readonly firsts: number[] = [];
  private readonly segments: number[] = [];
  private readonly bytes: number[] = [];
  /** Bytes of the entries from the first index up to the last. */
  private readonly bytesOf: (firstIndex: number, lastIndex: number) => number;

  constructor(bytesOf: (firstIndex: number, lastIndex: number) => number) {
    this.bytesOf = bytesOf;
  }

  /** The lowest segment that holds an entry; Infinity when none does. */
  get oldest(): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const segment of this.segments) oldest = Math.min(oldest, segment);
    return oldest;
  }

  /** The first run in the lowest segment; the log ends at `end`. Undefined when there is none. */
  oldestRun(end: number): SegmentRun | undefined {
    return this.run(this.segments.indexOf(this.oldest), end);
  }

  /** The run that `index` is in; the log ends at `end`. */
  runOf(index: number, end: number): SegmentRun | undefined {
    return index > end ? undefined : this.run(this.find(index), end);
  }

  /** Adds the bytes that each segment holds, and so many for each run. */
  addBytes(bySegment: Map<number, number>, runBytes: number): void {
    for (let at = 0; at < this.segments.length; at++) {
      const segment = this.segments[at]!;
      bySegment.set(segment, (bySegment.get(segment) ?? 0) + this.bytes[at]! + runBytes);
    }
  }

  /** The log goes on from `firstIndex` with entries of so many bytes, which stand in `segment`. */
  append(firstIndex: number, segment: number, bytes: number): void {
    const last = this.segments.length - 1;
    if (this.segments[last] === segment) {
      this.bytes[last]! += bytes;
      return;
    }
    this.firsts.push(firstIndex);
    this.segments.push(segment);
    this.bytes.push(bytes);
  }

  /** The entries from `firstIndex` up to `lastIndex` stand in `segment` now; the log ends at `end`. */
  move(firstIndex: number, lastIndex: number, segment: number, end: number): void {
    const from = this.split(firstIndex);
    const to = lastIndex < end ? this.split(lastIndex + 1) : this.firsts.length;
    this.firsts.splice(from, to - from, firstIndex);
    this.segments.splice(from, to - from, segment);
    this.bytes.splice(from, to - from, this.bytesOf(firstIndex, lastIndex));
    this.join(from + 1);
    this.join(from);
  }

  /** The log ends at `lastIndex`, before its end until now. */
  truncateAfter(lastIndex: number): void {
    const { firsts, segments, bytes } = this;
    let last = firsts.length - 1;
    for (; last >= 0 && firsts[last]! > lastIndex; last--) {
      firsts.pop();
      segments.pop();
      bytes.pop();
    }
    if (last >= 0) bytes[last] = this.firstPart(last, lastIndex);
  }

  /** The entries up to `index` are gone; there are some behind it. */
  purge(index: number): void {
    const gone = this.split(index + 1);
    this.firsts.splice(0, gone);
    this.segments.splice(0, gone);
    this.bytes.splice(0, gone);
  }

  clear(): void {
    this.firsts.length = 0;
    this.segments.length = 0;
    this.bytes.length = 0;
  }

  private run(at: number, end: number): SegmentRun | undefined {
    if (at < 0) return undefined;
    const lastIndex = (this.firsts[at + 1] ?? end + 1) - 1;
    const segment = this.segments[at]!;
    return { firstIndex: this.firsts[at]!, lastIndex, segment, bytes: this.bytes[at]! };
  }

  /** The place of the run that `index` is in; -1 if there is none. */
  private find(index: number): number {
    return this.firsts.findLastIndex((first) => first <= index);
  }

  /** Lets a run begin at `firstIndex`, which is in the log; returns its place. */
  private split(firstIndex: number): number {
    const at = this.find(firstIndex);
    if (this.firsts[at] === firstIndex) return at;
    const left = this.firstPart(at, firstIndex - 1);
    this.firsts.splice(at + 1, 0, firstIndex);
    this.segments.splice(at + 1, 0, this.segments[at]!);
    this.bytes.splice(at + 1, 0, this.bytes[at]! - left);
    this.bytes[at] = left;
    return at + 1;
  }

  /** Makes one run of that at a place and the one before it, if they stand in the same segment. */
  private join(at: number): void {
    if (at === 0 || at >= this.firsts.length) return;
    if (this.segments[at - 1] !== this.segments[at]) return;
    this.bytes[at - 1]! += this.bytes[at]!;
    this.firsts.splice(at, 1);
    this.segments.splice(at, 1);
    this.bytes.splice(at, 1);
  }

  private firstPart(at: number, lastIndex: number): number {
    // Entries of which nothing is known take up nothing, whatever the index has there by now.
    return this.segments[at] === 0 ? 0 : this.bytesOf(this.firsts[at]!, lastIndex);
  }
}
