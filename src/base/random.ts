/**
 * A seeded generator (xoshiro128**) for simulations and tests: the same seed gives the same numbers
 * on every machine. Not for secrets.
 */
export class SeededRandom {
  private s0: number;
  private s1: number;
  private s2: number;
  private s3: number;

  constructor(seed: number) {
    // splitmix32 spreads the seed over the state, so that small seeds do not start alike.
    let state = (seed ^ Math.floor(seed / 0x1_0000_0000)) >>> 0;
    const spread = (): number => {
      state = (state + 0x9e3779b9) >>> 0;
      let mixed = state ^ (state >>> 16);
      mixed = Math.imul(mixed, 0x21f0aaad);
      mixed ^= mixed >>> 15;
      mixed = Math.imul(mixed, 0x735a2d97);
      return (mixed ^ (mixed >>> 15)) >>> 0;
    };
    this.s0 = spread();
    this.s1 = spread();
    this.s2 = spread();
    // The all-zero state is the one that never leaves zero.
    this.s3 = spread() | 1;
  }

  /** A whole number in [0, 2^32). */
  nextUint32(): number {
    const scrambled = Math.imul(this.s1, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    const shifted = this.s1 << 9;
    this.s2 ^= this.s0;
    this.s3 ^= this.s1;
    this.s1 ^= this.s2;
    this.s0 ^= this.s3;
    this.s2 ^= shifted;
    this.s3 = (this.s3 << 11) | (this.s3 >>> 21);
    return result;
  }

  /** A number in [0, 1) with 53 random bits. */
  next(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 0x400_0000 + low) / 0x20_0000_0000_0000;
  }

  /** A whole number in [0, limit). */
  integer(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** Fills a view with random bytes and returns it. */
  fill<T extends Uint8Array>(bytes: T): T {
    for (let position = 0; position < bytes.length; position++) {
      bytes[position] = this.nextUint32() >>> 24;
    }
    return bytes;
  }
}
