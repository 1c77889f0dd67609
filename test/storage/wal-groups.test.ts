import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import {
  BATCH,
  BLOCK,
  ENTRY_KIND,
  HARD_STATE,
  ITEM,
  SECTOR_BYTES,
} from '../../dist/wasm/layout.js';
import { MIB, openLog, segmentFile, type TestLog, texts, vote } from './wal-support.js';

const groupsFrom = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, at) => first + at);

/** Fills the ring with entries that are pinned, until no more are taken. */
async function fillRing(log: TestLog): Promise<void> {
  await log.durable(log.append(texts(4, 'p'.repeat(20_000))));
  log.store.read(0, 1, 4, MIB);
  await expect(async () => {
    for (;;) await log.durable(log.append(texts(4, 'q'.repeat(20_000))));
  }).rejects.toMatchObject({ code: 'KEELSON_OVERLOADED' });
}

describe('a log that 1,000 groups share', () => {
  const GROUPS = groupsFrom(0, 1_000);

  it('makes durable with one sync what all of them have appended in a turn', async () => {
    const disk = new MemoryDisk({ allowDirect: false });
    const log = await openLog(disk);
    await log.durable(log.append(texts(1), 1, 0, 1));
    const calls = disk.recordCalls();
    // A segment is written through the name that it had when it was made; zeros for the next one are not counted.
    const syncs = (): number =>
      calls.filter(({ operation, path }) => operation === 'dataSync' && path.includes('next'))
        .length;
    for (const [round, groups] of [GROUPS.slice(0, 500), GROUPS.slice(500)].entries()) {
      const before = syncs();
      const ios = groups.map((group) => log.append(texts(1), 1, group, group === 0 ? 2 : 1));
      for (const [at, io] of ios.entries()) await log.durable(io, groups[at]);
      expect(syncs() - before, `round ${round}`).toBe(1);
    }
    const before = syncs();
    const ios = GROUPS.map((group) => log.saveVote(vote(2, 3, false), group));
    for (const [group, io] of ios.entries()) await log.durable(io, group);
    expect(syncs() - before).toBe(1);
  });

  it('keeps them apart, over segment ends and after a crash, and moves what the idle ones keep', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const ios = GROUPS.map((group) => log.append(texts(3, `of-${group}`), 1, group, 1));
    for (const [group, io] of ios.entries()) await log.durable(io, group);
    let last = 3;
    while (disk.exists(segmentFile(1))) {
      const io = await log.appendInTime(texts(4, 'x'.repeat(30_000)), 1, 0, last + 1);
      last += 4;
      await log.durable(io, 0);
      log.purge(last);
    }
    expect(log.store.metrics().movedBytes).toBeGreaterThan(0);
    const found = await openLog(disk.crash());
    for (const group of GROUPS.slice(1)) {
      expect(await found.contents(group)).toEqual([1, 2, 3].map((at) => `of-${group}-${at}`));
    }
    expect(found.store.recovered(0)).toMatchObject({ lastIndex: last });
  });
});

describe('a log that several groups share', () => {
  it('has room for votes that come between the staging and the appending of entries', async () => {
    const toSectorEnd = SECTOR_BYTES - BATCH.bytes - BLOCK.bytes - ITEM.bytes;
    for (const others of [1, 2, 63, 64, 65]) {
      for (const spare of [0, 1, 2]) {
        const disk = new MemoryDisk();
        const log = await openLog(disk);
        const payload = new Uint8Array(toSectorEnd - (1 + spare) * HARD_STATE.bytes).fill(5);
        const staged = log.store.stage(0, {
          firstIndex: 1,
          term: 1,
          time: 1,
          kind: ENTRY_KIND.application,
          payloads: [payload],
          count: 1,
        });
        for (const group of groupsFrom(1, others)) log.saveVote(vote(group, 2, false), group);
        const io = log.nextIo(1, 1);
        log.store.append(0, staged, 1, io);
        await log.durable(io);
        const found = await openLog(disk.crash());
        const context = `${others} votes, room for ${spare} of them`;
        expect(found.lastIndex, context).toBe(1);
        for (const group of groupsFrom(1, others)) {
          expect(found.store.recovered(group).vote, context).toEqual(vote(group, 2, false));
        }
      }
    }
  });

  it('takes the votes of many groups however full it is, and closes in order', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    await fillRing(log);
    const groups = groupsFrom(1, 300);
    for (const group of groups) {
      const io = log.saveVote(vote(7, 2, false), group);
      if (group % 100 === 0) await log.durable(io, group);
    }
    await log.store.close();
    expect(log.failure).toBeUndefined();
    const found = await openLog(disk, { recovery: 'strict' });
    for (const group of groups)
      expect(found.store.recovered(group).vote).toEqual(vote(7, 2, false));
    expect(found.lastIndex).toBe(log.lastIndex);
  });
});
