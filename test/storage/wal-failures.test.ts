import { describe, expect, it } from 'vitest';
import type { IoId } from '../../dist/engine/types.js';
import type { EntriesLease, StagedEntries } from '../../dist/storage/log-store.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { ENTRY_KIND, SECTOR_BYTES } from '../../dist/wasm/layout.js';
import { createBench } from '../wasm/support.js';
import { entriesOf, MIB, openLog, type TestLog, texts, vote } from './wal-support.js';

const failed = expect.objectContaining({ code: 'KEELSON_STORAGE_FAILED' });

describe('a failing disk under the write-ahead log', () => {
  for (const allowDirect of [true, false]) {
    const operation = allowDirect ? 'write' : 'dataSync';
    it(`known bug 13: a failed ${operation} is final, however well the disk does later`, async () => {
      const disk = new MemoryDisk({ allowDirect });
      const log = await openLog(disk);
      await log.durable(log.append(texts(1)));
      disk.fail({ operation, nth: 1, code: 'EIO' });
      const lost = log.append(texts(1, 'lost', 2));
      expect(await log.nextFailure()).toEqual(failed);
      const later = log.saveVote(vote(5));
      expect(() => log.append(texts(1))).toThrowError(failed);
      await new Promise((resolve) => setImmediate(resolve));
      const acknowledged = log.flushedIos.map(({ io }) => io.sequence);
      expect(acknowledged).not.toContain(lost.sequence);
      expect(acknowledged).not.toContain(later.sequence);
      await log.store.close();
      expect(log.flushedIos.map(({ io }) => io.sequence)).toEqual(acknowledged);
    });
  }

  it('names a full disk when a segment cannot be made', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    disk.fail({
      operation: 'rename',
      nth: 1,
      code: 'ENOSPC',
      pathIncludes: 'lane-0',
      sticky: true,
    });
    for (let batch = 0; log.failure === undefined && batch < 100; batch++) {
      const io = log.append(texts(4, 'z'.repeat(20_000)));
      await Promise.race([log.durable(io), log.nextFailure()]);
    }
    expect(log.failure).toMatchObject({ code: 'KEELSON_STORAGE_FULL' });
    const acknowledged = log.flushedIos.at(-1)!.io.logId.index;
    expect(acknowledged).toBeGreaterThan(10);
    expect((await openLog(disk.crash())).lastIndex).toBe(acknowledged);
  });
});

describe('a disk with little room left', () => {
  it('an error that is not for want of room still refuses the start', async () => {
    const disk = new MemoryDisk();
    disk.fail({ operation: 'write', nth: 1, code: 'EIO', pathIncludes: 'next' });
    await expect(openLog(disk)).rejects.toEqual(failed);
    expect(disk.list('/data/wal')).toEqual([]);
  });
});

/** A log whose ring a reader of its first entry keeps full; the lease is that reader's. */
async function fullRing(): Promise<{ log: TestLog; pin: EntriesLease }> {
  const log = await openLog(new MemoryDisk());
  await log.durable(log.append([new Uint8Array(100_000)]));
  const pin = await log.store.read(0, 1, 1, MIB);
  for (const bytes of [100_000, 1_000]) {
    await expect(async () => {
      for (;;) await log.durable(log.append([new Uint8Array(bytes)]));
    }).rejects.toMatchObject({ code: 'KEELSON_OVERLOADED' });
  }
  return { log, pin };
}

/** The entry that opens a leader's term. */
function appendBlank(log: TestLog, term: number): IoId {
  return log.append([new Uint8Array(0)], term, 0, log.lastIndex + 1, ENTRY_KIND.blank);
}

describe('the memory of the write-ahead log', () => {
  it('takes one record for a flood of purges, and the last of them counts', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    await log.durable(log.append(texts(900)));
    const before = log.store.metrics().flushedBytes;
    for (let index = 1; index <= 800; index++) log.purge(index);
    await log.durable(log.append(texts(1)));
    expect(log.store.metrics().flushedBytes - before).toBeLessThanOrEqual(3 * SECTOR_BYTES);
    await log.store.close();
    const after = await openLog(disk.crash());
    expect(after.purged.index).toBe(800);
    expect(after.lastIndex).toBe(901);
  });

  it('refuses entries while a reader pins the ring, and says when there is room again', async () => {
    const log = await openLog(new MemoryDisk());
    await log.durable(log.append(texts(4, 'p'.repeat(20_000))));
    const lease = await log.store.read(0, 1, 4, MIB);
    let refusal: unknown;
    for (let batch = 0; refusal === undefined && batch < 40; batch++) {
      try {
        await log.durable(log.append(texts(4, 'q'.repeat(20_000))));
      } catch (error) {
        refusal = error;
      }
    }
    expect(refusal).toMatchObject({ code: 'KEELSON_OVERLOADED' });
    // Votes are never refused.
    await log.durable(log.saveVote(vote(3)));
    // Nor is the entry that opens a leader's term.
    await log.durable(appendBlank(log, 3));
    expect(entriesOf(await log.store.read(0, log.lastIndex, log.lastIndex, MIB))).toEqual([
      { index: log.lastIndex, term: 3, payload: new Uint8Array(0) },
    ]);
    await log.durable(log.truncateAfter(log.lastIndex - 1, vote(3)));
    expect(log.writableCalls).toBe(0);
    expect(entriesOf(lease)).toHaveLength(4);
    lease.release();
    await new Promise((resolve) => setImmediate(resolve));
    expect(log.writableCalls).toBe(1);
    await log.durable(log.append(texts(4, 'q'.repeat(20_000)), 3));
  });

  it('appends what it took from a leader, however full the ring is and whatever that overwrites', async () => {
    const log = await openLog(new MemoryDisk());
    await log.durable(log.append([new Uint8Array(50_000)]));
    log.store.read(0, 1, 1, MIB);
    await expect(async () => {
      for (;;) await log.durable(log.append([new Uint8Array(90_000)]));
    }).rejects.toMatchObject({ code: 'KEELSON_OVERLOADED' });
    const index = log.lastIndex;
    const { codec, heap, region } = createBench();
    const receive = (bytes: number): StagedEntries | undefined => {
      const block = { group: 0, firstIndex: index, term: 2, time: 1, count: 1 };
      const payloads = [new Uint8Array(bytes).fill(7)];
      const kind = ENTRY_KIND.application;
      const length = codec.encodeBlock(region, MIB, { ...block, kind, payloads });
      try {
        return log.store.receive(0, index, [heap.slice(region, length)]);
      } catch (error) {
        expect(error).toMatchObject({ code: 'KEELSON_OVERLOADED' });
        return undefined;
      }
    };
    let taken = 0;
    for (let refused = 90_000; taken + 1 < refused; ) {
      const middle = Math.floor((taken + refused) / 2);
      if (receive(middle) === undefined) refused = middle;
      else taken = middle;
    }
    expect(taken).toBeGreaterThan(10_000);
    const staged = receive(taken)!;
    log.truncateAfter(index - 1, vote(2));
    const io = log.nextIo(2, index);
    log.store.append(0, staged, index, io);
    await log.durable(io);
    expect(entriesOf(await log.store.read(0, index, index, MIB))).toEqual([
      { index, term: 2, payload: new Uint8Array(taken).fill(7) },
    ]);
  });

  it('a lease on an entry that found no room in the ring keeps it when its place is used again', async () => {
    const { log, pin } = await fullRing();
    // Takes what the last sectors of the ring are good for.
    await log.durable(log.saveVote(vote(2, 1, false)));
    const blank = appendBlank(log, 2);
    const lease = await log.store.read(0, log.lastIndex, log.lastIndex, MIB);
    await log.durable(blank);
    for (let term = 3; term < 13; term++) await log.durable(log.saveVote(vote(term, 2, false)));
    expect(entriesOf(lease)).toEqual([
      { index: log.lastIndex, term: 2, payload: new Uint8Array(0) },
    ]);
    pin.release();
  });

  it('serves what found no room in the ring from segments, and what is around it', async () => {
    const { log, pin } = await fullRing();
    const before = log.lastIndex;
    for (let term = 2; term <= 4; term++) {
      await log.durable(log.saveVote(vote(term, 1, false)));
      await log.durable(appendBlank(log, term));
    }
    const terms = async (): Promise<number[][]> => {
      const found: number[][] = [];
      for (let next = before; next <= log.lastIndex; ) {
        const lease = await log.store.read(0, next, log.lastIndex, MIB);
        for (const { index, term } of entriesOf(lease)) found.push([index, term]);
        next = lease.lastIndex + 1;
        lease.release();
      }
      return found;
    };
    const written = [1, 2, 3, 4].map((term, at) => [before + at, term]);
    expect(await terms()).toEqual(written);
    pin.release();
    expect(await terms()).toEqual(written);
    // The log goes on in memory behind them.
    await log.durable(log.append(texts(2), 4));
    expect(log.store.read(0, log.lastIndex - 1, log.lastIndex, MIB)).not.toBeInstanceOf(Promise);
  });

  it('serves what has left the ring from segments, in one block, equal to what was written', async () => {
    const log = await openLog(new MemoryDisk());
    const written: string[] = [];
    for (let batch = 0; batch < 40; batch++) {
      const payloads = texts(8, `${batch}-${'r'.repeat(9_000)}`);
      written.push(...payloads.map((bytes) => new TextDecoder().decode(bytes)));
      await log.durable(log.append(payloads));
    }
    expect(log.store.metrics().ringUsedBytes).toBeLessThanOrEqual(MIB);
    expect(await log.contents()).toEqual(written);
    expect(log.store.metrics().cacheMisses).toBeGreaterThan(5);
    expect(log.store.metrics().cacheHits).toBeGreaterThan(5);
  });

  it('a truncation that overtakes a read from segments makes it read again', async () => {
    const log = await openLog(new MemoryDisk());
    for (let batch = 0; batch < 40; batch++) {
      await log.durable(log.append(texts(8, 's'.repeat(9_000), 1 + batch * 8)));
    }
    const reading = log.store.read(0, 1, 8, MIB);
    const vanishing = log.store.read(0, 5, 8, MIB);
    expect(reading).toBeInstanceOf(Promise);
    log.truncateAfter(3);
    log.append(texts(1, 'new', 4), 2);
    const lease = await reading;
    const found = entriesOf(lease).map(({ index, term }) => ({ index, term }));
    expect(found.filter(({ index }) => index > 3 && index !== 4)).toEqual([]);
    expect(found.find(({ index }) => index === 4)?.term ?? 2).toBe(2);
    await expect(vanishing).rejects.toMatchObject({ code: 'KEELSON_ABORTED' });
  });
});
