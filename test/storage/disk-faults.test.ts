import { describe, expect, test } from 'vitest';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';

const PAGE = 4096;
const SECTOR = 512;
const SEEDS = Array.from({ length: 40 }, (_, place) => place + 1);

const code = (value: string): object => expect.objectContaining({ code: value });
const pages = (...values: number[]): Uint8Array =>
  Uint8Array.from(values.flatMap((value) => new Array<number>(PAGE).fill(value)));

/** `/data/a`, of three durable pages of ones. */
function diskWithFile(options = {}): { disk: MemoryDisk; file: ReturnType<MemoryDisk['open']> } {
  const disk = new MemoryDisk(options);
  makeDirectories(disk, '/data');
  const file = disk.open('/data/a', { access: 'write', create: true, direct: true });
  disk.syncDirectory('/data');
  file.write(pages(1, 1, 1), 0);
  file.dataSync();
  return { disk, file };
}

/** `toEqual` takes its time over many bytes. */
function expectBytes(found: Uint8Array, wanted: Uint8Array, context?: string): void {
  expect(found.length, context).toBe(wanted.length);
  const differs = found.findIndex((byte, place) => byte !== wanted[place]);
  expect(differs < 0 ? [] : [differs, found[differs]], context).toEqual([]);
}

/** Everything that seeds let a directory look like after a crash. */
function outcomes(look: (seed: number) => unknown): Set<string> {
  return new Set(SEEDS.map((seed) => String(look(seed))));
}

describe('what a crash leaves of a disk', () => {
  test('keep: all of it, as if the last sync had been just now', () => {
    const { disk, file } = diskWithFile({ allowDirect: false });
    file.write(pages(2), 2 * PAGE);
    file.extend(9 * PAGE);
    disk.rename('/data/a', '/data/b');
    const found = disk.imageAfterCrash('keep');
    expect(found.list('/data')).toEqual(['b']);
    expectBytes(found.readFile('/data/b'), pages(1, 1, 2, 0, 0, 0, 0, 0, 0));
    expectBytes(disk.imageAfterCrash().readFile('/data/a'), pages(1, 1, 1));
  });

  test('reorder: any of the pages, in any combination, and none of them torn', () => {
    const { disk, file } = diskWithFile({ allowDirect: false });
    file.write(pages(2, 2, 2), 0);
    const found = outcomes((seed) => {
      const bytes = disk.imageAfterCrash('reorder', seed).readFile('/data/a');
      const first = [0, 1, 2].map((page) => bytes[page * PAGE]!);
      expectBytes(bytes, pages(...first), `seed ${seed}`);
      return first;
    });
    expect(found.size).toBe(8);
  });

  test('reorder: any of the names, in any combination', () => {
    const { disk } = diskWithFile();
    disk.open('/data/b', { access: 'write', create: true });
    disk.rename('/data/a', '/data/c');
    disk.open('/data/d', { access: 'write', create: true });
    const found = outcomes((seed) => disk.imageAfterCrash('reorder', seed).list('/data'));
    expect([...found].sort()).toEqual(
      ['a', 'a,b', 'a,b,d', 'a,d', 'b,c', 'b,c,d', 'c', 'c,d'].sort(),
    );
  });

  test('torn: of each page any of its sectors', () => {
    const { disk, file } = diskWithFile({ allowDirect: false });
    file.write(pages(2, 2), 0);
    const found = outcomes((seed) => {
      const bytes = disk.imageAfterCrash('torn', seed).readFile('/data/a');
      expectBytes(bytes.subarray(2 * PAGE), pages(1), `seed ${seed}`);
      return Array.from({ length: 2 * PAGE }, (_, place) => place)
        .filter((place) => place % SECTOR === 0)
        .map((place) => {
          const sector = bytes.subarray(place, place + SECTOR);
          expect(new Set(sector).size, `seed ${seed}, sector at ${place}`).toBe(1);
          return sector[0];
        });
    });
    expect(found.size).toBeGreaterThan(30);
  });

  test('a process that dies leaves its unsynced pages to the next one, not to a crash', () => {
    const { disk, file } = diskWithFile({ allowDirect: false });
    file.write(pages(2), 0);
    const next = disk.imageAfterKill();
    file.write(new Uint8Array(10).fill(3), 0);
    expectBytes(next.readFile('/data/a'), pages(2, 1, 1));
    next.open('/data/a', { access: 'write' }).write(new Uint8Array(10).fill(9), 0);
    expect(disk.readFile('/data/a')[0]).toBe(3);
    expectBytes(next.crash().readFile('/data/a'), pages(1, 1, 1));
  });

  test('a direct write makes nothing else of its file durable', () => {
    const { disk, file } = diskWithFile();
    disk.open('/data/a', { access: 'write' }).write(pages(2), 0);
    file.write(pages(3), PAGE);
    expectBytes(disk.crash().readFile('/data/a'), pages(1, 3, 1));
  });
});

describe('the call at which the power fails', () => {
  test('and all later ones throw, and have done nothing', () => {
    const { disk } = diskWithFile();
    const calls = disk.recordCalls();
    disk.rename('/data/a', '/data/b');
    disk.crashAt(calls[0]!.number + 2);
    disk.syncDirectory('/data');
    expect(() => disk.rename('/data/b', '/data/c')).toThrow(/power failed at call \d+, rename/);
    expect(() => disk.syncDirectory('/data')).toThrow(code('EIO'));
    expect(() => disk.open('/data/b', { access: 'read' })).toThrow(code('EIO'));
    expect(calls.map(({ operation }) => operation)).toEqual(['rename', 'syncDirectory', 'rename']);
    expect(disk.imageAfterCrash('keep').list('/data')).toEqual(['b']);
  });

  test('finds a write under way, and leaves any part of it', () => {
    for (const allowDirect of [true, false]) {
      const { disk, file } = diskWithFile({ allowDirect });
      disk.crashAt(callsSoFar(disk) + 1);
      expect(() => file.write(pages(2, 2, 2), 0)).toThrow(/power failed/);
      expect(() => file.write(pages(3, 3, 3), 0)).toThrow(/power failed/);
      expectBytes(disk.imageAfterCrash('discard').readFile('/data/a'), pages(1, 1, 1));
      expectBytes(disk.imageAfterCrash('keep').readFile('/data/a'), pages(2, 2, 2));
      const found = outcomes((seed) => {
        const bytes = disk.imageAfterCrash('reorder', seed).readFile('/data/a');
        return [bytes[0], bytes[PAGE], bytes[2 * PAGE]];
      });
      expect(found.size).toBe(8);
    }
  });
});

describe('a disk that lies', () => {
  test('reports a misdirected write as done', () => {
    const { disk, file } = diskWithFile();
    disk.lie({ nth: 2, movedBytes: PAGE });
    file.write(pages(2), 0);
    file.write(pages(3), 0);
    expectBytes(disk.crash().readFile('/data/a'), pages(2, 3, 1));
  });

  test('reports a write into another file as done', () => {
    const { disk, file } = diskWithFile();
    const other = disk.open('/data/b', { access: 'write', create: true });
    other.write(pages(5, 5), 0);
    disk.lie({ nth: 1, intoPath: '/data/b', movedBytes: PAGE });
    file.write(pages(2), 0);
    file.write(pages(3), 2 * PAGE);
    expectBytes(disk.readFile('/data/a'), pages(1, 1, 3));
    expectBytes(disk.readFile('/data/b'), pages(5, 2));
  });

  test('reports a short write as done', () => {
    const { disk, file } = diskWithFile();
    disk.lie({ nth: 1, pathIncludes: 'a', arrivingBytes: PAGE });
    file.write(pages(2, 2), 0);
    expectBytes(disk.crash().readFile('/data/a'), pages(2, 1, 1));
  });
});

test('the room of a disk shrinks and grows, and what is occupied stays', () => {
  const { disk, file } = diskWithFile({ capacityBytes: 8 * PAGE });
  file.extend(100 * PAGE);
  disk.capacityBytes = 2 * PAGE;
  expect(disk.freeBytes()).toBe(0);
  expect(() => file.write(pages(2, 2), 2 * PAGE)).toThrow(code('ENOSPC'));
  disk.capacityBytes = 4 * PAGE;
  file.write(pages(3, 3), 2 * PAGE);
  expect(() => file.write(pages(4), 4 * PAGE)).toThrow(code('ENOSPC'));
  expectBytes(disk.readFile('/data/a').subarray(0, 4 * PAGE), pages(1, 1, 3, 3));
});

function callsSoFar(disk: MemoryDisk): number {
  return Object.values(disk.calls).reduce((sum, calls) => sum + calls, 0);
}
