import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { SeededRandom } from '../../dist/base/random.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { StorageTaskRunner } from '../../dist/storage/storage-tasks.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { intercepted, MIB, openLog, segmentFile, type TestLog, texts } from './wal-support.js';

const WAL = '/data/wal';
const ENTRY_BYTES = 20_000;

const filled = (count: number, name: string): Uint8Array[] =>
  texts(count, `${'x'.repeat(ENTRY_BYTES)}-${name}`);

const filesOf = (disk: MemoryDisk): string[] =>
  disk.list(WAL).filter((name) => !name.endsWith('.tmp'));

const segmentsOf = (disk: MemoryDisk): string[] =>
  filesOf(disk).filter((name) => name.endsWith('.wal'));

const kept = (log: TestLog): Promise<string[]> => log.contents(0, log.purged.index + 1);

/** Appends and purges until the log has come to so many segments; keeps the last 20 entries. */
async function run(disk: MemoryDisk, log: TestLog, segments: number): Promise<void> {
  while (!disk.exists(segmentFile(segments))) {
    await log.writeNext(filled(4, `${log.lastIndex}`));
    if (log.lastIndex > 20) log.purge(log.lastIndex - 20);
  }
  // What was given up goes from the disk behind the log.
  await log.writeNext(filled(1, 'last'));
}

describe('segments that nothing needs any more', () => {
  it('are used again: a log that is purged takes up a few files, however long it runs', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    let most = 0;
    for (let segments = 2; segments <= 40; segments++) {
      await run(disk, log, segments);
      most = Math.max(most, filesOf(disk).length);
    }
    expect(most).toBeLessThanOrEqual(5);
    const before = await kept(log);
    expect(before).toHaveLength(21);
    const after = await openLog(disk.crash());
    expect(after.purged.index).toBe(log.purged.index);
    expect(await kept(after)).toEqual(before);
  });

  it('known bug 51: a recycled segment gives up nothing of its earlier use, wherever it is torn', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    await run(disk, log, 8);
    const expected = await kept(log);
    const image = disk.crash();
    const newest = segmentsOf(image).at(-1)!;
    // Everything that this use of the file wrote is lost behind its checkpoint.
    const random = new SeededRandom(51);
    for (let round = 0; round < 20; round++) {
      const copy = image.imageAfterCrash();
      const after = await openLog(copy);
      expect(await kept(after), `${newest}, round ${round}`).toEqual(expected);
      await after.writeNext(filled(1 + random.integer(3), `round ${round}`));
      const written = await kept(after);
      const again = await openLog(copy.crash());
      expect(await kept(again)).toEqual(written);
    }
  });

  it('may hold whatever they held behind an orderly close, in every mode', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    await run(disk, log, 8);
    const expected = await kept(log);
    await log.store.close();
    const after = await openLog(disk, { recovery: 'strict' });
    expect(await kept(after)).toEqual(expected);
  });

  it('stay while the newest header still names them, and are refused when one of them is lost', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    while (!disk.exists(segmentFile(4))) await log.writeNext(filled(4, 'kept'));
    log.purge(log.lastIndex);
    await log.writeNext(texts(1, 'behind'));
    expect(segmentsOf(disk)).toHaveLength(4);
    const after = disk.crash();
    after.remove(`${WAL}/${segmentsOf(after)[1]}`);
    await expect(openLog(after)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });
  });

  it('that a crash brought back in front of the log are given up, whatever is in them', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const first = disk.readFile(segmentFile(1));
    await run(disk, log, 5);
    expect(disk.exists(segmentFile(1))).toBe(false);
    const expected = await kept(log);
    const image = disk.crash();
    for (const bytes of [first, new Uint8Array(MIB).fill(7)]) {
      const copy = image.imageAfterCrash();
      copy.open(segmentFile(1), { access: 'write', create: true }).write(bytes, 0);
      const after = await openLog(copy);
      expect(await kept(after)).toEqual(expected);
      while (copy.exists(segmentFile(1))) await after.writeNext(texts(1));
    }
  });

  it('are kept for a reader until it has read them', async () => {
    const disk = new MemoryDisk();
    const held: (() => void)[] = [];
    const executor = intercepted(disk, async (task, proceed) => {
      if (task.type === 'read' && held.length === 0) {
        await new Promise<void>((resolve) => held.push(resolve));
      }
      return proceed();
    });
    const log = await openLog(disk, { executor });
    while (!disk.exists(segmentFile(4))) await log.writeNext(filled(4, 'read'));
    const reading = log.store.read(0, 1, 3, MIB);
    await run(disk, log, 8);
    expect(disk.exists(segmentFile(1))).toBe(true);
    held[0]!();
    const lease = await reading;
    expect(lease.firstIndex).toBe(1);
    lease.release();
    await run(disk, log, 10);
    expect(segmentsOf(disk).length).toBeLessThanOrEqual(3);
  });

  it('are given up later when it failed the first time, even half-way', async () => {
    for (const halfWay of [false, true]) {
      const disk = new MemoryDisk();
      let failures = 0;
      const executor = intercepted(disk, async (task, proceed) => {
        if (task.type !== 'retire' || failures > 0) return proceed();
        failures++;
        if (halfWay) await proceed();
        throw new KeelsonError('KEELSON_STORAGE_FAILED', 'EIO');
      });
      const log = await openLog(disk, { executor });
      await run(disk, log, 8);
      expect(failures).toBe(1);
      expect(segmentsOf(disk).length, `half-way: ${halfWay}`).toBeLessThanOrEqual(3);
      expect(log.store.metrics().retiredSegments).toBeGreaterThanOrEqual(5);
    }
  });

  it('become spare files only in full length, with most of their blocks, and as many as are wanted', () => {
    const disk = new MemoryDisk();
    const heap = SharedHeap.create({ maximumBytes: MIB });
    const runner = new StorageTaskRunner(heap, disk);
    makeDirectories(disk, WAL);
    const base = { type: 'retire', directory: WAL, lane: 0, maxSpares: 2 } as const;
    const files = [
      { bytes: 8192, written: 8192 },
      { bytes: 16384, written: 4096 },
      { bytes: 16384, written: 12288 },
      { bytes: 16384, written: 16384 },
      { bytes: 16384, written: 16384 },
    ];
    const counts = files.map(({ bytes, written }, at) => {
      const file = disk.open(segmentFile(at + 1), { access: 'write', create: true });
      file.extend(bytes);
      file.write(new Uint8Array(written), 0);
      return runner.run({ ...base, sequence: at + 1, segmentBytes: 16384 });
    });
    expect(counts).toEqual([0, 0, 1, 2, 2]);
    expect(disk.list(WAL)).toEqual(['lane-0-spare-0000000003', 'lane-0-spare-0000000004']);
  });

  it('leave few spare files behind when most of a large log is purged', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    while (!disk.exists(segmentFile(20))) await log.writeNext(filled(4, 'large'));
    log.purge(log.lastIndex - 1);
    await run(disk, log, 22);
    await run(disk, log, 24);
    expect(filesOf(disk).length).toBeLessThanOrEqual(6);
  });
});
