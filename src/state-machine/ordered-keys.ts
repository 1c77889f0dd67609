/**
 * A set of strings in the order of their UTF-8 bytes, which is the order of their code points: sorted
 * chunks of at most 512 keys in one array. A search is two binary searches; an insert moves at most
 * one chunk, and once in about 256 inserts a slot of the outer array (4,000 slots at a million keys).
 *
 * JavaScript compares UTF-16 code units, which differs from code points only where a surrogate meets
 * a unit above it. So the fast comparison serves until the first key with a surrogate arrives; the
 * keys that are there already stand in the right order for both.
 */
const MAX_CHUNK = 512;
const SURROGATE = /[\ud800-\udfff]/;

export class OrderedKeys {
  private chunks: string[][] = [[]];
  private surrogates = false;

  /** Adds a key that is not in the set. */
  add(key: string): void {
    if (!this.surrogates && SURROGATE.test(key)) this.surrogates = true;
    if (this.append(key)) return;
    const number = this.chunkOf(key);
    const chunk = this.chunks[number]!;
    const place = this.placeIn(chunk, key);
    if (chunk.length < MAX_CHUNK) chunk.splice(place, 0, key);
    else {
      const upper = chunk.splice(MAX_CHUNK / 2);
      this.chunks.splice(number + 1, 0, upper);
      if (place <= chunk.length) chunk.splice(place, 0, key);
      else upper.splice(place - chunk.length, 0, key);
    }
  }

  /** Ascending inserts, as of a restore, need no search and fill whole chunks. */
  private append(key: string): boolean {
    const last = this.chunks[this.chunks.length - 1]!;
    if (last.length === 0) return false;
    if (this.comparison(key)(last[last.length - 1]!, key) >= 0) return false;
    if (last.length < MAX_CHUNK) last.push(key);
    else this.chunks.push([key]);
    return true;
  }

  /** Removes a key that is in the set. */
  delete(key: string): void {
    const number = this.chunkOf(key);
    const chunk = this.chunks[number]!;
    chunk.splice(this.placeIn(chunk, key), 1);
    const next = this.chunks[number + 1];
    if (next !== undefined && chunk.length + next.length <= MAX_CHUNK / 2) {
      this.chunks[number] = chunk.concat(next);
      this.chunks.splice(number + 1, 1);
    } else if (chunk.length === 0 && this.chunks.length > 1) {
      this.chunks.splice(number, 1);
    }
  }

  /** All keys from `start` (inclusive) on, in order. The set must not change meanwhile. */
  *from(start: string): Generator<string, void> {
    const first = this.chunkOf(start);
    let place = this.placeIn(this.chunks[first]!, start);
    for (let number = first; number < this.chunks.length; number++) {
      const chunk = this.chunks[number]!;
      for (; place < chunk.length; place++) yield chunk[place]!;
      place = 0;
    }
  }

  /** Order of two keys, below, at or above zero. */
  compare(left: string, right: string): number {
    return this.surrogates || SURROGATE.test(left) || SURROGATE.test(right)
      ? compareCodePoints(left, right)
      : compareUnits(left, right);
  }

  /** The last chunk that starts at or before the key, or the first one. */
  private chunkOf(key: string): number {
    const compare = this.comparison(key);
    let low = 0;
    let high = this.chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (compare(this.chunks[middle]![0]!, key) <= 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Where the key stands in the chunk, or would. */
  private placeIn(chunk: readonly string[], key: string): number {
    const compare = this.comparison(key);
    let low = 0;
    let high = chunk.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compare(chunk[middle]!, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private comparison(key: string): (left: string, right: string) => number {
    return this.surrogates || SURROGATE.test(key) ? compareCodePoints : compareUnits;
  }
}

function compareUnits(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function compareCodePoints(left: string, right: string): number {
  const length = Math.min(left.length, right.length);
  for (let place = 0; place < length; place++) {
    const a = left.charCodeAt(place);
    const b = right.charCodeAt(place);
    if (a === b) continue;
    const aSurrogate = a >= 0xd800 && a <= 0xdfff;
    const bSurrogate = b >= 0xd800 && b <= 0xdfff;
    // A surrogate stands for a code point above every other unit; between two, units decide.
    if (aSurrogate !== bSurrogate) return aSurrogate ? 1 : -1;
    return a - b;
  }
  return left.length - right.length;
}
