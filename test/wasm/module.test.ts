import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { compileModule } from '../../dist/wasm/module.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';

/** Ids and sizes of the sections of a WASM binary. */
function sections(binary: Uint8Array): { id: number; start: number; size: number }[] {
  const found: { id: number; start: number; size: number }[] = [];
  let at = 8;
  while (at < binary.length) {
    const id = binary[at++]!;
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = binary[at++]!;
      size += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    found.push({ id, start: at, size });
    at += size;
  }
  return found;
}

const DATA_SECTION = 11;
const START_SECTION = 8;
const GLOBAL_SECTION = 6;

describe('the built module', () => {
  const binary = readFileSync(new URL('../../dist/wasm/keelson.wasm', import.meta.url));

  test('has no data segment, which each instance would write over the shared memory', () => {
    expect(binary.readUInt32BE(0)).toBe(0x0061736d);
    const data = sections(binary).find((section) => section.id === DATA_SECTION);
    expect(data === undefined || binary[data.start] === 0).toBe(true);
  });

  test('runs nothing at its start and keeps no state of its own', () => {
    const ids = sections(binary).map((section) => section.id);
    expect(ids).not.toContain(START_SECTION);
    const globals = sections(binary).find((section) => section.id === GLOBAL_SECTION);
    expect(globals === undefined || binary[globals.start] === 0).toBe(true);
  });

  test('when it is missing, the error names path and remedy', () => {
    const location = new URL('./no-such-place/keelson.wasm', import.meta.url);
    const error = (() => {
      try {
        compileModule(location);
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(KeelsonError);
    const { code, message, details } = error as KeelsonError;
    expect(code).toBe('KEELSON_MISSING_FILE');
    expect(details).toEqual({ file: location.pathname });
    expect(message).toContain(location.pathname);
    expect(message).toMatch(/bundler.*copy.*npm run build/);
  });
});

describe('a shared heap', () => {
  test('hands out aligned, disjoint, zeroed regions and grows within its maximum', () => {
    const heap = SharedHeap.create({ maximumBytes: 4 * 1024 * 1024 });
    const first = heap.reserve(100, 8);
    const second = heap.reserve(10, 4096);
    expect(first % 8).toBe(0);
    expect(second % 4096).toBe(0);
    expect(second).toBeGreaterThanOrEqual(first + 100);
    const before = heap.bytes;
    before[first] = 42;
    const big = heap.reserve(2 * 1024 * 1024, 4096);
    expect(heap.bytes.length).toBeGreaterThanOrEqual(big + 2 * 1024 * 1024);
    expect(heap.view.byteLength).toBe(heap.bytes.length);
    expect(heap.bytes[first]).toBe(42);
    before[first] = 43;
    expect(heap.bytes[first]).toBe(43);
    expect(heap.bytes.subarray(big, big + 2 * 1024 * 1024).every((byte) => byte === 0)).toBe(true);
    const reserved = heap.reservedBytes;
    expect(() => heap.reserve(2 * 1024 * 1024, 1)).toThrow('the shared memory is full');
    expect(heap.reservedBytes).toBe(reserved);
    expect(heap.reserve(1024, 1)).toBeGreaterThanOrEqual(big + 2 * 1024 * 1024);
  });

  test('gives a released region to the next who asks for its size', () => {
    const heap = SharedHeap.create({ maximumBytes: 4 * 1024 * 1024 });
    const region = heap.allocate(5000);
    const other = heap.allocate(5000);
    const reserved = heap.reservedBytes;
    heap.release(region, 5000);
    expect(heap.reusableBytes).toBe(8192);
    expect(heap.allocate(8192)).toBe(region);
    expect(heap.reusableBytes).toBe(0);
    expect(heap.reservedBytes).toBe(reserved);
    expect(other).not.toBe(region);
  });

  test('refuses a maximum that WebAssembly cannot have', () => {
    for (const maximumBytes of [0, 65_536, 2 ** 32, Number.NaN]) {
      expect(() => SharedHeap.create({ maximumBytes })).toThrow('the shared memory must have');
    }
  });

  test('serves a worker thread, which sees what is written after the memory grew', async () => {
    const heap = SharedHeap.create({ maximumBytes: 16 * 1024 * 1024 });
    const program = `
      const { parentPort, workerData } = require('node:worker_threads');
      const run = import(workerData.heapUrl).then(({ SharedHeap }) => {
        const heap = SharedHeap.attach(workerData.handle);
        parentPort.on('message', ({ pointer, length, out }) => {
          heap.exports.xxh3(pointer, length, out);
          parentPort.postMessage(heap.bytes[pointer + length - 1]);
        });
        parentPort.postMessage('ready');
      });
    `;
    const heapUrl = new URL('../../dist/wasm/shared-heap.js', import.meta.url).href;
    const worker = new Worker(program, {
      eval: true,
      workerData: { heapUrl, handle: heap.transferable },
    });
    const answer = (): Promise<unknown> =>
      new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
    try {
      expect(await answer()).toBe('ready');
      const length = 8 * 1024 * 1024;
      const pointer = heap.reserve(length, 8);
      const out = heap.reserve(16, 8);
      heap.bytes.fill(7, pointer, pointer + length);
      const answered = answer();
      worker.postMessage({ pointer, length, out });
      expect(await answered).toBe(7);
      heap.exports.xxh3(pointer, length, out + 8);
      expect(heap.view.getBigUint64(out, true)).toBe(heap.view.getBigUint64(out + 8, true));
      expect(heap.view.getBigUint64(out, true)).not.toBe(0n);
    } finally {
      await worker.terminate();
    }
  });
});
