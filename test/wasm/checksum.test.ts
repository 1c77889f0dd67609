import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { seededRandom } from './support.js';
import { xxh3Reference } from './xxh3-reference.js';

const MAX_LENGTH = 1024 * 1024 + 4097;

/**
 * The sanity buffer of xxHash's own tests and the XXH3-64 it lists for some prefixes of it
 * (tests/sanity_test_vectors.h, seed 0).
 */
const VECTORS: readonly (readonly [number, bigint])[] = [
  [0, 0x2d06800538d394c2n],
  [1, 0xc44bdff4074eecdbn],
  [6, 0x27b56a84cd2d7325n],
  [12, 0xa713daf0dfbb77e7n],
  [24, 0xa3fe70bf9d3510ebn],
  [48, 0x397da259ecba1f11n],
  [80, 0xbcdefbbb2c47c90an],
  [195, 0xcd94217ee362ec3an],
  [403, 0xcdeb804d65c6dea4n],
  [512, 0x617e49599013cb6bn],
  [2048, 0xdd59e2c3a5f038e0n],
  [2240, 0x6e73a90539cf2948n],
  [2367, 0xcb37aeb9e5d361edn],
];

function sanityBuffer(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let generator = 2654435761n;
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(generator >> 56n);
    generator = (generator * 11400714785074694797n) & ((1n << 64n) - 1n);
  }
  return bytes;
}

const heap = SharedHeap.create({ maximumBytes: 8 * 1024 * 1024 });
const input = heap.reserve(MAX_LENGTH + 64, 4096);
const out = heap.reserve(8, 8);

/** Hashes from an odd address on, so that no alignment is taken for granted. */
function xxh3(bytes: Uint8Array, shift = 1): bigint {
  heap.bytes.set(bytes, input + shift);
  heap.exports.xxh3(input + shift, bytes.length, out);
  return heap.view.getBigUint64(out, true);
}

const inHex = (hash: bigint): string => hash.toString(16).padStart(16, '0');

describe('XXH3-64', () => {
  test('equals the published vectors, and so does the reference of these tests', () => {
    const buffer = sanityBuffer(2367);
    for (const [length, expected] of VECTORS) {
      expect(xxh3(buffer.subarray(0, length)), `length ${length}`).toBe(expected);
      expect(xxh3Reference(buffer.subarray(0, length)), `length ${length}`).toBe(expected);
    }
  });

  test('equals the reference for every length up to 2200 and around every power of two', () => {
    const seed = 11;
    const data = seededRandom(seed).bytes(MAX_LENGTH);
    const lengths = Array.from({ length: 2201 }, (_, length) => length);
    for (let power = 4096; power <= 65_536; power *= 2) {
      lengths.push(power - 65, power - 1, power, power + 1, power + 63, power + 64, power + 65);
    }
    lengths.push(1024 * 1024 - 1, 1024 * 1024, MAX_LENGTH);
    for (const length of lengths) {
      const bytes = data.subarray(data.length - length);
      expect(xxh3(bytes, length & 15), `seed ${seed}, length ${length}`).toBe(xxh3Reference(bytes));
    }
  });

  test('equals what `xxhsum -H3` has printed for random data of many lengths', () => {
    const recorded = readFileSync(new URL('xxhsum-h3.txt', import.meta.url), 'utf8');
    const lines = recorded.trim().split('\n').slice(1);
    const data = seededRandom(12).bytes(MAX_LENGTH);
    const computed = lines.map((line) => {
      const length = Number.parseInt(line, 10);
      return `${length} ${inHex(xxh3(data.subarray(0, length)))}`;
    });
    expect(computed).toEqual(lines);
    expect(lines.length).toBeGreaterThan(400);
  });

  const installed = spawnSync('xxhsum', ['--version']).error === undefined;
  test.skipIf(!installed)('equals `xxhsum -H3` itself on other random data', () => {
    const seed = Number(process.env.KEELSON_TEST_SEED ?? Date.now() % 1_000_000);
    const random = seededRandom(seed);
    const directory = mkdtempSync(join(tmpdir(), 'keelson-xxhsum-'));
    try {
      const expected: string[] = [];
      const files: string[] = [];
      const lengths = Array.from({ length: 300 }, (_, length) => length);
      for (let round = 0; round < 100; round++) lengths.push(random.below(100_000));
      lengths.push(1024 * 1024, 1024 * 1024 + 1, MAX_LENGTH);
      for (const length of lengths) {
        const bytes = random.bytes(length);
        const file = join(directory, `${files.length}`);
        writeFileSync(file, bytes);
        files.push(file);
        expected.push(inHex(xxh3(bytes)));
      }
      const printed = execFileSync('xxhsum', ['-H3', ...files], {
        encoding: 'utf8',
        stdio: 'pipe',
      });
      // Versions of xxhsum print `XXH3 (file) = hash` or `XXH3_hash  file`.
      const hashes = printed.match(/(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])/g);
      expect(hashes, `seed ${seed}`).toEqual(expected);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
