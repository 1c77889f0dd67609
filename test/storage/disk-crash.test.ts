import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';

const code = (value: string): object => expect.objectContaining({ code: value });

function diskWithFile(options = {}): { disk: MemoryDisk; file: ReturnType<MemoryDisk['open']> } {
  const disk = new MemoryDisk(options);
  makeDirectories(disk, '/data');
  const file = disk.open('/data/a', { access: 'write', create: true });
  disk.syncDirectory('/data');
  return { disk, file };
}

describe('MemoryDisk after a crash', () => {
  test('has lost what was not synced and kept what was', () => {
    const { disk, file } = diskWithFile();
    file.write(new Uint8Array(4096).fill(1), 0);
    file.dataSync();
    file.write(new Uint8Array(10).fill(2), 100);
    file.write(new Uint8Array(10).fill(3), 9000);
    const found = disk.crash();
    expect(found.readFile('/data/a')).toEqual(new Uint8Array(4096).fill(1));
  });

  test('of the process alone has all that was written, until the power fails too', () => {
    const { disk, file } = diskWithFile();
    file.write(new Uint8Array(10).fill(2), 0);
    disk.rename('/data/a', '/data/b');
    const found = disk.kill();
    expect(() => file.write(new Uint8Array(1), 0)).toThrow(code('EIO'));
    expect(found.readFile('/data/b')).toEqual(new Uint8Array(10).fill(2));
    expect(found.crash().readFile('/data/a')).toHaveLength(0);
  });

  test('lets no old handle and no old disk go on', () => {
    const { disk, file } = diskWithFile();
    disk.crash();
    expect(() => file.write(new Uint8Array(1), 0)).toThrow(code('EIO'));
    expect(() => file.read(new Uint8Array(1), 0)).toThrow(code('EIO'));
    expect(() => file.dataSync()).toThrow(code('EIO'));
    expect(() => disk.list('/data')).toThrow(code('EIO'));
    expect(() => disk.open('/data/a', { access: 'read' })).toThrow(code('EIO'));
  });

  test('known bug 56: the directory entry of a new file is not synced', () => {
    const disk = new MemoryDisk();
    makeDirectories(disk, '/data');
    const file = disk.open('/data/new', { access: 'write', create: true });
    file.write(new Uint8Array(10), 0);
    file.dataSync();
    expect(disk.imageAfterCrash().list('/data')).toEqual([]);
    disk.syncDirectory('/data');
    expect(disk.imageAfterCrash().list('/data')).toEqual(['new']);
  });

  test('known bug 56: with the name of a new directory all that is in it is lost', () => {
    const disk = new MemoryDisk();
    disk.makeDirectory('/data');
    disk.makeDirectory('/data/wal');
    disk.syncDirectory('/data');
    const file = disk.open('/data/wal/a', { access: 'write', create: true });
    file.write(new Uint8Array(10), 0);
    file.dataSync();
    disk.syncDirectory('/data/wal');
    expect(disk.imageAfterCrash().exists('/data')).toBe(false);
    disk.syncDirectory('/');
    expect(disk.imageAfterCrash().readFile('/data/wal/a')).toHaveLength(10);
  });

  test('undoes renames and removals whose directory was not synced', () => {
    const { disk, file } = diskWithFile();
    file.write(new Uint8Array(1), 0);
    file.dataSync();
    disk.rename('/data/a', '/data/b');
    expect(disk.list('/data')).toEqual(['b']);
    expect(disk.imageAfterCrash().list('/data')).toEqual(['a']);
    disk.syncDirectory('/data');
    disk.remove('/data/b');
    expect(disk.imageAfterCrash().list('/data')).toEqual(['b']);
    disk.syncDirectory('/data');
    expect(disk.imageAfterCrash().list('/data')).toEqual([]);
  });

  test('direct writes are durable on return', () => {
    const disk = new MemoryDisk();
    makeDirectories(disk, '/data');
    const file = disk.open('/data/a', { access: 'write', create: true, direct: true });
    disk.syncDirectory('/data');
    expect(file.direct).toBe(true);
    file.write(new Uint8Array(4096).fill(9), 0);
    expect(disk.crash().readFile('/data/a')[4095]).toBe(9);
  });

  test('a disk may refuse direct I/O', () => {
    const disk = new MemoryDisk({ allowDirect: false });
    const file = disk.open('/a', { access: 'write', create: true, direct: true });
    expect(file.direct).toBe(false);
  });

  test('in random mode keeps any part of what was not synced and all that was', () => {
    const outcomes = new Set<string>();
    let torn = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const { disk, file } = diskWithFile();
      file.write(new Uint8Array(4096 * 4).fill(1), 0);
      file.dataSync();
      file.write(new Uint8Array(4096 * 2).fill(2), 4096 * 2);
      const found = disk.crash('random', seed).readFile('/data/a');
      const context = `seed ${seed}`;
      expect(found.length, context).toBe(4096 * 4);
      expect(
        found.subarray(0, 8192).every((byte) => byte === 1),
        context,
      ).toBe(true);
      const kept = [2, 3].map((page) => {
        const sectors = Array.from({ length: 8 }, (_, sector) => {
          const start = page * 4096 + sector * 512;
          const part = found.subarray(start, start + 512);
          expect(
            part.every((byte) => byte === part[0]),
            context,
          ).toBe(true);
          return part[0];
        });
        const distinct = new Set(sectors);
        if (distinct.size === 2) torn++;
        return distinct.size === 2 ? 'torn' : String(sectors[0]);
      });
      outcomes.add(kept.join());
    }
    for (const expected of ['1,1', '1,2', '2,1', '2,2']) expect(outcomes).toContain(expected);
    expect(torn).toBeGreaterThan(0);
  });

  test('the same seed gives the same crash, and an image is not changed by later writes', () => {
    const { disk, file } = diskWithFile();
    file.write(new SeededRandom(3).fill(new Uint8Array(50_000)), 0);
    const one = disk.imageAfterCrash('random', 5);
    const before = one.readFile('/data/a');
    file.write(new Uint8Array(50_000).fill(255), 0);
    file.write(new Uint8Array(10).fill(254), 77);
    expect(one.readFile('/data/a')).toEqual(before);
    const { disk: again, file: fileAgain } = diskWithFile();
    fileAgain.write(new SeededRandom(3).fill(new Uint8Array(50_000)), 0);
    expect(again.crash('random', 5).readFile('/data/a')).toEqual(before);
  });

  test('with syncs ignored nothing new survives', () => {
    const { disk, file } = diskWithFile();
    disk.ignoreDataSync = true;
    file.write(new Uint8Array(10), 0);
    file.dataSync();
    expect(disk.imageAfterCrash().readFile('/data/a').length).toBe(0);
    const direct = disk.open('/data/b', { access: 'write', create: true, direct: true });
    disk.ignoreDirectorySync = true;
    disk.syncDirectory('/data');
    expect(disk.imageAfterCrash().list('/data')).toEqual(['a']);
    disk.ignoreDirectorySync = false;
    disk.syncDirectory('/data');
    direct.write(new Uint8Array(4096), 0);
    expect(disk.imageAfterCrash().readFile('/data/b').length).toBe(0);
  });
});

describe('MemoryDisk faults', () => {
  test('the nth call of a kind fails once', () => {
    const { disk, file } = diskWithFile();
    disk.fail({ operation: 'write', nth: 2, code: 'ENOSPC', partialBytes: 3 });
    file.write(new Uint8Array(5).fill(1), 0);
    expect(() => file.write(new Uint8Array(5).fill(2), 0)).toThrow(code('ENOSPC'));
    expect([...disk.readFile('/data/a')]).toEqual([2, 2, 2, 1, 1]);
    file.write(new Uint8Array(5).fill(3), 0);
    expect([...disk.readFile('/data/a')]).toEqual([3, 3, 3, 3, 3]);
  });

  test('can be bound to a path and be lasting', () => {
    const { disk } = diskWithFile();
    disk.fail({ operation: 'open', nth: 1, code: 'EIO', pathIncludes: 'b', sticky: true });
    disk.open('/data/a', { access: 'read' }).close();
    expect(() => disk.open('/data/b', { access: 'read' })).toThrow(code('EIO'));
    expect(() => disk.open('/data/b', { access: 'read' })).toThrow(code('EIO'));
    disk.clearFaults();
    expect(() => disk.open('/data/b', { access: 'read' })).toThrow(code('ENOENT'));
  });

  test('known bug 13: a failed fsync is retried and believed', () => {
    const { disk, file } = diskWithFile();
    file.write(new Uint8Array(10).fill(1), 0);
    disk.fail({ operation: 'dataSync', nth: 1, code: 'EIO' });
    expect(() => file.dataSync()).toThrow(code('EIO'));
    // The next sync reports success, reads show the bytes, and yet they are gone.
    file.dataSync();
    expect(disk.readFile('/data/a')).toEqual(new Uint8Array(10).fill(1));
    expect(disk.imageAfterKill().readFile('/data/a')).toEqual(new Uint8Array(10).fill(1));
    expect(disk.imageAfterCrash('keep').readFile('/data/a')).toEqual(new Uint8Array(10));
    expect(
      disk
        .crash()
        .readFile('/data/a')
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test('a full disk writes what has room and fails', () => {
    const { disk, file } = diskWithFile({ capacityBytes: 8192 });
    file.write(new Uint8Array(8192).fill(1), 0);
    file.write(new Uint8Array(8192).fill(2), 0);
    expect(() => file.write(new Uint8Array(4096), 8192)).toThrow(code('ENOSPC'));
    const other = disk.open('/data/b', { access: 'write', create: true });
    expect(() => other.write(new Uint8Array(1), 0)).toThrow(code('ENOSPC'));
    disk.remove('/data/a');
    other.write(new Uint8Array(1), 0);
  });

  test('a hole takes no room, and what is written into it does', () => {
    const { disk, file } = diskWithFile({ capacityBytes: 8192 });
    file.extend(1_000_000);
    file.write(new Uint8Array(4096).fill(1), 500_000 - (500_000 % 4096));
    expect(disk.freeBytes()).toBe(4096);
    file.write(new Uint8Array(4096).fill(2), 0);
    file.write(new Uint8Array(4096).fill(3), 0);
    expect(() => file.write(new Uint8Array(4096), 4096)).toThrow(code('ENOSPC'));
    file.dataSync();
    expect(disk.crash().usedBytes()).toBe(8192);
  });

  test('damage changes durable bytes', () => {
    const { disk, file } = diskWithFile();
    file.write(new Uint8Array(100), 0);
    file.dataSync();
    disk.damage('/data/a', 50, (found) => {
      found[0]! ^= 0xff;
    });
    expect(disk.crash().readFile('/data/a')[50]).toBe(255);
  });
});
