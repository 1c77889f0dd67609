import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { ScanResult } from '../../dist/storage/segment-scan.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import {
  entriesOf,
  gated,
  intercepted,
  MIB,
  openLog,
  segmentFile,
  type TestLog,
  vote,
} from './wal-support.js';

const KIB = 1024;
const SMALL = { segmentBytes: 512 * KIB, ringBytes: 512 * KIB, maxBatchBytes: 32 * KIB };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function segments(disk: MemoryDisk): string[] {
  return disk.list('/data/wal').filter((name) => name.endsWith('.wal'));
}

/** Term and payload of each entry. */
async function contents(log: TestLog, group: number, last: number): Promise<string[]> {
  const found: string[] = [];
  for (let next = 1; next <= last; ) {
    const lease = await log.store.read(group, next, last, 64 * KIB);
    for (const { term, payload } of entriesOf(lease)) found.push(`${term} ${Buffer.from(payload)}`);
    next = lease.lastIndex + 1;
    lease.release();
  }
  return found;
}

/** Group 0 is written to and keeps nothing. */
class Load {
  private readonly log: TestLog;
  private last = 0;

  constructor(log: TestLog) {
    this.log = log;
  }

  append(): Promise<void> {
    this.last++;
    return this.log.write([Buffer.alloc(16 * KIB)], 1, 0, this.last);
  }

  async until(condition: () => boolean): Promise<void> {
    for (let writes = 0; !condition(); writes++) {
      expect(writes).toBeLessThan(2_000);
      await this.append();
      this.log.store.purge(0, { index: this.last, term: 1 });
      await turn();
      expect(this.log.failure).toBeUndefined();
    }
  }
}

describe('what is moved while a log is cut and goes on in another way', () => {
  const old = Array.from({ length: 10 }, (_, at) => `1 old-${at + 1}`);
  const written = [...old.slice(0, 4), '2 new-5', '2 new-6', '2 new-7'];

  it.each(['truncated', 'overwritten', 'reset'] as const)(
    'known bug 52: is never what was there before, %s',
    async (cut) => {
      const disk = new MemoryDisk();
      const gate = gated(disk);
      const log = await openLog(disk, { ...SMALL, executor: gate.executor });
      const load = new Load(log);
      for (let index = 1; index <= 10; index++) {
        const kind = index === 6 ? ENTRY_KIND.membership : ENTRY_KIND.application;
        const payload = index === 6 ? JSON.stringify({ index }) : `old-${index}`;
        await log.durable(log.append([Buffer.from(payload)], 1, 1, index, kind), 1);
      }
      gate.holdReads = true;
      await load.until(() => gate.reads.length === 1);
      gate.holdWrites = true;
      void load.append();
      await turn();
      // The log goes on at once, and the index learns of it when that is durable.
      if (cut === 'truncated') log.truncateAfter(4, vote(2), 1);
      if (cut === 'reset') log.store.resetLog(1, { index: 4, term: 1 }, log.nextIo(2, 4, vote(2)));
      const io = log.append(
        [5, 6, 7].map((index) => Buffer.from(`new-${index}`)),
        2,
        1,
        5,
      );
      await turn();
      gate.reads.shift()!();
      await turn();
      gate.writes.shift()!();
      await turn();
      gate.holdWrites = false;
      for (const write of gate.writes.splice(0)) write();
      await log.durable(io, 1);
      // What was cut off, and what took its place, stand in front of the segment of the copy.
      const before = segments(disk).at(-1)!;
      for (let term = 3; segments(disk).at(-1) === before; term++) {
        await log.durable(log.saveVote(vote(term)));
      }
      const newest = segments(disk).at(-1)!;
      gate.holdReads = false;
      for (const read of gate.reads.splice(0)) read();
      await load.until(() => segments(disk)[0]! >= newest);
      for (const found of [log, await openLog(disk.imageAfterCrash(), SMALL)]) {
        if (cut === 'reset') {
          const lease = await found.store.read(1, 5, 7, KIB);
          expect(entriesOf(lease).map(({ term }) => term)).toEqual([2, 2, 2]);
          lease.release();
        } else {
          expect(await contents(found, 1, 7)).toEqual(written);
        }
      }
      const after = await openLog(disk.crash(), SMALL);
      expect(after.store.recovered(1)).toMatchObject({ lastIndex: 7, memberships: [] });
    },
  );

  it('damage: a copy that contradicts the log is no copy', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, SMALL);
    for (let index = 1; index <= 3; index++) {
      await log.durable(log.append([Buffer.from('idle')], 1, 1, index), 1);
    }
    const load = new Load(log);
    await load.until(() => log.store.metrics().movedBytes > 0);
    await load.append();
    const heap = SharedHeap.create({ maximumBytes: 256 * MIB });
    const changed: number[] = [];
    const image = disk.crash();
    const executor = intercepted(image, async (task, proceed) => {
      const result = await proceed();
      if (task.type !== 'scan') return result;
      const { batches } = result as ScanResult;
      for (const { pointer, moved, position } of batches.flatMap((batch) => batch.blocks)) {
        if (!moved) continue;
        heap.view.setBigUint64(pointer + BLOCK.bytes + ITEM.offset.term, 9n, true);
        changed.push(position);
      }
      return result;
    });
    const opened = openLog(image, { ...SMALL, heap, executor });
    await expect(opened).rejects.toMatchObject({
      code: 'KEELSON_STORAGE_CORRUPT',
      message: expect.stringContaining('a copy of the entries'),
      details: { group: 1, file: segmentFile(2) },
    });
    await expect(opened).rejects.toMatchObject({ details: { offset: changed[0] } });
  });
});
