import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { openLog, texts, vote } from './wal-support.js';

describe('the write-ahead log', () => {
  it('gives back after a reopen what it had reported as durable', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    await log.durable(log.append(texts(10)));
    expect(await log.contents()).toHaveLength(10);
    const after = await openLog(disk.crash());
    expect(after.store.recovered(0)).toMatchObject({
      vote: vote(1),
      lastIndex: 10,
      termRuns: [{ firstIndex: 1, term: 1 }],
    });
    expect(after.store.lastTime(0)).toBe(1_001);
    expect(await after.contents()).toEqual(texts(10).map((text) => new TextDecoder().decode(text)));
    await after.store.close();
  });
});
