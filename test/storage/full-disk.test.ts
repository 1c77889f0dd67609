import { describe, expect, it, vi } from 'vitest';
import type { KeelsonError } from '../../dist/base/errors.js';
import type { IoId } from '../../dist/engine/types.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { intercepted, MIB, openLog, type TestLog, texts, vote } from './wal-support.js';

const full = expect.objectContaining({ code: 'KEELSON_STORAGE_FULL', outcome: 'rejected' });

const KINDS = { application: 2, blank: 1 };

/** Writes until no more is taken, or so many entries; returns whether the disk is full. */
async function write(log: TestLog, most: number): Promise<boolean> {
  const failed = log.nextFailure();
  for (let entries = 0; entries < most; entries++) {
    try {
      await Promise.race([log.writeNext(texts(1, 'z'.repeat(10_000))), failed]);
    } catch (error) {
      expect(error).toEqual(full);
      expect(log.failure).toBeUndefined();
      return true;
    }
    if (log.failure !== undefined) throw log.failure;
  }
  return false;
}

async function fill(log: TestLog): Promise<void> {
  if (!(await write(log, 2_000))) throw new Error('the disk did not fill');
}

/** Writes without waiting until no more is taken, and in turns while the memory is full; returns the last I/O. */
async function fillAtOnce(log: TestLog): Promise<IoId> {
  for (let io: IoId | undefined; log.failure === undefined; ) {
    const calls = log.writableCalls;
    try {
      for (;;) io = log.append(texts(1, 'z'.repeat(10_000)));
    } catch (error) {
      if ((error as KeelsonError).code !== 'KEELSON_OVERLOADED') {
        expect(error).toEqual(full);
        return io!;
      }
    }
    await Promise.race([log.writableAfter(calls), log.nextFailure()]);
  }
  throw log.failure;
}

/** Purges all, and writes an entry of that term as soon as one is taken. */
async function giveUpAll(log: TestLog, term = 1): Promise<void> {
  log.purge(log.lastIndex);
  for (;;) {
    const calls = log.writableCalls;
    try {
      await log.durable(await log.appendInTime(texts(1), term));
      return;
    } catch (error) {
      expect(error).toEqual(full);
    }
    await Promise.race([log.writableAfter(calls), log.nextFailure()]);
    expect(log.failure).toBeUndefined();
  }
}

const sizes = [1.25, 1.75, 2, 2.25, 2.75, 4];

describe.each(sizes)('a disk with room for %s segments that the log has filled', (segments) => {
  const capacityBytes = segments * MIB;

  it('takes votes, truncations, purges and the entry that opens a term', async () => {
    const disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    await fill(log);
    const { lastIndex } = log;
    expect(lastIndex * 10_000).toBeGreaterThan(MIB / 2);
    for (let term = 2; term < 30; term++) await log.durable(log.saveVote(vote(term, 2, false)));
    await log.durable(log.append([new Uint8Array(0)], 30, 0, lastIndex + 1, KINDS.blank));
    await log.durable(log.truncateAfter(lastIndex, vote(31)));
    const found = await openLog(disk.crash());
    expect(found.lastIndex).toBe(lastIndex);
    expect(found.store.recovered(0).vote).toEqual(vote(31));
  });

  it('known bug 50: is opened again, however often, and takes what a start has given back', async () => {
    let disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    await fill(log);
    let expected = await log.contents();
    for (let start = 0; start < 20; start++) {
      disk = start % 2 === 0 ? disk.crash() : disk.kill();
      const found = await openLog(disk);
      expect(await found.contents()).toEqual(expected);
      if (disk.freeBytes() >= MIB / 2) {
        await fill(found);
        expected = await found.contents();
      }
      expect(() => found.append(texts(1, 'z'.repeat(10_000)))).toThrowError(full);
      await found.durable(found.saveVote(vote(start + 2)));
      if (start % 5 === 4) await found.store.close();
    }
  });

  it('takes entries again, and tells so, when there is room', async () => {
    const disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    await fill(log);
    expect(log.writableCalls).toBe(0);
    disk.capacityBytes += 2 * MIB;
    await vi.waitFor(() => expect(log.writableCalls).toBe(1), 10_000);
    await log.durable(log.append(texts(1)));
  });

  it('takes entries again, and is full again, as often as it is purged', async () => {
    const disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    for (let round = 1; round <= 3; round++) {
      const before = log.lastIndex;
      await fill(log);
      expect((log.lastIndex - before) * 10_000).toBeGreaterThan(MIB / 2);
      await giveUpAll(log);
    }
    expect((await openLog(disk.crash())).lastIndex).toBe(log.lastIndex);
  });

  it('known bug 50: fails before votes have used up what a start needs, and is opened again', async () => {
    let disk = new MemoryDisk({ capacityBytes });
    let log = await openLog(disk);
    await fill(log);
    const { lastIndex } = log;
    for (let start = 0, term = 2; start < 10; start++) {
      const failed = log.nextFailure();
      let last = term;
      while (log.failure === undefined) {
        last = term++;
        await Promise.race([log.durable(log.saveVote(vote(last))), failed]);
      }
      expect(log.failure).toEqual(expect.objectContaining({ code: 'KEELSON_STORAGE_FULL' }));
      disk = start % 2 === 0 ? disk.crash() : disk.kill();
      log = await openLog(disk);
      expect(log.lastIndex).toBe(lastIndex);
      expect(log.store.recovered(0).vote).toEqual(vote(last - 1));
      term = last;
    }
    // What votes have left is enough for a purge, and for what that gives up.
    await giveUpAll(log, 1_000);
  });

  it('known bug 50: takes no more from clients who keep its memory full than it can write', async () => {
    const disk = new MemoryDisk({ capacityBytes });
    const log = await openLog(disk);
    const io = await fillAtOnce(log);
    await Promise.race([log.durable(io), log.nextFailure()]);
    expect(log.failure).toBeUndefined();
    await log.durable(log.saveVote(vote(2)));
    const found = await openLog(disk.crash());
    expect(found.lastIndex).toBe(log.lastIndex);
    expect(found.store.recovered(0).vote).toEqual(vote(2));
  });
});

it('a log that has filled its disk and is purged gives up segments by itself, and goes on', async () => {
  const disk = new MemoryDisk({ capacityBytes: 4 * MIB });
  const log = await openLog(disk);
  await fill(log);
  log.purge(log.lastIndex - 1);
  await vi.waitFor(() => expect(log.writableCalls).toBe(1), 10_000);
  await log.durable(log.append(texts(1)));
  expect((await openLog(disk.crash())).lastIndex).toBe(log.lastIndex);
});

it.each([1.25, 1.75, 3, 6])(
  'a log of one entry does not keep a disk of %s segments full',
  async (segments) => {
    const disk = new MemoryDisk({ capacityBytes: segments * MIB });
    const log = await openLog(disk);
    await log.write(texts(1, 'idle'), 1, 1, 1);
    log.lastIndex = 0;
    for (let round = 1; round <= 2; round++) {
      await fill(log);
      await giveUpAll(log);
    }
    const found = await openLog(disk.crash());
    expect(await found.contents(1)).toEqual(['idle-1']);
  },
);

it('a load that purges what it writes goes on for ever on a disk of 2.5 segments', async () => {
  const disk = new MemoryDisk({ capacityBytes: 2.5 * MIB });
  const log = await openLog(disk);
  for (let round = 1; round <= 20; round++) {
    const calls = log.writableCalls;
    const full = await write(log, 40);
    log.purge(log.lastIndex);
    if (full) await log.writableAfter(calls);
  }
  expect(log.store.metrics().retiredSegments).toBeGreaterThan(4);
});

it('a full disk that once does not tell how much room it has is asked again', async () => {
  const disk = new MemoryDisk({ capacityBytes: 2 * MIB });
  let silent = 0;
  const executor = intercepted(disk, (task, proceed) => {
    if (task.type !== 'space' || silent === 0) return proceed();
    silent--;
    return Promise.reject(new Error('EIO'));
  });
  const log = await openLog(disk, { executor });
  await fill(log);
  silent = 1;
  disk.capacityBytes += 2 * MIB;
  await vi.waitFor(() => expect(log.writableCalls).toBe(1), 10_000);
  expect(silent).toBe(0);
});

it('a follower on a full disk takes the entry that opens a term, as its leader does, but none of clients', async () => {
  const disk = new MemoryDisk({ capacityBytes: 2 * MIB });
  const log = await openLog(disk);
  await fill(log);
  const { lastIndex } = log;
  const leader = await openLog(new MemoryDisk());
  leader.store.resetLog(0, { index: lastIndex, term: 1 }, leader.nextIo(1, lastIndex));
  leader.append([new Uint8Array(0)], 2, 0, lastIndex + 1, KINDS.blank);
  await leader.durable(leader.append(texts(1), 2));
  const sent = async (index: number) => (await leader.store.read(0, index, index, 4096)).parts;
  const blank = await sent(lastIndex + 1);
  const ofClient = await sent(lastIndex + 2);
  const staged = log.store.receive(0, lastIndex + 1, blank);
  const io = log.nextIo(2, lastIndex + 1);
  log.store.append(0, staged, lastIndex + 1, io);
  await log.durable(io);
  expect(() => log.store.receive(0, lastIndex + 2, ofClient)).toThrowError(full);
  expect((await openLog(disk.crash())).lastIndex).toBe(lastIndex + 1);
});

it.each([3.75, 4, 5, 6.5])(
  'clients of two lanes take no more together of a disk of %s segments than both can write',
  async (segments) => {
    const disk = new MemoryDisk({ capacityBytes: segments * MIB });
    const log = await openLog(disk, { lanes: 2 });
    const last = [0, 0];
    const ios: IoId[] = [];
    const payloads = texts(1, 'z'.repeat(10_000));
    // A turn fills the memory of both before anything is written.
    for (let refused = 0; refused < 2 && log.failure === undefined; ) {
      refused = 0;
      const calls = log.writableCalls;
      for (const group of [0, 1]) {
        try {
          for (;;) {
            ios[group] = log.append(payloads, 1, group, last[group]! + 1);
            last[group]!++;
          }
        } catch (error) {
          if ((error as KeelsonError).code !== 'KEELSON_OVERLOADED') {
            expect(error).toEqual(full);
            refused++;
          }
        }
      }
      if (refused < 2) await Promise.race([log.writableAfter(calls), log.nextFailure()]);
    }
    for (const group of [0, 1]) {
      await Promise.race([log.durable(ios[group]!, group), log.nextFailure()]);
      await Promise.race([log.durable(log.saveVote(vote(2), group), group), log.nextFailure()]);
    }
    expect(log.failure).toBeUndefined();
    const { store } = await openLog(disk.crash(), { lanes: 2 });
    expect([0, 1].map((group) => store.recovered(group).lastIndex)).toEqual(last);
  },
);
