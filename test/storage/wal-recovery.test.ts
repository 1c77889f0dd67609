import { describe, expect, it } from 'vitest';
import type { Vote } from '../../dist/engine/types.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { writeHardState } from '../../dist/wasm/batch-codec.js';
import { BATCH, HARD_STATE, SECTOR_BYTES, SEGMENT } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import {
  FIRST_SEGMENT,
  MIB,
  openLog,
  segmentFile,
  type TestLog,
  texts,
  vote,
} from './wal-support.js';

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Positions of the batches of a segment, by their magic. */
function batchPositions(disk: MemoryDisk, path: string): number[] {
  const bytes = disk.readFile(path);
  const view = new DataView(bytes.buffer);
  const positions: number[] = [];
  for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
    if (view.getUint32(at, true) === BATCH.magic) positions.push(at);
  }
  return positions;
}

function flipByte(disk: MemoryDisk, path: string, position: number): void {
  disk.damage(path, position, (bytes) => {
    bytes[0]! ^= 0xff;
  });
}

function zeroSector(disk: MemoryDisk, path: string, position: number): void {
  disk.damage(path, position, (bytes) => bytes.fill(0), SECTOR_BYTES);
}

/** A log of `count` batches of one entry each. */
async function writeBatches(disk: MemoryDisk, count: number): Promise<TestLog> {
  const log = await openLog(disk);
  for (let batch = 1; batch <= count; batch++) {
    await log.durable(log.append(texts(1, 'entry', batch)));
  }
  return log;
}

const corrupt = (offset: number, file = FIRST_SEGMENT): object =>
  expect.objectContaining({
    code: 'KEELSON_STORAGE_CORRUPT',
    details: expect.objectContaining({ file, offset }),
  });

describe('recovery of the write-ahead log', () => {
  it('cuts a torn tail that nothing proves', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 3);
    const after = disk.crash();
    const last = batchPositions(after, FIRST_SEGMENT)[2]!;
    flipByte(after, FIRST_SEGMENT, last + 200);
    const log = await openLog(after);
    expect(await log.contents()).toEqual(['entry-1', 'entry-2']);
  });

  it('refuses a torn tail in strict mode', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 3);
    const after = disk.crash();
    const last = batchPositions(after, FIRST_SEGMENT)[2]!;
    flipByte(after, FIRST_SEGMENT, last + 200);
    await expect(openLog(after, { recovery: 'strict' })).rejects.toEqual(corrupt(last));
  });

  it('known bug 55: a bad batch header does not hide the batches behind it', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 3);
    const after = disk.crash();
    const second = batchPositions(after, FIRST_SEGMENT)[1]!;
    flipByte(after, FIRST_SEGMENT, second);
    await expect(openLog(after)).rejects.toEqual(corrupt(second));
  });

  it('a batch of zeros in front of a valid one is proven loss', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 3);
    const after = disk.crash();
    const first = batchPositions(after, FIRST_SEGMENT)[0]!;
    zeroSector(after, FIRST_SEGMENT, first);
    await expect(openLog(after)).rejects.toEqual(corrupt(first));
  });

  it('after an orderly close a bad last batch is proven loss', async () => {
    const disk = new MemoryDisk();
    const log = await writeBatches(disk, 3);
    await log.store.close();
    const after = disk.crash();
    const last = batchPositions(after, FIRST_SEGMENT)[2]!;
    flipByte(after, FIRST_SEGMENT, last + 200);
    await expect(openLog(after)).rejects.toEqual(corrupt(last));
  });

  it('takes nothing behind an orderly close for a torn tail', async () => {
    const disk = new MemoryDisk();
    const log = await writeBatches(disk, 2);
    await log.store.close();
    const end = batchPositions(disk, FIRST_SEGMENT).at(-1)! + SECTOR_BYTES;
    flipByte(disk, FIRST_SEGMENT, end);
    await expect(openLog(disk)).rejects.toEqual(corrupt(end));
  });

  it('a newest segment without a header, or shorter than it was made, is damage', async () => {
    const disk = new MemoryDisk();
    const log = await writeBatches(disk, 3);
    await log.store.close();
    const headless = disk.imageAfterCrash();
    zeroSector(headless, FIRST_SEGMENT, 0);
    await expect(openLog(headless)).rejects.toEqual(corrupt(0));
    const last = batchPositions(disk, FIRST_SEGMENT).at(-1)!;
    const short = new MemoryDisk();
    makeDirectories(short, '/data/wal');
    const file = short.open(FIRST_SEGMENT, { access: 'write', create: true });
    file.write(disk.readFile(FIRST_SEGMENT).subarray(0, last), 0);
    await expect(openLog(short)).rejects.toEqual(corrupt(last));
  });

  it('a first segment that is missing is proven loss', async () => {
    const disk = new MemoryDisk();
    const log = await writeBatches(disk, 3);
    await log.store.close();
    await (await openLog(disk)).store.close();
    disk.remove(FIRST_SEGMENT);
    await expect(openLog(disk)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });
  });

  it('copies the last unproven batch forward and syncs it before open resolves', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 2);
    const after = disk.crash();
    await openLog(after);
    const again = after.crash();
    // The old place is dead: whatever becomes of it, the copy counts.
    const last = batchPositions(again, FIRST_SEGMENT)[1]!;
    zeroSector(again, FIRST_SEGMENT, last);
    const log = await openLog(again);
    expect(await log.contents()).toEqual(['entry-1', 'entry-2']);
  });

  it('never appends to a segment that was recovered', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 2);
    const after = disk.crash();
    const before = after.readFile(FIRST_SEGMENT);
    const log = await openLog(after);
    await log.durable(log.append(texts(5, 'more')));
    const found = after.readFile(FIRST_SEGMENT);
    expect(Buffer.compare(found, before.subarray(0, found.length))).toBe(0);
    expect(found.length).toBeGreaterThan(2 * SECTOR_BYTES);
    expect(after.exists(segmentFile(2))).toBe(true);
  });

  it('gives back what stands behind the end of a segment, and makes none in place of an empty one', async () => {
    let disk = new MemoryDisk();
    await writeBatches(disk, 3);
    const begin = disk.readFile(FIRST_SEGMENT);
    let files: string[] | undefined;
    for (let start = 0; start < 20; start++) {
      disk = start % 2 === 0 ? disk.crash() : disk.kill();
      await openLog(disk);
      files ??= disk.list('/data/wal');
      expect(disk.list('/data/wal')).toEqual(files);
    }
    const found = disk.readFile(FIRST_SEGMENT);
    expect(found.length).toBe(4 * SECTOR_BYTES);
    expect(Buffer.compare(found, begin.subarray(0, found.length))).toBe(0);
    expect(await (await openLog(disk.crash())).contents()).toEqual([
      'entry-1',
      'entry-2',
      'entry-3',
    ]);
  });

  it('survives crash upon crash during recovery itself', async () => {
    let disk = new MemoryDisk();
    await writeBatches(disk, 3);
    for (const operation of ['write', 'dataSync', 'rename', 'syncDirectory'] as const) {
      for (let nth = 1; nth <= 4; nth++) {
        disk = disk.crash();
        disk.fail({ operation, nth, code: 'EIO', sticky: true });
        await openLog(disk).catch(() => {});
      }
    }
    const log = await openLog(disk.crash());
    expect(await log.contents()).toEqual(['entry-1', 'entry-2', 'entry-3']);
  });

  it('never takes a file for one of zeros that a start had begun to write, whichever name was lost', async () => {
    for (let nth = 1, reached = true; reached; nth++) {
      for (const recovery of ['torn-tail', 'strict'] as const) {
        const context = `power lost at sync ${nth}, ${recovery}`;
        let disk = new MemoryDisk({ allowDirect: false });
        const log = await openLog(disk);
        while (!disk.exists('/data/wal/lane-0-spare-0000000000'))
          await log.durable(log.append(texts(1)));
        const acknowledged = log.lastIndex;
        // Killed before the sync returned: the next start finds the batch in the page cache.
        disk.ignoreDataSync = true;
        await log.durable(log.append([new Uint8Array(60_000).fill(9)]));
        disk = disk.kill();
        disk.fail({ operation: 'syncDirectory', nth, code: 'EIO' });
        reached = await openLog(disk).then(
          () => false,
          () => true,
        );
        disk = disk.crash();
        // A shorter batch leaves what stands behind it in the file as it is.
        const again = await openLog(disk, { recovery });
        expect(again.lastIndex, context).toBeGreaterThanOrEqual(acknowledged);
        await again.store.close();
        const closed = await openLog(disk, { recovery });
        expect(closed.lastIndex, context).toBe(again.lastIndex);
      }
    }
  });

  it('takes a carried batch apart that had cut away its own entries', async () => {
    const disk = new MemoryDisk();
    const log = await writeBatches(disk, 3);
    log.append(texts(4, 'gone', 4));
    log.append(texts(4, 'gone', 8));
    log.truncateAfter(1);
    await log.durable(log.append(texts(2, 'kept', 2)));
    const crashed = disk.crash();
    const after = await openLog(crashed);
    expect(await after.contents()).toEqual(['entry-1', 'kept-2', 'kept-3']);
    const again = await openLog(crashed.crash());
    expect(await again.contents()).toEqual(['entry-1', 'kept-2', 'kept-3']);
  });

  it('known bug 5: a vote is found in either of its copies', async () => {
    for (const copy of [0, 1]) {
      const disk = new MemoryDisk();
      const log = await writeBatches(disk, 2);
      await log.durable(log.saveVote(vote(9, 3, false)));
      const after = disk.crash();
      const last = batchPositions(after, FIRST_SEGMENT)[2]!;
      zeroSector(after, FIRST_SEGMENT, last + copy * SECTOR_BYTES);
      const found = await openLog(after);
      expect(found.store.recovered(0).vote, `copy ${copy} lost`).toEqual(vote(9, 3, false));
      // It is durable again: the next crash finds it too.
      const again = await openLog(after.crash());
      expect(again.store.recovered(0).vote).toEqual(vote(9, 3, false));
    }
  });

  it('known bug 51: takes no vote from what an earlier use of the file, or a payload, left in the tail', async () => {
    const plant = async (lsnBehind: number, epochOff: number): Promise<Vote> => {
      const disk = new MemoryDisk();
      const log = await writeBatches(disk, 2);
      await log.durable(log.saveVote(vote(2, 3, false)));
      const after = disk.crash();
      const segment = new DataView(after.readFile(FIRST_SEGMENT).buffer);
      const end = batchPositions(after, FIRST_SEGMENT)[2]! + 2 * SECTOR_BYTES;
      const heap = SharedHeap.create({ maximumBytes: 2 * MIB });
      const state = heap.reserve(HARD_STATE.bytes, 64);
      const { offset } = HARD_STATE;
      const fields = { group: 0, term: 99, votedFor: 2, voteCommitted: false, committed: 0 };
      writeHardState(heap.view, state, fields);
      const startLsn = segment.getBigUint64(SEGMENT.offset.startLsn, true);
      const lsn = startLsn + BigInt(end + lsnBehind);
      heap.view.setBigUint64(state + offset.lsn, lsn, true);
      const epoch = segment.getBigUint64(SEGMENT.offset.epoch, true) + BigInt(epochOff);
      heap.view.setBigUint64(state + offset.epoch, epoch, true);
      heap.exports.xxh3(state, offset.checksum, state + offset.checksum);
      const bytes = heap.slice(state, HARD_STATE.bytes);
      const place = end + SECTOR_BYTES;
      after.damage(FIRST_SEGMENT, place, (found) => found.set(bytes), HARD_STATE.bytes);
      return (await openLog(after)).store.recovered(0).vote;
    };
    const own = vote(2, 3, false);
    expect(await plant(-SECTOR_BYTES, 0), 'of an earlier batch').toEqual(own);
    expect(await plant(SECTOR_BYTES, 0), 'of a later batch').toEqual(own);
    expect(await plant(0, 1), 'of another use of the file').toEqual(own);
    // The one that counts: the second copy of a batch whose header is lost.
    expect(await plant(0, 0)).toEqual(vote(99, 2, false));
  });

  it('known bug 54: rolls over segments and finds all of them again', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    const expected: string[] = [];
    for (let batch = 0; batch < 60; batch++) {
      const payloads = texts(4, `${'x'.repeat(20_000)}-${batch}`);
      expected.push(...payloads.map(text));
      await log.durable(log.append(payloads));
    }
    expect(disk.exists(segmentFile(4))).toBe(true);
    const after = await openLog(disk.crash());
    expect(await after.contents()).toEqual(expected);
  });

  it('refuses a segment whose end was lost although the next one proves it', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk);
    for (let batch = 0; batch < 20; batch++) {
      await log.durable(log.append(texts(4, 'y'.repeat(20_000))));
    }
    const after = disk.crash();
    const last = batchPositions(after, FIRST_SEGMENT).at(-1)!;
    flipByte(after, FIRST_SEGMENT, last + 500);
    await expect(openLog(after)).rejects.toEqual(corrupt(last));
  });

  it('known bug 56: the folder of the log is durable, though its maker was killed before it could say so', async () => {
    for (let nth = 1; nth <= 2; nth++) {
      const disk = new MemoryDisk();
      disk.fail({ operation: 'syncDirectory', nth, code: 'EIO' });
      await expect(openLog(disk)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_FAILED' });
      const log = await openLog(disk);
      await log.durable(log.append(texts(3)));
      const after = await openLog(disk.crash());
      expect(after.lastIndex, `killed at sync ${nth}`).toBe(3);
    }
  });

  it('known bug 56: a segment whose maker was killed before its name was durable is there when the next one is', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 1);
    const killed = disk.kill();
    // The last sync of the folder is that of the name of the first segment of this run.
    const syncs = killed.imageAfterKill();
    await openLog(syncs);
    const count = syncs.calls.syncDirectory;
    killed.fail({ operation: 'syncDirectory', nth: count, code: 'EIO' });
    await expect(openLog(killed)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_FAILED' });
    const found = killed.kill();
    for (let seed = 1; seed <= 20; seed++) {
      const image = found.imageAfterKill();
      image.fail({ operation: 'syncDirectory', nth: count, code: 'EIO' });
      await expect(openLog(image)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_FAILED' });
      const log = await openLog(image.crash('reorder', seed));
      expect(log.lastIndex, `seed ${seed}`).toBeGreaterThan(0);
    }
  });

  it('known bug 56: a segment that is missing between others is proven loss', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 1);
    let after = disk.crash();
    for (let open = 0; open < 2; open++) {
      const log = await openLog(after);
      for (let more = 0; more < 2; more++) await log.durable(log.append(texts(1)));
      after = after.crash();
    }
    after.remove(segmentFile(2));
    await expect(openLog(after)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });
  });

  it('an unreadable header over a valid batch is damage, not an unused file', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 1);
    const after = disk.crash();
    flipByte(after, FIRST_SEGMENT, 20);
    await expect(openLog(after)).rejects.toEqual(corrupt(0));
  });

  it('refuses a segment of a newer format by its version', async () => {
    const disk = new MemoryDisk();
    await writeBatches(disk, 1);
    const after = disk.crash();
    const heap = SharedHeap.create({ maximumBytes: 2 * MIB });
    const pointer = heap.reserve(256, 64);
    after.damage(
      FIRST_SEGMENT,
      0,
      (bytes) => {
        bytes[4] = 2;
        heap.bytes.set(bytes, pointer);
        heap.exports.xxh3(pointer, 120, pointer + 120);
        bytes.set(heap.slice(pointer, 128));
      },
      128,
    );
    await expect(openLog(after)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_VERSION' });
  });

  it('records a commit with the next batch, never beyond the log', async () => {
    const disk = new MemoryDisk();
    const log = await writeBatches(disk, 3);
    log.store.recordCommitted(0, 2);
    await log.durable(log.append(texts(1, 'entry', 4)));
    const after = await openLog(disk.crash());
    expect(after.store.recovered(0).committed).toBe(2);
  });
});
