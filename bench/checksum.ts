/** Checksums of one buffer: Keelson's XXH3-64 against what else Node has to offer. */
import { crc32 } from 'node:zlib';
import xxhash from 'xxhash-wasm';
import { SharedHeap } from '../dist/wasm/shared-heap.js';
import { xxh3Reference } from '../test/wasm/xxh3-reference.js';
import { finishSuite, type MicroCase, type MicroResult, measure, startSuite } from './micro.js';

const SIZES = [64, 256, 1024, 4096, 65_536, 1_048_576];
/** From here on the ratio to crc32 is a promise. */
const PROMISED_FROM_BYTES = 4096;
const PROMISED_RATIO = 2;

export async function run(argv: string[]): Promise<void> {
  const options = startSuite('checksum', argv);
  const { h64Raw } = await xxhash();
  const heap = SharedHeap.create({ maximumBytes: 4 * 1024 * 1024 });
  const pointer = heap.reserve(Math.max(...SIZES), 64);
  const out = heap.reserve(8, 8);
  const { exports, view } = heap;
  const native = new Uint8Array(Math.max(...SIZES));
  for (let i = 0; i < native.length; i++) native[i] = Math.imul(i, 0x9e3779b1) >>> 24;
  heap.bytes.set(native, pointer);

  const sizes: object[] = [];
  let worstRatio = Number.POSITIVE_INFINITY;
  for (const size of SIZES) {
    const input = native.subarray(0, size);
    exports.xxh3(pointer, size, out);
    if (heap.view.getBigUint64(out, true) !== xxh3Reference(input)) {
      throw new Error(`XXH3-64 of ${size} bytes is wrong`);
    }
    const cases: MicroCase[] = [
      {
        name: 'keelson XXH3-64',
        units: size,
        body: () => {
          exports.xxh3(pointer, size, out);
          return view.getUint32(out, true);
        },
      },
      { name: 'zlib.crc32', units: size, body: () => crc32(input) },
      { name: 'xxhash-wasm h64', units: size, body: () => Number(h64Raw(input) & 0xffffn) },
      {
        name: 'plain TypeScript XXH3-64 (BigInt)',
        units: size,
        body: () => Number(xxh3Reference(input) & 0xffffn),
      },
    ];
    console.log(`\n${size} bytes`);
    const results = cases.map((micro) => measure(micro, options));
    results.forEach(print);
    const ratioToCrc32 = results[0]!.unitsPerSecond / results[1]!.unitsPerSecond;
    if (size >= PROMISED_FROM_BYTES) worstRatio = Math.min(worstRatio, ratioToCrc32);
    console.log(`  ratio to zlib.crc32: ${ratioToCrc32.toFixed(2)}`);
    sizes.push({ bytes: size, ratioToCrc32, results });
  }
  const verdict = worstRatio >= PROMISED_RATIO ? 'reached' : 'MISSED';
  console.log(
    `\nleast ratio to zlib.crc32 from ${PROMISED_FROM_BYTES} bytes on: ${worstRatio.toFixed(2)} (${PROMISED_RATIO} wanted: ${verdict})`,
  );
  finishSuite('checksum', options, { leastRatioToCrc32: worstRatio, sizes });
}

function print({ name, unitsPerSecond, nanosecondsPerCall, margin }: MicroResult): void {
  const speed = (unitsPerSecond / 1e9).toFixed(3).padStart(8);
  const time = nanosecondsPerCall.toFixed(0).padStart(10);
  console.log(`  ${name.padEnd(34)} ${speed} GB/s ${time} ns ±${margin.toFixed(1)}%`);
}
