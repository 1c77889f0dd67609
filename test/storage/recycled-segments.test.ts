import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { MIB, openLog, segmentFile, type TestLog, texts } from './wal-support.js';

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
    await log.durable(log.append(filled(4, `${log.lastIndex}`)));
    if (log.lastIndex > 20) log.purge(log.lastIndex - 20);
  }
  // What was given up goes from the disk behind the log.
  await log.durable(log.append(filled(1, 'last')));
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
    expect(await kept(log)).toHaveLength(21);
    const after = await openLog(disk.crash());
    expect(after.purged.index).toBe(log.purged.index);
    expect(await kept(after)).toEqual(await kept(log));
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
      await after.durable(after.append(filled(1 + random.integer(3), `round ${round}`)));
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
    while (!disk.exists(segmentFile(4))) await log.durable(log.append(filled(4, 'kept')));
    log.purge(log.lastIndex);
    await log.durable(log.append(texts(1, 'behind')));
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
      while (copy.exists(segmentFile(1))) await after.durable(after.append(texts(1)));
    }
  });

  it('are kept for a reader until it has read them', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, { ringBytes: 2 * MIB });
    while (!disk.exists(segmentFile(4))) await log.durable(log.append(filled(4, 'read')));
    const reading = log.store.read(0, 1, 3, MIB);
    log.purge(log.lastIndex - 1);
    await run(disk, log, 6);
    const lease = await reading;
    expect(lease.firstIndex).toBe(1);
    lease.release();
    await run(disk, log, 8);
    expect(disk.exists(segmentFile(1))).toBe(false);
  });
});
