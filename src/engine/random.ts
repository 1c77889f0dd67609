/**
 * The engine's own source of randomness, so that the same seed and events give the same commands.
 * mulberry32: 32 bits of state, enough to spread election timeouts, not for anything secret.
 */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = this.state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * limit);
  }
}

/** Nodes that were given the same seed must still draw different timeouts. */
export function seedForNode(seed: number, nodeId: number): number {
  return (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(nodeId, 0xc2b2ae35)) >>> 0;
}
