import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import type { StagedEntries } from '../../dist/storage/log-store.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { walMemoryBytes } from '../../dist/storage/wal-memory.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MIB, openLog, type TestLog, vote } from './wal-support.js';

const EMPTY = new Uint8Array(0);
const limits = {
  segmentBytes: 2 * MIB,
  ringBytes: MIB,
  maxBatchBytes: 256 * 1024,
  maxBatchEntries: 4096,
  maxQueuedBatches: 2,
  maxIndexBytes: 512 * 1024,
};

/** With not a byte more than the store says that it needs. */
function open(disk: MemoryDisk, maxIndexBytes = limits.maxIndexBytes): Promise<TestLog> {
  const options = { ...limits, maxIndexBytes };
  const heap = SharedHeap.create({ maximumBytes: walMemoryBytes(options) });
  return openLog(disk, { ...options, heap });
}

const empties = (count: number): Uint8Array[] => new Array(count).fill(EMPTY);

/** Appends blocks of `count` entries until the store refuses one; returns the refusal. */
async function fill(log: TestLog, count: number, nextTerm = () => 1): Promise<unknown> {
  for (let round = 0; round < 100_000; round++) {
    try {
      const io = log.append(empties(count), nextTerm());
      if (round % 16 === 0) await log.durable(io);
    } catch (error) {
      if ((error as { code: string }).code !== 'KEELSON_OVERLOADED') return error;
      await log.durable(log.saveVote(vote(1)));
    }
  }
  throw new Error('it was never full');
}

/** What a follower would do with entries of a leader's log. */
async function receive(from: TestLog, to: TestLog, first: number, last: number): Promise<void> {
  for (let next = first; next <= last; ) {
    const lease = await from.store.read(0, next, last, 200_000);
    const staged: StagedEntries = to.store.receive(0, next, lease.parts);
    const { term } = staged.termRuns.at(-1)!;
    const io = to.nextIo(term, staged.lastIndex);
    to.store.append(0, staged, next, io);
    to.lastIndex = staged.lastIndex;
    next = staged.lastIndex + 1;
    lease.release();
    await to.durable(io);
  }
}

const full = expect.objectContaining({ code: 'KEELSON_STORAGE_FULL', outcome: 'rejected' });

describe('a log whose index is full', () => {
  it('refuses proposals, changes nothing, and goes on with all else', async () => {
    const log = await open(new MemoryDisk());
    expect(await fill(log, 1000)).toEqual(full);
    expect(log.failure).toBeUndefined();
    const last = log.lastIndex;
    expect(last).toBeGreaterThan(10_000);
    expect(() => log.append(empties(4096), 1)).toThrowError(full);
    await log.durable(log.saveVote(vote(2)));
    await log.durable(log.append([EMPTY], 2, 0, last + 1, ENTRY_KIND.blank));
    const lease = await log.store.read(0, 1, last, MIB);
    expect(lease.firstIndex).toBe(1);
    lease.release();
    await log.durable(log.truncateAfter(last - 5000, vote(2)));
    await log.durable(log.append(empties(1000), 2));
    expect(log.failure).toBeUndefined();
  });

  it('is opened again with the same limit, and has lost nothing', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    await fill(log, 1000);
    await log.durable(log.append([EMPTY], 2, 0, log.lastIndex + 1, ENTRY_KIND.blank));
    const last = log.lastIndex;
    await log.store.close();
    const again = await open(disk);
    expect(again.store.recovered(0)).toMatchObject({ lastIndex: last, vote: vote(2) });
    expect(await again.contents(0, 1, 200_000)).toHaveLength(last);
    expect(() => again.append(empties(4096), 2)).toThrowError(full);
  });

  it('can be opened with a larger limit, and not with one that it has outgrown', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk, 2 * MIB);
    await fill(log, 1000);
    const last = log.lastIndex;
    await log.durable(log.saveVote(vote(1, 2)));
    const crashed = disk.crash();
    await expect(open(crashed, 128 * 1024)).rejects.toMatchObject({
      code: 'KEELSON_INVALID_CONFIG',
      message: expect.stringContaining('storage.maxIndexBytes'),
    });
    const larger = await open(crashed.imageAfterCrash(), 3 * MIB);
    expect(larger.lastIndex).toBe(last);
    await larger.durable(larger.append(empties(4096), 1));
  });

  it('refuses a limit that it has outgrown by however little, names it, and writes nothing', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk, MIB);
    await fill(log, 1000);
    await log.store.close();
    const files = disk.list('/data/wal');
    let refused = 0;
    for (let maxIndexBytes = 64 * 1024; maxIndexBytes < MIB; maxIndexBytes += 64 * 1024) {
      const image = disk.imageAfterCrash();
      try {
        await open(image, maxIndexBytes);
      } catch (error) {
        refused++;
        expect(error).toMatchObject({
          code: 'KEELSON_INVALID_CONFIG',
          message: expect.stringContaining('storage.maxIndexBytes'),
        });
        expect(image.list('/data/wal')).toEqual(files);
      }
    }
    expect(refused).toBeGreaterThan(1);
  });

  it('takes from a leader whatever a leader with the same limit admits, and no more', async () => {
    const leader = await open(new MemoryDisk());
    await fill(leader, 100);
    const last = leader.lastIndex;
    for (let term = 2; term < 200; term++) {
      await leader.durable(leader.append([EMPTY], term, 0, undefined, ENTRY_KIND.blank));
    }
    const follower = await open(new MemoryDisk());
    await receive(leader, follower, 1, leader.lastIndex);
    expect(follower.lastIndex).toBe(leader.lastIndex);
    const small = await open(new MemoryDisk(), 128 * 1024);
    await expect(receive(leader, small, 1, last)).rejects.toEqual(full);
    expect(small.failure).toBeUndefined();
    await small.durable(small.saveVote(vote(500)));
  });

  it('may be full of terms instead of entries', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    let term = 1;
    expect(await fill(log, 1, () => term++)).toEqual(full);
    expect(log.lastIndex).toBeLessThan(5000);
    const again = await open(disk.crash());
    expect(again.store.recovered(0).termRuns).toHaveLength(again.lastIndex);
  });

  it('counts what was cut off until the index has gone through it', async () => {
    const log = await open(new MemoryDisk());
    for (const first of [1, 4097, 8193]) log.append(empties(4096), 1, 0, first);
    log.truncateAfter(10);
    const behindTheCut = log.append(empties(1), 1, 0, 11);
    expect(() => log.append(empties(4096), 1, 1, 1)).toThrowError(full);
    await log.durable(behindTheCut);
    await log.durable(log.append(empties(1), 1, 0, 12));
    await log.durable(log.append(empties(4096), 1, 1, 1), 1);
  });

  it('counts what is staged until it is appended, whatever the log gives up meanwhile', async () => {
    const log = await open(new MemoryDisk());
    const stage = (group: number, firstIndex: number): StagedEntries =>
      log.store.stage(group, {
        firstIndex,
        term: 1,
        time: 1,
        kind: ENTRY_KIND.application,
        payloads: empties(4096),
        count: 4096,
      });
    await log.durable(log.append(empties(4096)));
    await log.durable(log.append(empties(4096)));
    const staged = stage(0, 8193);
    expect(() => stage(1, 1)).toThrowError(full);
    log.purge(1);
    await log.durable(log.saveVote(vote(2)));
    expect(() => stage(1, 1)).toThrowError(full);
    const io = log.nextIo(2, 12_288);
    log.store.append(0, staged, 8193, io);
    await log.durable(io);
    log.lastIndex = 12_288;
    expect(() => stage(1, 1)).toThrowError(full);
    log.purge(12_288);
    await log.durable(log.saveVote(vote(3)));
    stage(1, 1);
  });

  it('fits its memory after any mixture of terms, cuts and crashes', async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const random = new SeededRandom(seed);
      let disk = new MemoryDisk();
      let log = await open(disk);
      let term = 1;
      let refusals = 0;
      for (let step = 0; step < 400; step++) {
        const context = `seed ${seed} step ${step}`;
        if (random.chance(0.02)) {
          disk = disk.crash();
          log = await open(disk);
          continue;
        }
        if (random.chance(0.3)) term++;
        const back = random.chance(0.1) ? random.integer(1 + Math.floor(log.lastIndex / 4)) : 0;
        const first = log.lastIndex + 1 - back;
        try {
          const kind = random.chance(0.1) ? ENTRY_KIND.blank : ENTRY_KIND.application;
          const io = log.append(empties(1 + random.integer(2000)), term, 0, first, kind);
          if (random.chance(0.7)) await log.durable(io);
        } catch (error) {
          if ((error as { code: string }).code === 'KEELSON_STORAGE_FULL') refusals++;
          else await log.durable(log.saveVote(vote(term)));
        }
        expect(log.failure, context).toBeUndefined();
      }
      expect(refusals, `seed ${seed}`).toBeGreaterThan(10);
      const { lastIndex } = log;
      await log.store.close();
      expect((await open(disk)).lastIndex, `seed ${seed}`).toBe(lastIndex);
    }
  });
});
