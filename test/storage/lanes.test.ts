/** A log of several lanes: each group is in one of them, and they live and fail together. */
import { describe, expect, it } from 'vitest';
import { laneOfGroup } from '../../dist/storage/lane-of-group.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import {
  MIB,
  type OpenOptions,
  openLog,
  segmentFile,
  type TestLog,
  texts,
  vote,
} from './wal-support.js';

/** Two groups of each of two lanes: 0 and 2, 1 and 3. */
const GROUPS = [0, 1, 2, 3];
const LANES = 2;

const open = (disk: MemoryDisk, options: OpenOptions = {}): Promise<TestLog> =>
  openLog(disk, { lanes: LANES, ...options });

/** Entries of all groups, durable. */
async function writeAll(log: TestLog, count = 3): Promise<void> {
  const ios = GROUPS.map((group) => log.append(texts(count, `of-${group}`), 1, group, 1));
  for (const [group, io] of ios.entries()) await log.durable(io, group);
}

const expected = (group: number, count = 3): string[] =>
  Array.from({ length: count }, (_, at) => `of-${group}-${at + 1}`);

describe('the lane of a group', () => {
  it('is the same for ever: a directory depends on it', () => {
    const groups = [0, 1, 2, 3, 4, 5, 6, 7, 8, 70_000, 2 ** 32 - 1];
    const of = (lanes: number): number[] => groups.map((group) => laneOfGroup(group, lanes));
    expect(of(1)).toEqual(groups.map(() => 0));
    expect(of(2)).toEqual([0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0]);
    expect(of(3)).toEqual([0, 1, 0, 2, 1, 0, 2, 0, 2, 1, 1]);
    expect(of(4)).toEqual([0, 2, 0, 3, 1, 0, 2, 1, 3, 1, 1]);
  });

  it.each([2, 3, 4])('spreads groups over %i lanes, wherever their ids begin', (lanes) => {
    for (const first of [0, 1_000, 2 ** 31, 2 ** 32 - 1_000]) {
      const counts = new Array<number>(lanes).fill(0);
      for (let group = first; group < first + 1_000; group++) counts[laneOfGroup(group, lanes)]!++;
      expect(Math.min(...counts), `from ${first}`).toBeGreaterThan(900 / lanes);
    }
  });
});

describe('a log of two lanes', () => {
  it('writes each group into the files of its lane, and finds all after a crash', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    await writeAll(log);
    await log.durable(log.saveVote(vote(7, 2, false), 3), 3);
    for (const group of GROUPS) {
      const text = `of-${group}-1`;
      const holds = [0, 1].map((lane) =>
        Buffer.from(disk.readFile(segmentFile(1, lane))).includes(text),
      );
      expect(holds, text).toEqual([group % 2 === 0, group % 2 === 1]);
    }
    const found = await open(disk.crash());
    for (const group of GROUPS) expect(await found.contents(group)).toEqual(expected(group));
    expect(found.store.recovered(3).vote).toEqual(vote(7, 2, false));
    expect(found.store.recovered(0).vote).toEqual(vote(1));
  });

  it('tells sums of both', async () => {
    const log = await open(new MemoryDisk());
    await writeAll(log, 5);
    const { ringBytes, flushedEntries, flushes, indexBytes } = log.store.metrics();
    expect([ringBytes, flushedEntries, flushes]).toEqual([LANES * MIB, 20, 2]);
    const one = await openLog(new MemoryDisk());
    await writeAll(one, 5);
    expect(one.store.metrics()).toMatchObject({ ringBytes: MIB, flushedEntries: 20, flushes: 1 });
    expect(indexBytes).toBe(one.store.metrics().indexBytes);
  });

  it('known bug 54: a batch that begins a segment is durable as a whole, in either lane', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    const written = new Map<number, string[]>(GROUPS.map((group) => [group, []]));
    for (let round = 0; round < 40; round++) {
      // One batch of each lane, with entries of two groups.
      const payloads = (group: number): Uint8Array[] =>
        texts(2, `${'x'.repeat(20_000)}-${group}-${round}`);
      const ios = GROUPS.map((group) => log.append(payloads(group), 1, group, round * 2 + 1));
      for (const [group, io] of ios.entries()) await log.durable(io, group);
      for (const group of GROUPS) {
        written.get(group)!.push(...payloads(group).map((bytes) => Buffer.from(bytes).toString()));
      }
      if (round % 5 !== 0) continue;
      const found = await open(disk.imageAfterCrash('random', round));
      for (const group of GROUPS) {
        expect(await found.contents(group), `round ${round}`).toEqual(written.get(group));
      }
    }
    for (const lane of [0, 1]) expect(disk.exists(segmentFile(3, lane))).toBe(true);
  });

  it.each([0, 1])('is poisoned as a whole by the failure of lane %i', async (lane) => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    await writeAll(log);
    disk.fail({ operation: 'write', nth: 1, code: 'EIO', pathIncludes: `lane-${lane}-` });
    const [failing, other] = lane === 0 ? [0, 1] : [1, 0];
    const before = log.flushedIos.length;
    log.append(texts(1), 1, failing, 4);
    const error = await log.nextFailure();
    expect(error).toMatchObject({ code: 'KEELSON_STORAGE_FAILED', outcome: 'unknown' });
    expect(() => log.append(texts(1), 1, other, 4)).toThrow(
      expect.objectContaining({ code: 'KEELSON_STORAGE_FAILED' }),
    );
    log.saveVote(vote(9), other);
    await log.store.close();
    expect(log.flushedIos).toHaveLength(before);
    const found = await open(disk.crash());
    for (const group of GROUPS) expect(await found.contents(group)).toEqual(expected(group));
  });

  it('acknowledges nothing of a lane behind the failure of the other', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    await writeAll(log);
    const before = log.flushedIos.length;
    disk.fail({ operation: 'write', nth: 1, code: 'EIO', pathIncludes: 'lane-0-' });
    // Both batches go to the disk, the failing one first.
    log.append(texts(1), 1, 0, 4);
    log.append(texts(1), 1, 1, 4);
    await log.nextFailure();
    await log.store.close();
    expect(log.flushedIos).toHaveLength(before);
  });

  it('closes both in order: neither has a batch that is not proven', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    await writeAll(log);
    await log.store.close();
    for (const lane of [0, 1]) {
      const image = disk.imageAfterKill();
      const bytes = image.readFile(segmentFile(1, lane));
      const position = Buffer.from(bytes).lastIndexOf('of-');
      image.damage(segmentFile(1, lane), position, (byte) => byte.fill(0));
      await expect(open(image), `lane ${lane}`).rejects.toMatchObject({
        code: 'KEELSON_STORAGE_CORRUPT',
        details: { file: segmentFile(1, lane) },
      });
    }
  });

  it('that is damaged in one lane is read only as a whole, and says nothing is lost of the other', async () => {
    const disk = new MemoryDisk();
    const log = await open(disk);
    await writeAll(log);
    await log.store.close();
    const file = segmentFile(1, 1);
    const position = Buffer.from(disk.readFile(file)).indexOf('of-3-2');
    disk.damage(file, position, (byte) => byte.fill(0));
    const image = disk.kill();
    const calls = image.recordCalls();
    const found = await open(image, { recovery: 'repair' });
    const { store } = found;
    for (const group of [0, 2]) {
      expect(store.damage?.of(group)).toEqual({ group, ranges: [], voteInDoubt: false });
      expect(await found.contents(group)).toEqual(expected(group));
    }
    // Of groups that have left nothing: in the damaged lane they may have been lost.
    expect(store.damage?.of(70_000)).toMatchObject({ ranges: [], voteInDoubt: false });
    expect(store.damage?.of(8).voteInDoubt).toBe(true);
    expect(store.damage?.of(1).ranges).not.toEqual([]);
    expect(store.damage?.of(3).ranges).not.toEqual([]);
    for (const group of GROUPS) {
      expect(() => found.append(texts(1), 1, group, 4)).toThrow(
        'takes nothing until it is repaired',
      );
    }
    await store.close();
    const written = calls.filter(({ operation }) => operation === 'write' || operation === 'open');
    expect(written.filter(({ changes }) => changes)).toEqual([]);
  });

  it('refuses files that were written with another number of lanes, and changes nothing', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    await writeAll(log);
    await log.store.close();
    const before = disk.readFile(segmentFile(1));
    await expect(open(disk)).rejects.toMatchObject({
      code: 'KEELSON_STORAGE_CORRUPT',
      message: expect.stringMatching(/holds group 1, which belongs to lane 1 of 2/),
      details: { lane: 0, group: 1 },
    });
    expect(Buffer.compare(disk.readFile(segmentFile(1)), before)).toBe(0);
    const again = await openLog(disk);
    for (const group of GROUPS) expect(await again.contents(group)).toEqual(expected(group));
  });

  it('gives each lane its part of the index', async () => {
    const options = { maxIndexBytes: 2 * MIB };
    const log = await open(new MemoryDisk(), options);
    const entries = texts(1000, '');
    const fill = async (group: number): Promise<number> => {
      for (let next = 1; ; next += 1000) {
        try {
          await log.write(entries, 1, group, next);
        } catch (error) {
          expect(error).toMatchObject({
            code: 'KEELSON_STORAGE_FULL',
            message: expect.stringContaining('(2097152), divided among 2 lanes, leaves'),
          });
          return next - 1;
        }
      }
    };
    const first = await fill(0);
    expect(first * 16).toBeLessThan(MIB);
    // Whatever the one has used, the other has its own.
    const second = await fill(1);
    expect(second).toBe(first);
  });
});

it('what an idle group keeps is moved within its lane, and each lane stays within its share of the disk', async () => {
  const disk = new MemoryDisk();
  const log = await open(disk);
  const folder = '/data/wal';
  const bytesOf = (lane: number): number =>
    disk
      .list(folder)
      .filter((name) => name.startsWith(`lane-${lane}-`))
      .reduce((sum, name) => sum + disk.readFile(`${folder}/${name}`).length, 0);
  const idle = 40;
  const [first, second, ...busy] = [0, 1, 2, 3];
  for (const group of [first!, second!]) {
    const payloads = texts(idle, `kept by ${group} ${'k'.repeat(10_000)}`);
    for (let at = 0; at < idle; at++) await log.write([payloads[at]!], 1, group, at + 1);
  }
  const largest = [0, 0];
  for (let round = 0; round < 80; round++) {
    for (const group of busy) {
      const firstIndex = round * 4 + 1;
      await log.write(texts(4, 'x'.repeat(30_000)), 1, group, firstIndex);
      log.store.purge(group, { index: firstIndex + 3, term: 1 });
    }
    for (const lane of [0, 1]) largest[lane] = Math.max(largest[lane]!, bytesOf(lane));
  }
  const live = idle * 10_100;
  for (const bytes of largest) expect(bytes).toBeLessThanOrEqual(2 * live + 4 * MIB);
  expect(log.store.metrics().movedBytes).toBeGreaterThan(2 * idle * 10_000);
  for (const lane of [0, 1]) expect(disk.exists(segmentFile(1, lane)), `lane ${lane}`).toBe(false);
  const found = await open(disk.crash());
  for (const group of [first!, second!]) {
    expect(await found.contents(group), `group ${group}`).toHaveLength(idle);
  }
});

describe.each([1.25, 2, 4])(
  'a disk with room for %s segments of each lane that both have filled',
  (segments) => {
    const capacityBytes = LANES * segments * MIB;

    async function fill(log: TestLog): Promise<number[]> {
      const last = [0, 0];
      for (const refused = new Set<number>(); refused.size < LANES; ) {
        for (const group of [0, 1]) {
          if (refused.has(group)) continue;
          try {
            await log.write(texts(1, 'z'.repeat(10_000)), 1, group, last[group]! + 1);
            last[group]!++;
          } catch (error) {
            expect(error).toMatchObject({ code: 'KEELSON_STORAGE_FULL', outcome: 'rejected' });
            refused.add(group);
          }
        }
      }
      expect(log.failure).toBeUndefined();
      return last;
    }

    it('takes votes and the entry that opens a term in each, and is opened again', async () => {
      let disk = new MemoryDisk({ capacityBytes });
      const log = await open(disk);
      const last = await fill(log);
      for (let term = 2; term < 30; term++) {
        for (const group of [0, 1])
          await log.durable(log.saveVote(vote(term, 2, false), group), group);
      }
      for (const group of [0, 1]) {
        const io = log.append([new Uint8Array(0)], 30, group, last[group]! + 1, ENTRY_KIND.blank);
        await log.durable(io, group);
      }
      for (let start = 0; start < 6; start++) {
        disk = start % 2 === 0 ? disk.crash() : disk.kill();
        const found = await open(disk);
        for (const group of [0, 1]) {
          expect(found.store.recovered(group).lastIndex).toBe(last[group]! + 1);
          const io = found.saveVote(vote(40 + start, 2, false), group);
          await found.durable(io, group);
        }
      }
    });
  },
);
