/** The snapshots that `keelson inspect` and `keelson verify` find. */
import { expect, it } from 'vitest';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { makeIdentity, surveyOf } from './directory-support.js';
import { build, DIRECTORY, openSnapshots, scheduler } from './snapshot-support.js';
import { MIB, openLog } from './wal-support.js';

it('each snapshot is told and read to its end, and one that is damaged is a problem', async () => {
  const disk = new MemoryDisk();
  makeIdentity(disk, MIB);
  await openLog(disk);
  const store = await openSnapshots(disk);
  const infos = [await build(store, 10), await build(store, 25)];
  await store.close(scheduler.now() + 1_000);
  const { snapshots, problems, space } = await surveyOf(disk);
  expect(problems).toEqual([]);
  expect(snapshots).toEqual(
    infos.map(({ file, bytes: fileBytes, lastIncluded, id, created, machineVersion }) => ({
      ...{ group: 0, file, fileBytes, lastIncluded, id, created, machineVersion },
    })),
  );
  expect(space.snapshots).toBe(infos.reduce((sum, { bytes }) => sum + bytes, 0));

  // Behind the header: only who reads it to the end finds it.
  const { file, bytes } = infos[0]!;
  disk.damage(file, bytes - 60, (byte) => byte.fill(0xff));
  const after = await surveyOf(disk);
  expect(after.snapshots).toMatchObject([{ file: infos[1]!.file }]);
  expect(after.problems).toMatchObject([{ code: 'KEELSON_STORAGE_CORRUPT', file }]);
  expect(after.problems[0]!.meaning).toContain(`the snapshot ${file} is damaged`);
});

it('a snapshot that is being made is no snapshot yet', async () => {
  const disk = new MemoryDisk();
  makeIdentity(disk, MIB);
  await openLog(disk);
  const store = await openSnapshots(disk);
  await build(store, 10);
  const unfinished = disk.open(`${DIRECTORY}/build-${'0'.repeat(32)}.tmp`, {
    access: 'write',
    create: true,
  });
  unfinished.write(new Uint8Array(77), 0);
  const { snapshots, problems, space } = await surveyOf(disk);
  expect([snapshots.length, problems, space.temporary]).toEqual([1, [], 77]);
  await store.close(scheduler.now() + 1_000);
});
