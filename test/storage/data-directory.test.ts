import { describe, expect, it } from 'vitest';
import { logHasBegun, openDataDirectory } from '../../dist/storage/data-directory.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { clusterIdOf } from '../../dist/storage/manifest.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import {
  DIRECTORY,
  FIRST_SEGMENT,
  MIB,
  openLog,
  segmentFile,
  type TestLog,
  texts,
} from './wal-support.js';

const expected = {
  clusterName: 'bank',
  clusterId: clusterIdOf('bank', { 1: 'a:7000' }),
  nodeId: 1,
  laneCount: 1,
  segmentBytes: MIB,
};

/** Opens a directory as a host does, up to the first message. */
async function open(disk: MemoryDisk, lanes = 1): Promise<TestLog> {
  const manifest = openDataDirectory(
    disk,
    DIRECTORY,
    { ...expected, laneCount: lanes },
    (length) => new Uint8Array(length),
  );
  const log = await openLog(disk, { lanes });
  logHasBegun(disk, DIRECTORY, manifest);
  return log;
}

function newDisk(): MemoryDisk {
  const disk = new MemoryDisk();
  makeDirectories(disk, DIRECTORY);
  return disk;
}

const corrupt = (...words: string[]): object => ({
  code: 'KEELSON_STORAGE_CORRUPT',
  message: expect.stringMatching(words.join('.*')),
});

function removeLog(disk: MemoryDisk): void {
  for (const name of disk.list(`${DIRECTORY}/wal`)) disk.remove(`${DIRECTORY}/wal/${name}`);
}

describe('a data directory', () => {
  it('that lost its log is refused, with or without the folder', async () => {
    const disk = newDisk();
    const log = await open(disk);
    await log.durable(log.append(texts(1)));
    await log.store.close();
    removeLog(disk);
    await expect(open(disk)).rejects.toMatchObject(corrupt('/data has lost its log', 'Restore'));
    const file = disk.open(`${DIRECTORY}/wal/lane-0-spare-0000000000`, {
      access: 'write',
      create: true,
    });
    file.close();
    await expect(open(disk)).rejects.toMatchObject(corrupt('has lost its log'));
    const bare = newDisk();
    const manifest = bare.open(`${DIRECTORY}/manifest`, { access: 'write', create: true });
    manifest.write(disk.readFile(`${DIRECTORY}/manifest`), 0);
    manifest.close();
    await expect(open(bare)).rejects.toMatchObject(corrupt('has lost its log'));
  });

  it('knows that its log has begun before anything of it is acknowledged', async () => {
    const disk = newDisk();
    await open(disk);
    const crashed = disk.crash();
    removeLog(crashed);
    await expect(open(crashed)).rejects.toMatchObject(corrupt('has lost its log'));
  });

  it.each([0, 1, 2])(
    'that lost lane %i of its log is refused, and so is a lane too many',
    async (lane) => {
      const disk = newDisk();
      await (await open(disk, 3)).store.close();
      const image = disk.imageAfterKill();
      for (const name of image.list(`${DIRECTORY}/wal`)) {
        if (name.startsWith(`lane-${lane}-`)) image.remove(`${DIRECTORY}/wal/${name}`);
      }
      const left = image.list(`${DIRECTORY}/wal`);
      const lost = corrupt(`/data has lost lane ${lane} of its log`, 'Restore');
      await expect(open(image, 3)).rejects.toMatchObject({ ...lost, details: { lanes: [lane] } });
      expect(image.list(`${DIRECTORY}/wal`)).toEqual(left);
      disk.rename(segmentFile(1, lane), segmentFile(1, 3));
      await expect(open(disk, 3)).rejects.toMatchObject(corrupt('a log of 3 lanes', 'of lane 3'));
    },
  );

  it('refuses another number of lanes, and changes nothing', async () => {
    const disk = newDisk();
    await (await open(disk, 2)).store.close();
    const killed = disk.kill();
    const calls = killed.recordCalls();
    for (const lanes of [1, 3]) {
      await expect(open(killed, lanes)).rejects.toMatchObject({
        code: 'KEELSON_STORAGE_MISMATCH',
        message: expect.stringContaining(`number of lanes 2, expected ${lanes}`),
        details: { directory: DIRECTORY, field: 'laneCount', found: 2, expected: lanes },
      });
    }
    expect(calls.filter(({ changes }) => changes)).toEqual([]);
    await (await open(killed, 2)).store.close();
  });

  it('whose log has lost its manifest is refused', async () => {
    const disk = newDisk();
    await (await open(disk)).store.close();
    disk.remove(`${DIRECTORY}/manifest`);
    await expect(open(disk)).rejects.toMatchObject(corrupt("'manifest' is missing"));
  });

  it.each([1, 2])(
    'of %i lanes opens after a crash at any call of its first start',
    async (lanes) => {
      const operations = [
        'open',
        'write',
        'extend',
        'dataSync',
        'rename',
        'remove',
        'syncDirectory',
      ] as const;
      for (const operation of operations) {
        for (let nth = 1, reached = true; reached; nth++) {
          for (const mode of ['discard', 'random'] as const) {
            const context = `${operation} ${nth} ${mode} seed ${nth}`;
            const disk = newDisk();
            disk.fail({ operation, nth, code: 'EIO', sticky: true });
            reached = await open(disk, lanes).then(
              () => false,
              () => true,
            );
            const log = await open(disk.crash(mode, nth), lanes);
            await log.durable(log.append(texts(1)));
            expect(log.lastIndex, context).toBe(1);
          }
        }
      }
    },
  );

  it('has its first segment before it says so', async () => {
    const disk = newDisk();
    const manifest = openDataDirectory(disk, DIRECTORY, expected, (bytes) => new Uint8Array(bytes));
    expect(manifest.logBegun).toBe(false);
    await openLog(disk);
    expect(disk.imageAfterCrash().exists(FIRST_SEGMENT)).toBe(true);
    logHasBegun(disk, DIRECTORY, manifest);
    const again = openDataDirectory(disk, DIRECTORY, expected, (bytes) => new Uint8Array(bytes));
    expect(again.logBegun).toBe(true);
  });
});
