import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import type { Disk } from '../../dist/storage/disk.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';

const made: string[] = [];

function temporaryDirectory(parent: string = tmpdir()): string {
  const directory = mkdtempSync(join(parent, 'keelson-disk-'));
  made.push(directory);
  return directory;
}

afterAll(() => {
  for (const directory of made) rmSync(directory, { recursive: true, force: true });
});

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (view: Uint8Array): string => new TextDecoder().decode(view);
const code = (value: string): object => expect.objectContaining({ code: value });

const disks: [string, () => { disk: Disk; directory: string }][] = [
  ['NodeDisk', () => ({ disk: new NodeDisk(), directory: temporaryDirectory() })],
  [
    'MemoryDisk',
    () => {
      const disk = new MemoryDisk();
      makeDirectories(disk, '/data');
      return { disk, directory: '/data' };
    },
  ],
];

describe.each(disks)('%s', (_name, make) => {
  test('reads back what was written, at any position, and stops at the end', () => {
    const { disk, directory } = make();
    const file = disk.open(join(directory, 'a'), { access: 'write', create: true });
    file.write(bytes('hello'), 4094);
    expect(file.size()).toBe(4099);
    const view = new Uint8Array(10);
    expect(file.read(view, 4092)).toBe(7);
    expect(text(view.subarray(0, 7))).toBe('\0\0hello');
    expect(file.read(view, 5000)).toBe(0);
    file.dataSync();
    file.close();
    expect(text(disk.readFile(join(directory, 'a')).subarray(4094))).toBe('hello');
  });

  test('tells what is free where a directory stands', () => {
    const { disk, directory } = make();
    expect(disk.freeBytes(directory)).toBeGreaterThan(0);
    expect(() => new NodeDisk().freeBytes(join(directory, 'none'))).toThrow('ENOENT');
  });

  test('tells what a file takes up of the disk: its holes do not count', () => {
    const { disk, directory } = make();
    const file = disk.open(join(directory, 'a'), { access: 'write', create: true });
    file.extend(1024 * 1024);
    file.write(new Uint8Array(64 * 1024), 0);
    file.dataSync();
    expect(file.blockBytes()).toBeGreaterThanOrEqual(64 * 1024);
    expect(file.blockBytes()).toBeLessThan(512 * 1024);
    file.close();
  });

  test('behaves as a plain array of bytes under random reads and writes', () => {
    const seed = 7;
    const random = new SeededRandom(seed);
    const { disk, directory } = make();
    const file = disk.open(join(directory, 'a'), { access: 'write', create: true });
    const model = new Uint8Array(40_000);
    let size = 0;
    for (let step = 0; step < 300; step++) {
      const position = random.integer(30_000);
      const view = random.fill(new Uint8Array(random.integer(9_000)));
      file.write(view, position);
      model.set(view, position);
      if (view.length > 0) size = Math.max(size, position + view.length);
      if (random.chance(0.2)) file.dataSync();
      const back = new Uint8Array(random.integer(9_000));
      const from = random.integer(35_000);
      const count = file.read(back, from);
      expect(count, `seed ${seed} step ${step}`).toBe(
        Math.max(0, Math.min(back.length, size - from)),
      );
      const same = Buffer.compare(back.subarray(0, count), model.subarray(from, from + count));
      expect(same, `seed ${seed} step ${step}`).toBe(0);
    }
    expect(file.size()).toBe(size);
    file.close();
  });

  test('takes and fills views of shared memory', () => {
    const { disk, directory } = make();
    const file = disk.open(join(directory, 'a'), { access: 'write', create: true });
    const shared = new Uint8Array(new SharedArrayBuffer(64));
    shared.fill(7, 8, 16);
    file.write(shared.subarray(8, 16), 0);
    expect(file.read(shared.subarray(32, 40), 0)).toBe(8);
    expect([...shared.subarray(30, 42)]).toEqual([0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
    file.close();
  });

  test('direct files take aligned writes and refuse others', () => {
    const { disk, directory } = make();
    const file = disk.open(join(directory, 'a'), { access: 'write', create: true, direct: true });
    const view = alignedBytes(8192).fill(5);
    file.write(view, 4096);
    file.dataSync();
    expect(file.size()).toBe(12_288);
    if (file.direct) expect(() => file.write(view.subarray(0, 100), 4096)).toThrow(code('EINVAL'));
    file.close();
    expect(disk.readFile(join(directory, 'a'))[12_287]).toBe(5);
  });

  test('create refuses a file that is there, open one that is not', () => {
    const { disk, directory } = make();
    const path = join(directory, 'a');
    expect(() => disk.open(path, { access: 'read' })).toThrow(code('ENOENT'));
    disk.open(path, { access: 'write', create: true }).close();
    expect(() => disk.open(path, { access: 'write', create: true })).toThrow(code('EEXIST'));
    expect(() => disk.open(path, { access: 'write', create: true, direct: true })).toThrow(
      code('EEXIST'),
    );
  });

  test('lists sorted names, renames over, removes', () => {
    const { disk, directory } = make();
    for (const name of ['b', 'a', 'c']) {
      const file = disk.open(join(directory, name), { access: 'write', create: true });
      file.write(bytes(name), 0);
      file.close();
    }
    makeDirectories(disk, join(directory, 'd', 'e'));
    disk.rename(join(directory, 'b'), join(directory, 'c'));
    disk.remove(join(directory, 'a'));
    disk.syncDirectory(directory);
    expect(disk.list(directory)).toEqual(['c', 'd']);
    expect(disk.list(join(directory, 'd'))).toEqual(['e']);
    expect(text(disk.readFile(join(directory, 'c')))).toBe('b');
    expect(disk.exists(join(directory, 'a'))).toBe(false);
    expect(disk.exists(join(directory, 'd', 'e'))).toBe(true);
    expect(() => disk.remove(join(directory, 'a'))).toThrow(code('ENOENT'));
    expect(() => disk.list(join(directory, 'x'))).toThrow(code('ENOENT'));
  });

  test('a closed file takes no further calls, closing twice is allowed', () => {
    const { disk, directory } = make();
    const file = disk.open(join(directory, 'a'), { access: 'write', create: true });
    file.close();
    file.close();
    expect(() => file.write(bytes('x'), 0)).toThrow(code('EBADF'));
    expect(() => file.read(new Uint8Array(1), 0)).toThrow(code('EBADF'));
    expect(() => file.dataSync()).toThrow(code('EBADF'));
    expect(() => file.size()).toThrow(code('EBADF'));
  });
});

describe('NodeDisk', () => {
  test('falls back to plain writes where direct I/O is refused', (context) => {
    if (!existsSync('/proc/self/mem')) context.skip();
    // procfs has no direct I/O; the file is only opened.
    const file = new NodeDisk().open('/proc/self/mem', { access: 'write', direct: true });
    expect(file.direct).toBe(false);
    file.close();
  });
});

/** Direct I/O needs an aligned address: the memory of a WASM module is page-aligned. */
function alignedBytes(length: number): Uint8Array {
  const { Memory } = (
    globalThis as unknown as {
      WebAssembly: { Memory: new (options: object) => { buffer: ArrayBuffer } };
    }
  ).WebAssembly;
  return new Uint8Array(new Memory({ initial: 1 }).buffer, 0, length);
}
