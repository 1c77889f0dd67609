import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { PiscinaExecutor } from '../../dist/storage/piscina-executor.js';
import { openLog, type TestLog, texts, vote } from './wal-support.js';

const directories: string[] = [];

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'keelson-wal-'));
  directories.push(directory);
  return directory;
}

function openOnDisk(directory: string): Promise<TestLog> {
  return openLog(new MemoryDisk(), {
    directory,
    executor: (heap, scheduler) => new PiscinaExecutor(heap, scheduler),
  });
}

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

describe('the write-ahead log in worker threads', () => {
  it('recovers what it wrote, in order, with its votes', async () => {
    const directory = temporaryDirectory();
    const log = await openOnDisk(directory);
    await log.durable(log.append(texts(10)));
    await log.durable(log.saveVote(vote(2, 3, false)));
    await log.store.close();
    const after = await openOnDisk(directory);
    expect(after.store.recovered(0).vote).toEqual(vote(2, 3, false));
    expect(await after.contents()).toHaveLength(10);
    await after.durable(after.append(texts(1, 'more'), 2));
    await after.store.close();
  });
});
