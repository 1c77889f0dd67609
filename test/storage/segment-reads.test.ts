import { describe, expect, it } from 'vitest';
import { resolveConfig } from '../../dist/config/resolve.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { walMemoryBytes } from '../../dist/storage/wal-memory.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { entriesOf, MIB, openLog, type TestLog } from './wal-support.js';

const KIB = 1024;
const GIB = 1024 * MIB;
const small = {
  segmentBytes: MIB,
  ringBytes: MIB,
  maxBatchBytes: 256 * KIB,
  maxQueuedBatches: 2,
  maxIndexBytes: 512 * KIB,
};

/** With not a byte more than the store says that it needs. */
function open(disk: MemoryDisk, options = small): Promise<TestLog> {
  const heap = SharedHeap.create({ maximumBytes: walMemoryBytes(options) });
  return openLog(disk, { ...options, heap });
}

async function append(log: TestLog, count: number, bytes: number): Promise<void> {
  const payloads = Array.from({ length: count }, () => new Uint8Array(bytes).fill(7));
  await log.durable(log.append(payloads));
}

/** Until the first entries are in segments only. */
async function evictAll(log: TestLog): Promise<number> {
  const last = log.lastIndex;
  for (let batch = 0; batch < 12; batch++) await append(log, 1, 100 * KIB);
  return last;
}

describe('entries that have left memory', () => {
  it('are read however many ask at once, and however much each may have', async () => {
    const log = await open(new MemoryDisk());
    for (let batch = 0; batch < 4; batch++) await append(log, 20, 10 * KIB);
    const last = await evictAll(log);
    const reads = Array.from({ length: 40 }, (_, at) =>
      log.store.read(0, 1 + at, last, at % 2 === 0 ? 256 * MIB : 20 * KIB),
    );
    expect(reads[0]).toBeInstanceOf(Promise);
    for (const [at, lease] of (await Promise.all(reads)).entries()) {
      expect(lease.firstIndex).toBe(1 + at);
      const entries = entriesOf(lease);
      expect(entries.length, `read ${at}`).toBe(at % 2 === 0 ? 25 : 1);
      expect(entries.every(({ payload }) => payload.every((byte) => byte === 7))).toBe(true);
    }
  });

  it('are read when one alone is as large as an entry can be, and the index is full', async () => {
    const log = await open(new MemoryDisk());
    await append(log, 1, 256 * KIB - 80);
    await append(log, 1, 256 * KIB - 80);
    await evictAll(log);
    await expect(async () => {
      for (;;) await append(log, 1000, 0);
    }).rejects.toMatchObject({ code: 'KEELSON_STORAGE_FULL' });
    const reads = [1, 2, 1, 2].map((index) => log.store.read(0, index, 2, 1));
    for (const lease of await Promise.all(reads)) expect(lease.bytes).toBe(256 * KIB);
  });

  it('are read with a smaller ring than they were written with, or the log is not opened', async () => {
    const large = { ...small, segmentBytes: 8 * MIB, ringBytes: 8 * MIB, maxBatchBytes: MIB };
    const disk = new MemoryDisk();
    const log = await open(disk, large);
    await append(log, 1, 2 * MIB - 80);
    await log.store.close();
    const smaller = { ...large, ringBytes: 4 * MIB };
    const files = disk.list('/data/wal');
    await expect(open(disk, smaller)).rejects.toMatchObject({
      code: 'KEELSON_INVALID_CONFIG',
      message: expect.stringContaining('storage.ringBytes'),
    });
    expect(disk.list('/data/wal')).toEqual(files);
    const roomy = await openLog(disk, {
      ...smaller,
      heap: SharedHeap.create({ maximumBytes: GIB }),
    });
    const lease = await roomy.store.read(0, 1, 1, 1);
    expect(entriesOf(lease)[0]?.payload).toHaveLength(2 * MIB - 80);
  });

  it('find room in the shared memory of every configuration that is accepted', () => {
    const mostBytes = 65_535 * 65_536;
    const reserved = 64 * MIB;
    const queued = { maxQueuedBatches: 16 };
    for (const [ringBytes, segmentBytes] of [
      [2 * GIB, GIB],
      [2 * GIB, 64 * MIB],
      [GIB, GIB],
    ] as const) {
      const scratch = Math.min(ringBytes, segmentBytes) / 4;
      const maxIndexBytes = Math.min(2 * GIB, 4 * GIB - reserved - ringBytes - scratch);
      const storage = { ...queued, ringBytes, segmentBytes, maxIndexBytes };
      const config = resolveConfig({ storage });
      expect(walMemoryBytes(config.storage)).toBeLessThanOrEqual(mostBytes);
    }
  });
});
