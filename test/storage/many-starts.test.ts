import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { openLog, texts } from './wal-support.js';

const KIB = 1024;
const WAL = '/data/wal';
const SMALL = { segmentBytes: 256 * KIB, ringBytes: 256 * KIB, maxBatchBytes: 32 * KIB };
/** Two that are written or being left, and two spare files; what is live here is small. */
const FILES = 4;

/** One group keeps what it has, the other gives up what it writes. */
async function begin(disk: MemoryDisk): Promise<void> {
  const log = await openLog(disk, SMALL);
  await log.durable(log.append(texts(5, 'kept'), 1, 1, 1), 1);
}

function usedBytes(disk: MemoryDisk): number {
  return disk.list(WAL).reduce((sum, name) => sum + disk.readFile(`${WAL}/${name}`).length, 0);
}

describe('a node that is started again and again', () => {
  it.each([
    ['loses power', (disk: MemoryDisk) => disk.crash()],
    ['is killed', (disk: MemoryDisk) => disk.kill()],
  ])('and %s takes up no more of the disk, and has all it had', async (_name, end) => {
    let disk = new MemoryDisk();
    await begin(disk);
    let most = 0;
    for (let start = 0; start < 100; start++) {
      disk = end(disk);
      const log = await openLog(disk, SMALL);
      // It lives long enough for some writes, or for none.
      for (let write = 0; write < start % 5; write++) {
        await log.durable(log.append(texts(1, `run ${start}`)));
        log.purge(log.lastIndex);
      }
      most = Math.max(most, usedBytes(disk));
      expect(log.store.recovered(1).lastIndex).toBe(5);
    }
    expect(most).toBeLessThanOrEqual(FILES * SMALL.segmentBytes);
    const log = await openLog(end(disk), SMALL);
    expect(await log.contents(1)).toEqual(['kept-1', 'kept-2', 'kept-3', 'kept-4', 'kept-5']);
  });

  it('and closed in order each time makes no files', async () => {
    const disk = new MemoryDisk();
    await begin(disk);
    let files: string[] | undefined;
    for (let start = 0; start < 20; start++) {
      const log = await openLog(disk, SMALL);
      await log.store.close();
      // The first one leaves a segment behind.
      if (start === 1) files = disk.list(WAL);
      if (start > 1) expect(disk.list(WAL)).toEqual(files);
    }
  });

  it('moves nothing for the room that it has given back', async () => {
    let disk = new MemoryDisk();
    let moved = 0;
    for (let start = 0; start < 12; start++) {
      const log = await openLog(disk, SMALL);
      for (let write = 0; write < 4; write++) {
        await log.durable(log.append(texts(1, 'z'.repeat(15_000))));
      }
      moved += log.store.metrics().movedBytes;
      disk = disk.crash();
    }
    expect(moved).toBe(0);
    expect(usedBytes(disk)).toBeLessThan(2 * 12 * 4 * 15_000);
  });
});
