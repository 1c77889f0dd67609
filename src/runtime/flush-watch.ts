/** Between two looks: longer is a pause of this process, not of the disk. */
const MIN_PAUSE_MS = 500;

/**
 * Tells a disk that hangs from one that is slow: looks from time to time whether anything has become
 * durable since the last look. A leader whose disk hangs must not stay in office (its followers would
 * wait for it for ever), so it is asked to hand over after `limitMs`.
 */
export class FlushWatch {
  private readonly limitMs: number;
  private submitted = 0;
  private flushed = 0;
  private seen = 0;
  private waitingSinceMs = Number.NaN;
  private lookedAtMs = 0;

  constructor(limitMs: number) {
    this.limitMs = limitMs;
  }

  submittedUpTo(sequence: number): void {
    this.submitted = sequence;
  }

  flushedUpTo(sequence: number): void {
    this.flushed = sequence;
  }

  /** How long the oldest I/O has waited without any progress, ms, once that is over the limit; else 0. */
  stalledMs(nowMs: number): number {
    if (this.flushed >= this.submitted) {
      this.waitingSinceMs = Number.NaN;
      return 0;
    }
    const sinceLookMs = nowMs - this.lookedAtMs;
    this.lookedAtMs = nowMs;
    // After a pause of this process, what the disk has completed meanwhile is still to be heard of.
    const paused = sinceLookMs > Math.max(this.limitMs / 2, MIN_PAUSE_MS);
    if (Number.isNaN(this.waitingSinceMs) || this.flushed !== this.seen || paused) {
      this.seen = this.flushed;
      this.waitingSinceMs = nowMs;
      return 0;
    }
    const waitedMs = nowMs - this.waitingSinceMs;
    return waitedMs >= this.limitMs ? waitedMs : 0;
  }
}
