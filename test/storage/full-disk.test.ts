import { describe, expect, it, vi } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { MIB, openLog, type TestLog, texts, vote } from './wal-support.js';

const full = expect.objectContaining({ code: 'KEELSON_STORAGE_FULL', outcome: 'rejected' });

const KINDS = { application: 2, blank: 1 };

/** Writes until no more is taken. */
async function fill(log: TestLog): Promise<void> {
  for (let entries = 0; entries < 2_000; entries++) {
    try {
      await log.durable(log.append(texts(1, 'z'.repeat(10_000))));
    } catch (error) {
      expect(error).toEqual(full);
      expect(log.failure).toBeUndefined();
      return;
    }
  }
  throw new Error('the disk did not fill');
}

const sizes = [1.25, 1.5, 2, 2.25, 2.75, 4];

describe.each(sizes)('a disk with room for %s segments that the log has filled', (segments) => {
  const capacityBytes = segments * MIB;

  it('takes votes, truncations, purges and the entry that opens a term', async () => {
    const disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    await fill(log);
    const { lastIndex } = log;
    expect(lastIndex * 10_000).toBeGreaterThan(MIB / 2);
    for (let term = 2; term < 30; term++) await log.durable(log.saveVote(vote(term, 2, false)));
    await log.durable(log.append([new Uint8Array(0)], 30, 0, lastIndex + 1, KINDS.blank));
    await log.durable(log.truncateAfter(lastIndex, vote(31)));
    const bytes = texts(1)[0]!;
    expect(() => log.store.receive(0, lastIndex + 1, [bytes])).toThrowError(full);
    const found = await openLog(disk.crash());
    expect(found.lastIndex).toBe(lastIndex);
    expect(found.store.recovered(0).vote).toEqual(vote(31));
  });

  it('known bug 50: is opened again, however often, and takes what a start has given back', async () => {
    let disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    await fill(log);
    let expected = await log.contents();
    for (let start = 0; start < 20; start++) {
      disk = start % 2 === 0 ? disk.crash() : disk.kill();
      const found = await openLog(disk);
      expect(await found.contents()).toEqual(expected);
      if (disk.freeBytes() >= MIB / 2) {
        await fill(found);
        expected = await found.contents();
      }
      expect(() => found.append(texts(1, 'z'.repeat(10_000)))).toThrowError(full);
      await found.durable(found.saveVote(vote(start + 2)));
      if (start % 5 === 4) await found.store.close();
    }
  });

  it('takes entries again, and tells so, when there is room', async () => {
    const disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    await fill(log);
    expect(log.writableCalls).toBe(0);
    disk.capacityBytes += 2 * MIB;
    await vi.waitFor(() => expect(log.writableCalls).toBe(1), 10_000);
    await log.durable(log.append(texts(1)));
  });
});

it('a log that has filled its disk and is purged gives up segments by itself, and goes on', async () => {
  const disk = new MemoryDisk({ capacityBytes: 4 * MIB });
  const log = await openLog(disk);
  await fill(log);
  log.purge(log.lastIndex - 1);
  await vi.waitFor(() => expect(log.writableCalls).toBe(1), 10_000);
  await log.durable(log.append(texts(1)));
  expect((await openLog(disk.crash())).lastIndex).toBe(log.lastIndex);
});
