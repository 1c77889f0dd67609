import { expect, it } from 'vitest';
import { type Logger, silentLogger } from '../../dist/base/logger.js';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { restoreMachine, type StartingPoint } from '../../dist/restore-machine.js';
import { encodeMembership } from '../../dist/runtime/membership-codec.js';
import type { MachineHost } from '../../dist/state-machine/machine-host.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { SnapshotStore } from '../../dist/storage/snapshot-store.js';
import { headerAt, openSnapshots, patternOf } from '../storage/snapshot-support.js';

const scheduler = new SystemScheduler();
const MEMBERSHIP = { configs: [[1]], learners: [], addresses: { 1: 'a:1' } };

/** A host that notes the bytes of each restore that came to its end. */
function hostOf(version = 7): { host: MachineHost; restored: { bytes: number; index: number }[] } {
  const restored: { bytes: number; index: number }[] = [];
  const host = {
    version,
    async restore(chunks: AsyncIterable<Uint8Array>, index: number): Promise<void> {
      let bytes = 0;
      for await (const chunk of chunks) bytes += chunk.length;
      restored.push({ bytes, index });
    },
  } as unknown as MachineHost;
  return { host, restored };
}

async function snapshotsAt(
  disk: MemoryDisk,
  ...indexes: readonly number[]
): Promise<SnapshotStore> {
  const store = await openSnapshots(disk, { keep: 3 });
  for (const index of indexes) {
    const membership = encodeMembership(MEMBERSHIP);
    const writer = await store.create({ ...headerAt(index), membership });
    await writer.append(patternOf(300));
    await writer.publish();
  }
  return store;
}

/** Adds a snapshot that another node has sent. */
async function receive(store: SnapshotStore, index: number): Promise<void> {
  const disk = new MemoryDisk();
  const { newest } = await snapshotsAt(disk, index);
  const { id, lastIncluded, bytes: totalBytes, file, machineVersion } = newest!;
  const receiver = await store.receive({ id, lastIncluded, totalBytes }, machineVersion);
  await receiver.append(Uint8Array.from(disk.readFile(file)));
  await receiver.publish();
}

const logTo = (lastIndex: number, purged = 0) => ({
  vote: { term: 3, nodeId: 1, committed: true },
  purged: { term: purged === 0 ? 0 : 3, index: purged },
  termRuns: [{ firstIndex: purged + 1, term: 3 }],
  lastIndex,
  committed: lastIndex,
  memberships: [],
});

function start(
  snapshots: SnapshotStore,
  host: MachineHost,
  log: ReturnType<typeof logTo>,
  applied = 0,
  logger: Logger = silentLogger,
): Promise<StartingPoint> {
  return restoreMachine({ snapshots, machine: host, scheduler, logger }, log, applied);
}

it('takes the newest snapshot, its membership and its time', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20);
  const { host, restored } = hostOf();
  const found = await start(snapshots, host, logTo(25));
  expect(restored).toEqual([{ bytes: 300, index: 20 }]);
  expect(found).toMatchObject({ applied: 20, time: headerAt(20).time });
  expect(found.recovered.snapshot).toEqual({
    lastIncluded: { term: 3, index: 20 },
    membership: { index: 1, membership: MEMBERSHIP },
  });
});

it('passes over one that turns out to be damaged while it is read', async () => {
  const disk = new MemoryDisk();
  const snapshots = await snapshotsAt(disk, 10, 20);
  const flip = (bytes: Uint8Array): void => {
    bytes[0]! ^= 1;
  };
  disk.damage(snapshots.newest!.file, 400, flip);
  const { host, restored } = hostOf();
  const found = await start(snapshots, host, logTo(25));
  expect(restored).toEqual([{ bytes: 300, index: 10 }]);
  expect(found.applied).toBe(10);
});

it('restores nothing into a machine that is ahead by itself', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20);
  const { host, restored } = hostOf();
  const found = await start(snapshots, host, logTo(25), 22);
  expect(restored).toEqual([]);
  expect(found.applied).toBe(22);
  expect(found.recovered.snapshot?.lastIncluded.index).toBe(20);
});

it('refuses a machine that has seen more than log and snapshots hold', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk());
  await receive(snapshots, 30);
  const { host } = hostOf();
  const corrupt = expect.objectContaining({ code: 'KEELSON_STORAGE_CORRUPT' });
  await expect(start(snapshots, host, logTo(25), 31)).rejects.toEqual(corrupt);
  expect((await start(snapshots, host, logTo(25), 30)).applied).toBe(30);
});

it('removes snapshots from which no log leads on', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20, 30);
  const { host } = hostOf();
  await start(snapshots, host, logTo(35, 20));
  expect(snapshots.snapshots.map(({ lastIncluded }) => lastIncluded.index)).toEqual([30, 20]);
});

/** A host whose restore throws for the snapshot of this index, or for any. */
function failingHost(bug: Error, failing?: number): ReturnType<typeof hostOf> {
  const sound = hostOf();
  const restore = (chunks: AsyncIterable<Uint8Array>, index: number): Promise<void> =>
    failing === undefined || index === failing
      ? Promise.reject(bug)
      : sound.host.restore(chunks, index);
  return { host: { version: 7, restore } as unknown as MachineHost, restored: sound.restored };
}

it('takes the one before when the machine cannot be restored from the newest', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20);
  const { host, restored } = failingHost(new Error('a bug of the machine'), 20);
  const found = await start(snapshots, host, logTo(25));
  expect(restored).toEqual([{ bytes: 300, index: 10 }]);
  expect(found.applied).toBe(10);
  expect(snapshots.damaged[0]?.finding).toBe('it cannot be restored: a bug of the machine');
});

it.each([
  ['the log is whole', 0],
  ['the log begins behind the older one', 20],
])(
  'lets the machine fail by itself when it can be restored from none, and %s',
  async (_, purged) => {
    const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20);
    const bug = new Error('a bug of the machine');
    await expect(start(snapshots, failingHost(bug).host, logTo(25, purged))).rejects.toBe(bug);
  },
);

it('reads from a bad sector as little as from a damaged file: an older one takes its place', async () => {
  const disk = new MemoryDisk();
  const snapshots = await snapshotsAt(disk, 10, 20);
  const { file } = snapshots.newest!;
  disk.fail({ operation: 'read', nth: 4, code: 'EIO', pathIncludes: file, sticky: true });
  const { host, restored } = hostOf();
  await start(snapshots, host, logTo(25));
  expect(restored).toEqual([{ bytes: 300, index: 10 }]);
  expect(snapshots.damaged[0]?.finding).toMatch(/cannot be read/);
});

it.each([
  ['ends before it', logTo(29)],
  ['is empty', { ...logTo(0), termRuns: [] }],
  [
    'holds an entry of another term at its index',
    { ...logTo(40), termRuns: [{ firstIndex: 1, term: 2 }] },
  ],
])('refuses a log that does not lead to a snapshot that was built here: it %s', async (_, log) => {
  const disk = new MemoryDisk();
  const snapshots = await snapshotsAt(disk, 10, 30);
  const { file } = snapshots.newest!;
  const { host, restored } = hostOf();
  const lost = { code: 'KEELSON_STORAGE_CORRUPT', details: { file, index: 30 } };
  await expect(start(snapshots, host, log)).rejects.toMatchObject(lost);
  await receive(snapshots, 50);
  // However new a received one is: the log was lost before it came.
  await expect(start(snapshots, host, log)).rejects.toMatchObject(lost);
  expect(restored).toEqual([]);
  expect((await openSnapshots(disk)).snapshots).toHaveLength(3);
});

it('reads from a snapshot that was built here when the log is known to have lost its end', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 30);
  const { host, restored } = hostOf();
  const parts = { snapshots, machine: host, scheduler, logger: silentLogger };
  const loss = { group: 0, ranges: [{ firstIndex: 20, lastIndex: undefined }], voteInDoubt: true };
  const found = await restoreMachine(parts, logTo(19), 0, loss);
  expect(restored).toEqual([{ bytes: 300, index: 30 }]);
  expect(found.applied).toBe(30);
});

it('takes a received snapshot in the place of a log that does not lead to it, and knows it again', async () => {
  const disk = new MemoryDisk();
  await receive(await snapshotsAt(disk, 10), 30);
  const snapshots = await openSnapshots(disk, { keep: 3 });
  expect(snapshots.snapshots.map(({ received }) => received)).toEqual([true, false]);
  expect((await start(snapshots, hostOf().host, logTo(25))).applied).toBe(30);
});

it('asks nothing of a log that begins behind a snapshot, or at it', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20);
  const log = { ...logTo(30, 20), termRuns: [{ firstIndex: 21, term: 3 }] };
  expect((await start(snapshots, hostOf().host, log)).applied).toBe(20);
});

it('never goes on by the log with a machine that was given half of a snapshot', async () => {
  const disk = new MemoryDisk();
  const snapshots = await snapshotsAt(disk, 10);
  disk.damage(snapshots.newest!.file, 400, (bytes) => {
    bytes[0]! ^= 1;
  });
  await expect(start(snapshots, hostOf().host, logTo(25))).rejects.toMatchObject({
    code: 'KEELSON_STORAGE_CORRUPT',
    message: expect.stringContaining('start the node again'),
  });
  const again = await openSnapshots(disk);
  expect((await start(again, hostOf().host, logTo(25))).applied).toBe(0);
});

it('takes no machine at its word that has not heard of the damage', async () => {
  const disk = new MemoryDisk();
  const snapshots = await snapshotsAt(disk, 10);
  disk.damage(snapshots.newest!.file, 400, (bytes) => {
    bytes[0]! ^= 1;
  });
  const restore = async (chunks: AsyncIterable<Uint8Array>): Promise<void> => {
    await hostOf()
      .host.restore(chunks, 10)
      .catch(() => {});
  };
  const deaf = { version: 7, restore } as unknown as MachineHost;
  await expect(start(snapshots, deaf, logTo(25))).rejects.toMatchObject({
    code: 'KEELSON_STORAGE_CORRUPT',
  });
});

it('ends in the middle of a snapshot when the start is over, and tries no other one', async () => {
  const snapshots = await snapshotsAt(new MemoryDisk(), 10, 20);
  const { host, restored } = hostOf();
  const over = new Error('the start was given up');
  let chunks = 0;
  const check = (): void => {
    if (++chunks > 2) throw over;
  };
  const parts = { snapshots, machine: host, scheduler, logger: silentLogger, check };
  await expect(restoreMachine(parts, logTo(25), 0)).rejects.toBe(over);
  expect(restored).toEqual([]);
  expect(snapshots.snapshots).toHaveLength(2);
});
