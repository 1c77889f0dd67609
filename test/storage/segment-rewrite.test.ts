import { describe, expect, it } from 'vitest';
import type { Logger } from '../../dist/base/logger.js';
import { silentLogger } from '../../dist/base/logger.js';
import { SeededRandom } from '../../dist/base/random.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { BATCH, BLOCK, ENTRY_KIND, ITEM, SECTOR_BYTES } from '../../dist/wasm/layout.js';
import { entriesOf, intercepted, openLog, type TestLog, vote } from './wal-support.js';

const KIB = 1024;
const WAL = '/data/wal';
const SEGMENT_BYTES = 512 * KIB;
const SMALL = {
  segmentBytes: SEGMENT_BYTES,
  ringBytes: 512 * KIB,
  maxBatchBytes: 32 * KIB,
};

/** Tells of each file that becomes a segment. */
class WatchedDisk extends MemoryDisk {
  rolled: (segments: number) => void = () => {};

  override rename(from: string, to: string): void {
    super.rename(from, to);
    if (to.endsWith('.wal')) this.rolled(this.segments().length);
  }

  segments(): string[] {
    return this.list(WAL).filter((name) => name.endsWith('.wal'));
  }

  /** Bytes of all files of the lane, spare ones too. */
  laneBytes(): number {
    let bytes = 0;
    for (const name of this.list(WAL)) {
      const file = this.open(`${WAL}/${name}`, { access: 'read' });
      bytes += file.size();
      file.close();
    }
    return bytes;
  }
}

/** Payloads of the entries that each group has; the first has the index behind `purged`. */
class Groups {
  readonly log: TestLog;
  readonly random: SeededRandom;
  private term = 1;
  private readonly purged: Map<number, number> = new Map();
  private readonly payloads: Map<number, string[]> = new Map();

  constructor(log: TestLog, seed: number) {
    this.log = log;
    this.random = new SeededRandom(seed);
  }

  liveBytes(): number {
    let bytes = 0;
    for (const payloads of this.payloads.values()) {
      for (const payload of payloads) bytes += ITEM.bytes + payload.length;
    }
    return bytes;
  }

  bytesOf(group: number): number {
    return this.of(group).reduce((sum, payload) => sum + ITEM.bytes + payload.length, 0);
  }

  async append(group: number, count: number, maxBytes: number): Promise<void> {
    const payloads = this.of(group);
    const first = this.purgedOf(group) + payloads.length + 1;
    const added = Array.from({ length: count }, (_, at) =>
      `${group}/${first + at} `.padEnd(1 + this.random.integer(maxBytes), 'x'),
    );
    payloads.push(...added);
    const bytes = added.map((payload) => Buffer.from(payload));
    await this.log.write(bytes, this.term, group, first);
  }

  /** Keeps entries of about so many bytes. */
  purge(group: number, keepBytes: number): void {
    const payloads = this.of(group);
    let bytes = 0;
    let kept = 0;
    while (kept < payloads.length && bytes < keepBytes) {
      kept++;
      bytes += ITEM.bytes + payloads[payloads.length - kept]!.length;
    }
    const gone = payloads.length - kept;
    if (gone === 0) return;
    payloads.splice(0, gone);
    const index = this.purgedOf(group) + gone;
    this.purged.set(group, index);
    this.log.store.purge(group, { index, term: this.term });
  }

  /** Keeps so many entries. */
  async truncate(group: number, entries: number): Promise<void> {
    this.of(group).length = entries;
    const io = this.log.truncateAfter(this.purgedOf(group) + entries, vote(2), group);
    await this.log.durable(io, group);
    this.term = 2;
  }

  forget(group: number): void {
    this.payloads.delete(group);
  }

  async check(log: TestLog): Promise<void> {
    for (const [group, payloads] of this.payloads) {
      const found: string[] = [];
      const last = this.purgedOf(group) + payloads.length;
      for (let next = this.purgedOf(group) + 1; next <= last; ) {
        const lease = await log.store.read(group, next, last, 64 * KIB);
        for (const { payload } of entriesOf(lease)) found.push(Buffer.from(payload).toString());
        next = lease.lastIndex + 1;
        lease.release();
      }
      expect(found, `group ${group}`).toEqual(payloads);
    }
  }

  private of(group: number): string[] {
    const payloads = this.payloads.get(group) ?? [];
    this.payloads.set(group, payloads);
    return payloads;
  }

  private purgedOf(group: number): number {
    return this.purged.get(group) ?? 0;
  }
}

interface Load {
  readonly name: string;
  /** What a group that is idle keeps. */
  readonly idleBytes: number;
  readonly idleGroups: number;
  /** What the group keeps that is written to. */
  readonly keptBytes: number;
  readonly entries: number;
  readonly entryBytes: number;
}

const LOADS: readonly Load[] = [
  {
    name: 'a small group',
    idleBytes: 2 * KIB,
    idleGroups: 1,
    keptBytes: 0,
    entries: 4,
    entryBytes: 4 * KIB,
  },
  {
    name: 'many small groups',
    idleBytes: 500,
    idleGroups: 100,
    keptBytes: 20 * KIB,
    entries: 4,
    entryBytes: 4 * KIB,
  },
  {
    name: 'a group of half a segment',
    idleBytes: 256 * KIB,
    idleGroups: 1,
    keptBytes: 10 * KIB,
    entries: 8,
    entryBytes: 2 * KIB,
  },
  {
    name: 'a group of a segment',
    idleBytes: 512 * KIB,
    idleGroups: 1,
    keptBytes: 10 * KIB,
    entries: 8,
    entryBytes: 2 * KIB,
  },
  {
    name: 'a large group',
    idleBytes: 3_500 * KIB,
    idleGroups: 1,
    keptBytes: 0,
    entries: 8,
    entryBytes: 3 * KIB,
  },
  {
    name: 'a large group, and a large log',
    idleBytes: 1_600 * KIB,
    idleGroups: 1,
    keptBytes: 1_800 * KIB,
    entries: 8,
    entryBytes: 3 * KIB,
  },
  {
    name: 'a small group, and small batches',
    idleBytes: 2 * KIB,
    idleGroups: 1,
    keptBytes: 100 * KIB,
    entries: 1,
    entryBytes: 300,
  },
];

describe('a lane under a long load', () => {
  it.each(LOADS)('known bug 53: $name that is idle does not keep the disk full', async (load) => {
    const disk = new WatchedDisk();
    const log = await openLog(disk, SMALL);
    const groups = new Groups(log, 53);
    for (let group = 1; group <= load.idleGroups; group++) {
      while (groups.bytesOf(group) < load.idleBytes) {
        await groups.append(group, 1, Math.min(load.idleBytes, 8 * KIB));
      }
    }
    let rolls = 0;
    const over: string[] = [];
    disk.rolled = () => {
      rolls++;
      const bound = 2 * groups.liveBytes() + 4 * SEGMENT_BYTES;
      const used = disk.laneBytes();
      if (used > bound) over.push(`roll ${rolls}: ${used} bytes, at most ${bound}`);
    };
    while (rolls < 100) {
      await groups.append(0, load.entries, load.entryBytes);
      groups.purge(0, load.keptBytes);
    }
    expect(over).toEqual([]);
    expect(log.store.metrics().movedBytes).toBeGreaterThan(0);
    await groups.check(log);
    await groups.check(await openLog(disk.crash(), SMALL));
  });
});

it('a log that only grows is written once', async () => {
  const disk = new WatchedDisk();
  const log = await openLog(disk, SMALL);
  const groups = new Groups(log, 54);
  while (disk.segments().length < 16) await groups.append(0, 16, 3 * KIB);
  expect(log.store.metrics().movedBytes).toBe(0);
});

describe('a copy of old entries', () => {
  /** Writes to group 0, and keeps nothing of it, until the condition holds. */
  async function load(log: TestLog, groups: Groups, until: () => boolean): Promise<void> {
    while (!until()) {
      await groups.append(0, 4, 8 * KIB);
      groups.purge(0, 0);
      expect(log.failure).toBeUndefined();
    }
  }

  it('known bug 52: that was read before a truncation does not bring the tail back', async () => {
    for (const rewritten of [false, true]) {
      const disk = new WatchedDisk();
      const held: (() => void)[] = [];
      const executor = intercepted(disk, async (task, proceed) => {
        const result = await proceed();
        if (task.type === 'gather' && held.length === 0) {
          await new Promise<void>((resolve) => held.push(resolve));
        }
        return result;
      });
      const log = await openLog(disk, { ...SMALL, executor });
      const groups = new Groups(log, 52);
      for (const group of [1, 2]) await groups.append(group, 10, 100);
      await load(log, groups, () => held.length === 1);
      // What was read of group 1 is older now than what the log says.
      await groups.truncate(1, 4);
      if (rewritten) await groups.append(1, 3, 100);
      held[0]!();
      await load(log, groups, () => !disk.segments().includes('lane-0-0000000001.wal'));
      await groups.check(log);
      const after = await openLog(disk.crash(), SMALL);
      expect(after.store.recovered(1).lastIndex).toBe(rewritten ? 7 : 4);
      await groups.check(after);
    }
  });

  it('is given up when the log was purged in the meantime, or begins anew', async () => {
    const disk = new WatchedDisk();
    const held: (() => void)[] = [];
    const executor = intercepted(disk, async (task, proceed) => {
      if (task.type === 'gather' && held.length === 0) {
        await new Promise<void>((resolve) => held.push(resolve));
      }
      return proceed();
    });
    const log = await openLog(disk, { ...SMALL, executor });
    const groups = new Groups(log, 52);
    for (const group of [1, 2]) await groups.append(group, 10, 100);
    await load(log, groups, () => held.length === 1);
    groups.purge(1, 0);
    log.store.resetLog(2, { index: 12, term: 3 }, log.nextIo(3, 12));
    groups.forget(2);
    held[0]!();
    await load(log, groups, () => !disk.segments().includes('lane-0-0000000001.wal'));
    expect(log.store.metrics().movedBytes).toBe(0);
    const after = await openLog(disk.crash(), SMALL);
    expect(after.store.recovered(1)).toMatchObject({ purged: { index: 10 }, lastIndex: 10 });
    expect(after.store.recovered(2)).toMatchObject({ purged: { index: 12 }, lastIndex: 12 });
  });

  it('tells of terms and memberships what the first one told', async () => {
    const disk = new WatchedDisk();
    const log = await openLog(disk, SMALL);
    const groups = new Groups(log, 1);
    const kinds = [ENTRY_KIND.blank, ENTRY_KIND.membership, ENTRY_KIND.application];
    for (let index = 1; index <= 12; index++) {
      const kind = kinds[index % 3]!;
      const payload = kind === ENTRY_KIND.membership ? JSON.stringify({ index }) : '';
      const term = 1 + (index >> 2);
      await log.durable(log.append([Buffer.from(payload)], term, 1, index, kind), 1);
    }
    log.store.purge(1, { index: 2, term: 1 });
    await groups.append(0, 1, 1);
    const before = await openLog(disk.imageAfterCrash(), SMALL);
    await load(log, groups, () => !disk.segments().includes('lane-0-0000000001.wal'));
    log.append([Buffer.from('a')], 9, 1, 13);
    const io = log.append([Buffer.from('b')], 9, 1, 14);
    await log.durable(io, 1);
    const found = (await openLog(disk.crash(), SMALL)).store.recovered(1);
    const { memberships, termRuns } = before.store.recovered(1);
    expect(memberships.map(({ index }) => index)).toEqual([4, 7, 10]);
    expect(found.memberships).toEqual(memberships);
    expect(found.termRuns).toEqual([...termRuns, { firstIndex: 13, term: 9 }]);
  });

  it('that cannot be made is told of, and the segment is kept', async () => {
    const disk = new WatchedDisk();
    const errors: Record<string, unknown>[] = [];
    const logger: Logger = { ...silentLogger, error: (fields) => errors.push(fields) };
    const log = await openLog(disk, { ...SMALL, logger });
    const groups = new Groups(log, 1);
    await groups.append(1, 3, 2_000);
    const payload = SECTOR_BYTES + BATCH.bytes + BLOCK.bytes + 3 * ITEM.bytes;
    disk.damage(`${WAL}/lane-0-0000000001.wal`, payload, (bytes) => bytes.fill(255), 4);
    await load(log, groups, () => disk.segments().length === 6);
    expect(disk.segments()[0]).toBe('lane-0-0000000001.wal');
    expect(log.store.metrics().movedBytes).toBe(0);
    expect(errors.length).toBeGreaterThan(0);
    for (const { event, error } of errors) {
      expect(event).toBe('storage.rewrite-failed');
      expect(error).toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });
    }
  });
});
