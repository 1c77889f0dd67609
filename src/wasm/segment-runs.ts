/**
 * In which segments the entries of one log stand: a run for each stretch that one segment holds. There
 * are about as many runs as segments.
 */
export class SegmentRuns {
  private readonly firsts: number[] = [];
  private readonly segments: number[] = [];

  /** The lowest segment that holds an entry; Infinity when none does. */
  get oldest(): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const segment of this.segments) oldest = Math.min(oldest, segment);
    return oldest;
  }

  /** The entries from `firstIndex` on stand in `segment`, in place of what was there. */
  append(firstIndex: number, segment: number): void {
    this.truncateAfter(firstIndex - 1);
    if (this.segments[this.segments.length - 1] === segment) return;
    this.firsts.push(firstIndex);
    this.segments.push(segment);
  }

  /** The entries from `firstIndex` up to `lastIndex` stand in `segment` now; the log ends at `end`. */
  move(firstIndex: number, lastIndex: number, segment: number, end: number): void {
    const next = lastIndex + 1;
    const at = this.firsts.findLastIndex((first) => first <= next);
    const following = this.segments[at]!;
    const laterFirsts = this.firsts.slice(at + 1);
    const laterSegments = this.segments.slice(at + 1);
    this.append(firstIndex, segment);
    if (next <= end) this.append(next, following);
    laterFirsts.forEach((first, later) => {
      this.append(first, laterSegments[later]!);
    });
  }

  truncateAfter(lastIndex: number): void {
    const { firsts, segments } = this;
    while (firsts.length > 0 && firsts[firsts.length - 1]! > lastIndex) {
      firsts.pop();
      segments.pop();
    }
  }

  /** The entries up to `index` are gone; there are some behind it. */
  purge(index: number): void {
    const { firsts, segments } = this;
    let gone = 0;
    while (gone + 1 < firsts.length && firsts[gone + 1]! <= index + 1) gone++;
    firsts.splice(0, gone);
    segments.splice(0, gone);
    firsts[0] = index + 1;
  }

  clear(): void {
    this.truncateAfter(-1);
  }
}
