import { describe, expect, it } from 'vitest';
import type { Logger } from '../../dist/base/logger.js';
import { silentLogger } from '../../dist/base/logger.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { BATCH, BATCH_FLAG, SECTOR_BYTES, SEGMENT } from '../../dist/wasm/layout.js';
import { gated, intercepted, openLog, type TestLog, vote } from './wal-support.js';

const KIB = 1024;
const WAL = '/data/wal';
const SMALL = { segmentBytes: 512 * KIB, ringBytes: 512 * KIB, maxBatchBytes: 32 * KIB };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function segments(disk: MemoryDisk): string[] {
  return disk.list(WAL).filter((name) => name.endsWith('.wal'));
}

async function writeIdle(log: TestLog, groups: number, bytes: number): Promise<void> {
  for (let group = 1; group <= groups; group++) {
    await log.write([Buffer.alloc(bytes)], 1, group, 1);
  }
}

/** Writes to group 0, one entry at a time, and keeps nothing of it, until the condition holds. */
async function load(
  log: TestLog,
  until: () => boolean,
  first = 1,
  entryBytes = 8_000,
): Promise<number> {
  let next = first;
  for (; !until(); next++) {
    expect(next - first).toBeLessThan(5_000);
    await log.write([Buffer.alloc(entryBytes)], 1, 0, next);
    log.store.purge(0, { index: next, term: 1 });
    await turn();
  }
  return next;
}

/** Flags of the batches of a file, in order. */
function batchFlags(disk: MemoryDisk, file: string): number[] {
  const bytes = disk.readFile(file);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const epoch = view.getBigUint64(SEGMENT.offset.epoch, true);
  const flags: number[] = [];
  for (let at = SECTOR_BYTES; at < bytes.length; at += SECTOR_BYTES) {
    if (view.getUint32(at, true) !== BATCH.magic) continue;
    if (view.getBigUint64(at + BATCH.offset.epoch, true) !== epoch) continue;
    flags.push(view.getUint16(at + BATCH.offset.flags, true));
  }
  return flags;
}

describe('entries of idle logs are moved', () => {
  it.each([8, 60, 100])('beside clients who keep the ring full: %i KiB', async (idleKib) => {
    const disk = new MemoryDisk();
    const gate = gated(disk);
    const log = await openLog(disk, { ...SMALL, executor: gate.executor });
    await writeIdle(log, 1, idleKib * KIB);
    gate.holdReads = true;
    gate.holdWrites = true;
    let last = 0;
    let purged = 0;
    const fill = (): void => {
      try {
        for (;;) {
          log.append([Buffer.alloc(8 * KIB)], 1, 0, last + 1);
          last++;
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'KEELSON_OVERLOADED' });
      }
    };
    let calls = -1;
    const newest = (): number => Number(segments(disk).at(-1)!.slice(7, 17));
    while (newest() < 60) {
      if (log.writableCalls > calls) fill();
      calls = log.writableCalls;
      gate.writes.shift()?.();
      gate.reads.shift()?.();
      await turn();
      const done = log.flushedIos.at(-1)!;
      if (done.group === 0 && done.io.logId.index > purged) {
        purged = done.io.logId.index;
        log.store.purge(0, { index: purged, term: 1 });
      }
      expect(segments(disk).length).toBeLessThanOrEqual(6);
      expect(log.failure).toBeUndefined();
    }
  });

  it('together, however many small logs there are', async () => {
    const disk = new MemoryDisk();
    let reads = 0;
    const executor = intercepted(disk, (task, proceed) => {
      if (task.type === 'read' || task.type === 'gather') reads++;
      return proceed();
    });
    const log = await openLog(disk, { ...SMALL, executor });
    await writeIdle(log, 150, 100);
    await load(log, () => segments(disk)[0]! > 'lane-0-0000000003.wal');
    expect(log.store.metrics().movedBytes).toBeGreaterThan(150 * 100);
    expect(reads).toBeLessThan(20);
  });

  it('without asking every log at every batch', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, SMALL);
    await writeIdle(log, 150, 2_000);
    const { lanes } = log.store as unknown as { lanes: { groups: Map<number, unknown> }[] };
    const { groups } = lanes[0]!;
    const values = groups.values.bind(groups);
    let asked = 0;
    groups.values = () => {
      asked++;
      return values();
    };
    const { flushes } = log.store.metrics();
    await load(log, () => segments(disk)[0]! > 'lane-0-0000000008.wal');
    expect(log.store.metrics().movedBytes).toBeGreaterThan(3 * 150 * 2_000);
    expect(log.store.metrics().flushes - flushes).toBeGreaterThan(200);
    expect(asked).toBeLessThan(40);
  });

  it('while the log goes no further than to the end of its segments, and takes votes', async () => {
    const disk = new MemoryDisk();
    const gate = gated(disk);
    const log = await openLog(disk, { ...SMALL, executor: gate.executor });
    await writeIdle(log, 1, KIB);
    gate.holdReads = true;
    let refused = false;
    for (let next = 1; !refused; next++) {
      try {
        await log.durable(log.append([Buffer.alloc(8_000)], 1, 0, next));
        log.store.purge(0, { index: next, term: 1 });
      } catch (error) {
        expect(error).toMatchObject({ code: 'KEELSON_OVERLOADED' });
        refused = true;
      }
    }
    expect(segments(disk).length).toBe(2);
    await log.durable(log.saveVote(vote(7), 1), 1);
    const calls = log.writableCalls;
    for (const read of gate.reads.splice(0)) read();
    gate.holdReads = false;
    await load(log, () => segments(disk)[0]! > 'lane-0-0000000001.wal', log.lastIndex + 1);
    expect(log.writableCalls).toBeGreaterThan(calls);
  });

  it.each([1, 4, 32])('in time, so that nobody is refused: %i who write', async (writers) => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, SMALL);
    await writeIdle(log, 1, 100 * KIB);
    let last = 0;
    const write = async (): Promise<void> => {
      while (segments(disk).at(-1)! < 'lane-0-0000000020.wal') {
        // It throws when it is refused.
        last++;
        const io = log.append([Buffer.alloc((8 * KIB) / Math.min(writers, 8))], 1, 0, last);
        await log.durable(io);
        log.store.purge(0, io.logId);
        await turn();
      }
    };
    await Promise.all(Array.from({ length: writers }, write));
    expect(log.store.metrics().movedBytes).toBeGreaterThan(10 * 100 * KIB);
  });

  it.each([4, 32, 128])(
    'in time for an entry of the largest size: batches of %i KiB',
    async (kib) => {
      const refused: number[] = [];
      for (let entries = 60; entries < 110; entries += 3) {
        const disk = new MemoryDisk();
        const log = await openLog(disk, { ...SMALL, maxBatchBytes: kib * KIB });
        await writeIdle(log, 1, 10);
        const begun = await load(log, () => segments(disk).length === 2, 1, 3_000);
        const next = await load(log, () => log.lastIndex >= begun + entries, begun, 3_000);
        let taken = false;
        const largest = Buffer.alloc(SMALL.segmentBytes / 4 - 200);
        log.appendInTime([largest], 1, 0, next).then(() => {
          taken = true;
        });
        for (let turns = 0; turns < 200 && !taken; turns++) await turn();
        if (!taken) refused.push(entries);
      }
      expect(refused).toEqual([]);
    },
  );

  it.each([0, 1])('beside votes, which are all that is written: %i idle logs', async (idle) => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, SMALL);
    await writeIdle(log, idle, 10);
    let term = 2;
    while (!segments(disk).includes('lane-0-0000000020.wal')) {
      await log.durable(log.saveVote(vote(term++, 1, false)));
      expect(segments(disk).length).toBeLessThanOrEqual(4);
      await turn();
    }
  });

  it('by starts that write little each', async () => {
    const disk = new MemoryDisk();
    let log = await openLog(disk, SMALL);
    await writeIdle(log, 1, 10);
    let next = 1;
    for (let start = 0; start < 20; start++) {
      const until = next + 20;
      for (; next < until; next++) {
        await log.write([Buffer.alloc(8_000)], 1, 0, next);
        log.store.purge(0, { index: next, term: 1 });
      }
      await log.store.close();
      log = await openLog(disk, SMALL);
    }
    expect(segments(disk).length).toBeLessThanOrEqual(5);
  });

  it('one batch at a time: whoever writes meanwhile waits for no more', async () => {
    const disk = new MemoryDisk();
    const gate = gated(disk);
    const log = await openLog(disk, { ...SMALL, ringBytes: 2_048 * KIB, executor: gate.executor });
    for (let index = 1; index <= 80; index++) {
      await log.write([Buffer.alloc(16 * KIB)], 1, 1, index);
    }
    let most = 0;
    let next = 1;
    while (segments(disk)[0]! < 'lane-0-0000000002.wal') {
      next = await load(log, () => log.store.metrics().movedBytes > 0, next);
      const before = log.store.metrics().flushedBytes;
      await log.durable(log.saveVote(vote(next), 2), 2);
      most = Math.max(most, log.store.metrics().flushedBytes - before);
      await log.write([Buffer.alloc(8_000)], 1, 0, next);
      log.store.purge(0, { index: next, term: 1 });
      next++;
    }
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(3 * SMALL.maxBatchBytes);
  });
});

describe('a log that is closed while entries are moved', () => {
  it('ends with the batch that says so, and tells of no error', async () => {
    for (let delay = 0; delay < 25; delay++) {
      const disk = new MemoryDisk();
      let closing: Promise<void> | undefined;
      let log: TestLog;
      const close = (turns: number): void => {
        if (turns > 0) queueMicrotask(() => close(turns - 1));
        else closing = log.store.close();
      };
      const executor = intercepted(disk, (task, proceed) => {
        const result = proceed();
        if (task.type === 'read' || task.type === 'gather') close(delay);
        return result;
      });
      const errors: unknown[] = [];
      const logger: Logger = { ...silentLogger, error: (fields) => errors.push(fields) };
      log = await openLog(disk, { ...SMALL, executor, logger });
      await writeIdle(log, 1, 10);
      for (let next = 1; closing === undefined; next++) {
        await log.durable(log.append([Buffer.alloc(8_000)], 1, 0, next));
        if (closing === undefined) log.store.purge(0, { index: next, term: 1 });
        await turn();
      }
      await closing;
      const flags = batchFlags(disk, `${WAL}/${segments(disk).at(-1)}`);
      expect(flags.at(-1)! & BATCH_FLAG.cleanShutdown, `delay ${delay}`).not.toBe(0);
      expect(errors).toEqual([]);
    }
  });
});
