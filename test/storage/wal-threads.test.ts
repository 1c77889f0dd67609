import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { decodeMembership } from '../../dist/runtime/membership-codec.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import {
  PiscinaExecutor,
  type PiscinaExecutorOptions,
} from '../../dist/storage/piscina-executor.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MIB, openLog, TestLog, texts } from './wal-support.js';

const directories: string[] = [];

function temporaryDirectory(name: string): string {
  const directory = mkdtempSync(join(tmpdir(), `keelson-${name}-`));
  directories.push(directory);
  return directory;
}

function openOnDisk(
  directory: string,
  options: PiscinaExecutorOptions = {},
  { closeTimeoutMs = 10_000, lanes = 1 } = {},
): Promise<TestLog> {
  return openLog(new MemoryDisk(), {
    directory,
    closeTimeoutMs,
    lanes,
    executor: (heap, scheduler) => new PiscinaExecutor(heap, scheduler, options),
  });
}

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

describe('the threads of the write-ahead log', () => {
  it.runIf(process.platform === 'linux')('leave no file open once they have ended', async () => {
    const directory = temporaryDirectory('descriptors');
    const openFiles = (): string[] =>
      readdirSync('/proc/self/fd').flatMap((descriptor) => {
        try {
          const path = readlinkSync(`/proc/self/fd/${descriptor}`);
          return path.startsWith(directory) ? [path] : [];
        } catch {
          // The one of this listing is gone.
          return [];
        }
      });
    const log = await openOnDisk(directory);
    for (let batch = 0; batch < 40; batch++) {
      await log.durable(log.append(texts(8, 'f'.repeat(9_000))));
    }
    await log.contents();
    expect(log.store.metrics().cacheMisses).toBeGreaterThan(0);
    expect(openFiles()).not.toEqual([]);
    await log.store.close();
    expect(openFiles()).toEqual([]);
  });

  it('a missing worker file is named, with the remedy', async () => {
    const workerFile = new URL('./no-such-worker.js', import.meta.url);
    await expect(openOnDisk(temporaryDirectory('missing'), { workerFile })).rejects.toMatchObject({
      code: 'KEELSON_MISSING_FILE',
      message: expect.stringContaining('no-such-worker.js'),
      details: { file: workerFile.pathname },
    });
  });

  it('a worker file that does not load is named before the handshake would time out', async () => {
    const workerFile = new URL('./wal-broken-worker.mjs', import.meta.url);
    const handshakeTimeoutMs = 60_000;
    const opening = openOnDisk(temporaryDirectory('broken'), { workerFile, handshakeTimeoutMs });
    await expect(opening).rejects.toMatchObject({
      code: 'KEELSON_MISSING_FILE',
      message: expect.stringContaining('wal-broken-worker.mjs'),
      details: { file: workerFile.pathname },
    });
  });

  it('a thread that takes too long to start is told, with what it was given', async () => {
    const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
    const options = { directory: temporaryDirectory('slow'), segmentBytes: MIB, ringBytes: MIB };
    const limits = { maxBatchBytes: MIB / 4, maxBatchEntries: 1024, maxQueuedBatches: 2 };
    const opening = WalLogStore.open(
      {
        ...options,
        ...limits,
        lingerMicros: 0,
        recovery: 'strict',
        directIo: 'auto',
        maxIndexBytes: 4 * MIB,
        workerStartTimeoutMs: 1,
      },
      {
        heap,
        scheduler: new SystemScheduler(),
        events: new TestLog(),
        decodeMembership,
      },
    );
    await expect(opening).rejects.toMatchObject({
      code: 'KEELSON_MISSING_FILE',
      message: expect.stringContaining(' 1 ms'),
    });
  });

  it('read several lanes side by side at a start', async () => {
    const directory = temporaryDirectory('meeting');
    const groups = [0, 1];
    const before = await openOnDisk(directory, {}, { lanes: 2 });
    for (const group of groups) await before.write(texts(3, `of-${group}`), 1, group, 1);
    await before.store.close();
    const workerFile = new URL('./wal-meeting-worker.mjs', import.meta.url);
    const after = await openOnDisk(directory, { workerFile }, { lanes: 2 });
    for (const group of groups) {
      const expected = [1, 2, 3].map((index) => `of-${group}-${index}`);
      expect(await after.contents(group)).toEqual(expected);
    }
    await after.store.close();
  });

  it.each([1, 2])('the death of a thread of %i lanes poisons the store for good', async (lanes) => {
    const workerFile = new URL('./wal-dying-worker.mjs', import.meta.url);
    const directory = temporaryDirectory('dying');
    const log = await openOnDisk(directory, { workerFile }, { lanes });
    // How often the lane sleeps before it dies depends on how fast the entries come.
    while (log.failure === undefined) {
      await Promise.race([log.durable(log.append(texts(1))), log.nextFailure()]);
    }
    expect(log.failure).toMatchObject({ code: 'KEELSON_STORAGE_FAILED', outcome: 'unknown' });
    expect(() => log.append(texts(1))).toThrowError(
      expect.objectContaining({ code: 'KEELSON_STORAGE_FAILED' }),
    );
    const acknowledged = log.flushedIos.length;
    log.store.saveVote(1, log.nextIo(2, 0));
    await log.store.close();
    expect(log.flushedIos).toHaveLength(acknowledged);
    const after = await openOnDisk(directory, {}, { lanes });
    expect(after.lastIndex).toBeGreaterThanOrEqual(acknowledged);
    await after.store.close();
  });

  for (const end of ['dies', 'was replaced']) {
    it(`a thread that ${end} when it makes a file ahead poisons the store as well`, async () => {
      const workerFile = new URL('./wal-dying-task-worker.mjs', import.meta.url);
      const log = await openOnDisk(temporaryDirectory(end.replace(' ', '-')), { workerFile });
      // Two segments: the file of the second one is begun long before.
      while (log.failure === undefined && log.lastIndex < 500) {
        const io = log.append(texts(1, 'x'.repeat(3_000)));
        await Promise.race([log.durable(io), log.nextFailure()]);
      }
      expect(log.failure).toMatchObject({ code: 'KEELSON_STORAGE_FAILED', outcome: 'unknown' });
      await log.store.close();
    });
  }

  it('a disk that hangs does not hang close: all of it ends within its limit', async () => {
    const closeTimeoutMs = 1_000;
    const workerFile = new URL('./wal-hanging-worker.mjs', import.meta.url);
    const directory = temporaryDirectory('hang');
    const log = await openOnDisk(directory, { workerFile }, { closeTimeoutMs });
    await log.durable(log.append(texts(1)));
    writeFileSync(join(directory, 'wal', 'hang'), '');
    const stuck = log.append(texts(1));
    const clock = new SystemScheduler();
    const begun = clock.now();
    await log.store.close();
    // Room for a busy machine, and less than a second limit would take.
    expect(clock.now() - begun).toBeLessThan(1.8 * closeTimeoutMs);
    expect(log.flushedIos.at(-1)!.io.sequence).toBeLessThan(stuck.sequence);
    // That the threads were ended is no failure of the store.
    expect(log.failure).toBeUndefined();
    const after = await openOnDisk(directory);
    expect(await after.contents()).toContain('entry-1');
    await after.store.close();
  });
});
