import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { ITEM } from '../../dist/wasm/layout.js';
import { openLog, type TestLog } from './wal-support.js';

const KIB = 1024;
const SEGMENT_BYTES = 512 * KIB;
const SIZES = { segmentBytes: SEGMENT_BYTES, ringBytes: 512 * KIB, maxBatchBytes: 32 * KIB };
const ENTRY = 8 * KIB;
const KEPT = 1;
const PURGED = 2;
const CLIENTS = 0;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function files(disk: MemoryDisk): number {
  return disk.list('/data/wal').length;
}

/** Three of four entries are of a log that is purged then; returns the bytes that the other one keeps. */
async function fill(log: TestLog, kept: number): Promise<number> {
  for (let index = 1; index <= kept; index++) {
    await log.write([Buffer.alloc(ENTRY)], 1, KEPT, index);
    const three = new Array(3).fill(Buffer.alloc(ENTRY));
    await log.write(three, 1, PURGED, 3 * index - 2);
  }
  return kept * (ENTRY + ITEM.bytes);
}

describe('a purge that leaves much more on the disk than is needed', () => {
  it('slows clients down until that is moved, and does not stop them', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, SIZES);
    const live = await fill(log, 400);
    const liveSegments = live / SEGMENT_BYTES;
    const before = files(disk);
    const bound = (): number => 2 * liveSegments + 4;
    expect(before).toBeGreaterThan(bound() + 4);
    log.store.purge(PURGED, { index: 1_200, term: 1 });
    await log.durable(log.saveVote({ term: 1, nodeId: 1, committed: true }, PURGED), PURGED);

    const moved = (): number => log.store.metrics().movedBytes;
    let last = 0;
    let clientBytes = 0;
    let movedBefore = 0;
    let longest = 0;
    let most = 0;
    const write = async (): Promise<void> => {
      while (files(disk) > bound()) {
        const calls = log.writableCalls;
        try {
          const io = log.append([Buffer.alloc(ENTRY)], 1, CLIENTS, last + 1);
          last++;
          await log.durable(io, CLIENTS);
          log.store.purge(CLIENTS, io.logId);
        } catch (error) {
          expect(error).toMatchObject({ code: 'KEELSON_OVERLOADED' });
          await log.writableAfter(calls);
          continue;
        }
        clientBytes += ENTRY;
        longest = Math.max(longest, moved() - movedBefore);
        movedBefore = moved();
        most = Math.max(most, files(disk));
        const atPace = 2 * (clientBytes - SEGMENT_BYTES / 4);
        // The last of it is in nobody's way.
        expect(moved()).toBeGreaterThanOrEqual(Math.min(atPace, 0.9 * live));
        await turn();
      }
    };
    await Promise.all(Array.from({ length: 16 }, write));
    expect(log.failure).toBeUndefined();
    expect(moved()).toBeGreaterThan(live / 4);
    expect(longest).toBeLessThanOrEqual(SEGMENT_BYTES / 2);
    expect(clientBytes).toBeGreaterThan(SEGMENT_BYTES / 2);
    expect(most).toBeLessThanOrEqual(before + liveSegments / 2 + 2);
  });
});
