/**
 * What all logs of a lane together have in each of its segments. Their indexes keep it as they change, so
 * that nobody has to ask every log.
 */

export interface SegmentUse {
  readonly segment: number;
  /** Of items and payloads. */
  readonly bytes: number;
  /** Stretches of entries of one log that stand side by side. */
  readonly runs: number;
}

export class SegmentUsage {
  private readonly uses: Map<number, { segment: number; bytes: number; runs: number }> = new Map();
  /** The lowest segment, unless nothing stands in it. */
  private lowest = 0;

  /** The lowest segment that holds an entry; Infinity when none does. */
  get oldest(): number {
    if (!this.uses.has(this.lowest)) this.lowest = Math.min(...this.uses.keys());
    return this.lowest;
  }

  /** Ascending. */
  list(): SegmentUse[] {
    return [...this.uses.values()].sort((left, right) => left.segment - right.segment);
  }

  /** Bytes in all segments, and so many for each stretch. */
  totalBytes(runBytes = 0): number {
    let total = 0;
    for (const { bytes, runs } of this.uses.values()) total += bytes + runs * runBytes;
    return total;
  }

  /** A log has so much more in a segment, or less. */
  add(segment: number, bytes: number, runs: number): void {
    const use = this.uses.get(segment);
    if (use === undefined) {
      this.uses.set(segment, { segment, bytes, runs });
      this.lowest = Math.min(this.lowest, segment);
      return;
    }
    use.bytes += bytes;
    use.runs += runs;
    if (use.runs === 0) this.uses.delete(segment);
  }
}
