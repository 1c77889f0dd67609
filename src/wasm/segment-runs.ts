/**
 * In which segments the entries of one log stand, and how many bytes of it each of them holds: a run for
 * each stretch that one segment holds. There are about as many runs as segments.
 *
 * Where a run is cut, the index tells the bytes of its first part: so the index still has what is cut off,
 * or not yet what comes in its place.
 */
import type { SegmentUsage } from './segment-usage.js';

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
  /** Told of every change. */
  private readonly usage: SegmentUsage;

  constructor(usage: SegmentUsage, bytesOf: (firstIndex: number, lastIndex: number) => number) {
    this.usage = usage;
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

  /** The log goes on from `firstIndex` with entries of so many bytes, which stand in `segment`. */
  append(firstIndex: number, segment: number, bytes: number): void {
    const last = this.segments.length - 1;
    if (this.segments[last] === segment) this.resize(last, this.bytes[last]! + bytes);
    else this.insert(last + 1, firstIndex, segment, bytes);
  }

  /** The entries from `firstIndex` up to `lastIndex` stand in `segment` now; the log ends at `end`. */
  move(firstIndex: number, lastIndex: number, segment: number, end: number): void {
    const from = this.split(firstIndex);
    const to = lastIndex < end ? this.split(lastIndex + 1) : this.firsts.length;
    this.remove(from, to);
    this.insert(from, firstIndex, segment, this.bytesOf(firstIndex, lastIndex));
    this.join(from + 1);
    this.join(from);
  }

  /** The log ends at `lastIndex`, before its end until now. */
  truncateAfter(lastIndex: number): void {
    const kept = this.find(lastIndex) + 1;
    this.remove(kept, this.firsts.length);
    if (kept > 0) this.resize(kept - 1, this.firstPart(kept - 1, lastIndex));
  }

  /** The entries up to `index` are gone; there are some behind it. */
  purge(index: number): void {
    this.remove(0, this.split(index + 1));
  }

  clear(): void {
    this.remove(0, this.firsts.length);
  }

  private insert(at: number, firstIndex: number, segment: number, bytes: number): void {
    this.firsts.splice(at, 0, firstIndex);
    this.segments.splice(at, 0, segment);
    this.bytes.splice(at, 0, bytes);
    this.usage.add(segment, bytes, 1);
  }

  private resize(at: number, bytes: number): void {
    this.usage.add(this.segments[at]!, bytes - this.bytes[at]!, 0);
    this.bytes[at] = bytes;
  }

  private remove(from: number, to: number): void {
    for (let at = from; at < to; at++) this.usage.add(this.segments[at]!, -this.bytes[at]!, -1);
    this.firsts.splice(from, to - from);
    this.segments.splice(from, to - from);
    this.bytes.splice(from, to - from);
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
    const right = this.bytes[at]! - left;
    this.resize(at, left);
    this.insert(at + 1, firstIndex, this.segments[at]!, right);
    return at + 1;
  }

  /** Makes one run of that at a place and the one before it, if they stand in the same segment. */
  private join(at: number): void {
    if (at === 0 || at >= this.firsts.length) return;
    if (this.segments[at - 1] !== this.segments[at]) return;
    const bytes = this.bytes[at - 1]! + this.bytes[at]!;
    this.remove(at, at + 1);
    this.resize(at - 1, bytes);
  }

  private firstPart(at: number, lastIndex: number): number {
    // Entries of which nothing is known take up nothing, whatever the index has there by now.
    return this.segments[at] === 0 ? 0 : this.bytesOf(this.firsts[at]!, lastIndex);
  }
}
