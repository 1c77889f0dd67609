/** Latencies in µs: keeps up to `capacity` samples, evenly thinned out, and reads percentiles off them. */
export class LatencySamples {
  private readonly samples: Float64Array;
  private count = 0;
  private stride = 1;
  private skip = 0;

  constructor(capacity = 1 << 18) {
    this.samples = new Float64Array(capacity);
  }

  add(microseconds: number): void {
    if (this.skip-- > 0) return;
    this.skip = this.stride - 1;
    if (this.count === this.samples.length) this.thinOut();
    this.samples[this.count++] = microseconds;
  }

  private thinOut(): void {
    this.stride *= 2;
    this.count /= 2;
    for (let i = 0; i < this.count; i++) this.samples[i] = this.samples[2 * i]!;
  }

  /** p50, p99 and maximum of the samples kept, µs. */
  summary(): { p50: number; p99: number; max: number } {
    const sorted = this.samples.slice(0, this.count).sort();
    const at = (share: number): number =>
      Math.round((sorted[Math.floor(share * (sorted.length - 1))] ?? 0) * 10) / 10;
    return { p50: at(0.5), p99: at(0.99), max: at(1) };
  }
}
