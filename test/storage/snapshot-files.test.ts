import { describe, expect, it } from 'vitest';
import type { KeelsonError } from '../../dist/base/errors.js';
import { type LogFields, silentLogger } from '../../dist/base/logger.js';
import type { MemoryDisk } from '../../dist/storage/memory-disk.js';
import {
  SNAPSHOT_CHUNK,
  SNAPSHOT_FOOTER,
  SNAPSHOT_HEADER,
} from '../../dist/storage/snapshot-layout.js';
import type { SnapshotStore, SnapshotWriter } from '../../dist/storage/snapshot-store.js';
import type { AnnouncedSnapshot } from '../../dist/storage/snapshot-tasks.js';
import {
  build,
  DIRECTORY,
  headerAt,
  newDisk,
  openSnapshots,
  patternOf,
  payloadOf,
} from './snapshot-support.js';

const CHUNK = 64;
const WHOLE_CHUNK = SNAPSHOT_CHUNK.bytes + CHUNK + SNAPSHOT_CHUNK.checksumBytes;
const FIRST_CHUNK = SNAPSHOT_HEADER.bytes + 3;

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: KeelsonError) => error.code,
  );
}

async function buildOrAbort(store: SnapshotStore, index: number): Promise<void> {
  const writer = await store.create(headerAt(index));
  try {
    await writer.append(patternOf(300));
    await writer.publish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** A file of 300 payload bytes: four whole chunks and one of 44 bytes. */
async function oneSnapshot(): Promise<{ disk: MemoryDisk; store: SnapshotStore; file: string }> {
  const disk = newDisk();
  const store = await openSnapshots(disk);
  const { file } = await build(store, 10);
  return { disk, store, file };
}

describe('a snapshot file', () => {
  it('gives back its header and its payload, after a restart too', async () => {
    const { disk, store, file } = await oneSnapshot();
    const { newest } = await openSnapshots(disk.crash());
    expect(newest).toEqual(store.newest);
    expect(newest).toMatchObject({ ...headerAt(10), file });
    const again = await openSnapshots((await oneSnapshot()).disk);
    expect(await payloadOf(again, again.newest!)).toEqual(patternOf(300, 10));
  });

  it('may be empty', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk);
    const info = await build(store, 1, new Uint8Array(0));
    expect(info.bytes).toBe(FIRST_CHUNK + SNAPSHOT_FOOTER.bytes);
    expect(await payloadOf(store, info)).toEqual(new Uint8Array(0));
  });

  it('is found damaged at whatever byte is flipped, and names file and offset', async () => {
    const { disk, file } = await oneSnapshot();
    const { length } = disk.readFile(file);
    for (let position = 0; position < length; position++) {
      disk.damage(file, position, (bytes) => {
        bytes[0]! ^= 0x10;
      });
      const { newest, damaged } = await openSnapshots(disk);
      expect(newest, `byte ${position}`).toBeUndefined();
      expect(damaged).toHaveLength(1);
      expect(damaged[0]!.file).toBe(file);
      expect(damaged[0]!.offset).toBeLessThanOrEqual(position);
      disk.damage(file, position, (bytes) => {
        bytes[0]! ^= 0x10;
      });
    }
    expect((await openSnapshots(disk)).newest?.lastIncluded.index).toBe(10);
  });

  it('is found damaged wherever it was cut', async () => {
    const { disk, file } = await oneSnapshot();
    const whole = disk.readFile(file);
    for (let length = 0; length < whole.length; length++) {
      disk.remove(file);
      const cut = disk.open(file, { access: 'write', create: true });
      cut.write(whole.subarray(0, length), 0);
      cut.close();
      expect((await openSnapshots(disk)).damaged, `cut at ${length}`).toHaveLength(1);
    }
  });

  it.each([
    ['two chunks are swapped', 0, 1],
    ['a chunk stands twice', 1, 1],
    ['a later chunk stands in the place of an earlier one', 3, 0],
  ])('is found damaged when %s, though each chunk verifies', async (_, first, second) => {
    const { disk, file } = await oneSnapshot();
    const whole = disk.readFile(file);
    const chunk = (number: number): Uint8Array =>
      whole.slice(FIRST_CHUNK + number * WHOLE_CHUNK, FIRST_CHUNK + (number + 1) * WHOLE_CHUNK);
    const put = (number: number, bytes: Uint8Array): void =>
      disk.damage(file, FIRST_CHUNK + number * WHOLE_CHUNK, (at) => at.set(bytes), WHOLE_CHUNK);
    const [one, other] = [chunk(first), chunk(second)];
    put(second, one);
    put(first === second ? first + 1 : first, first === second ? one : other);
    expect((await openSnapshots(disk)).damaged[0]!.finding).toMatch(/chunk \d/);
  });

  it('is found damaged when a chunk of another snapshot with the same number is put into it', async () => {
    const { disk, store, file } = await oneSnapshot();
    const other = disk.readFile((await build(store, 11)).file);
    const foreign = other.slice(FIRST_CHUNK, FIRST_CHUNK + WHOLE_CHUNK);
    disk.damage(file, FIRST_CHUNK, (at) => at.set(foreign), WHOLE_CHUNK);
    expect(await codeOf(payloadOf(store, store.snapshots[1]!))).toBe('KEELSON_STORAGE_CORRUPT');
  });

  it('of a newer format is refused by its version, and nothing is removed', async () => {
    const { disk, file } = await oneSnapshot();
    const store = await openSnapshots(disk);
    const { SnapshotBuffer, snapshotMemory } = await import(
      '../../dist/storage/snapshot-format.js'
    );
    const buffer = new SnapshotBuffer(snapshotMemory(), CHUNK);
    buffer.writeHeader(store.newest!);
    const { offset } = SNAPSHOT_HEADER;
    buffer.heap.view.setUint16(buffer.pointer + offset.version, 2, true);
    buffer.heap.exports.xxh3(buffer.pointer, offset.checksum, buffer.pointer + offset.checksum);
    const header = buffer.view(0, SNAPSHOT_HEADER.bytes).slice();
    disk.damage(file, 0, (at) => at.set(header), SNAPSHOT_HEADER.bytes);
    expect(await codeOf(openSnapshots(disk))).toBe('KEELSON_STORAGE_VERSION');
    expect(disk.exists(file)).toBe(true);
  });
});

describe('the directory of snapshots', () => {
  it('shows a snapshot only when all of it is durable', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk);
    const writer = await store.create(headerAt(5));
    await writer.append(patternOf(300));
    expect((await openSnapshots(disk.imageAfterCrash())).snapshots).toEqual([]);
    await writer.publish();
    for (let seed = 1; seed <= 20; seed++) {
      const found = await openSnapshots(disk.imageAfterCrash('random', seed));
      expect(found.snapshots, `seed ${seed}`).toHaveLength(1);
    }
  });

  it('known bug 14: a crash between the files of a snapshot leaves a part of one', async () => {
    const calls = await import('../../dist/storage/memory-disk.js');
    for (const operation of ['write', 'dataSync', 'rename', 'syncDirectory'] as const) {
      for (let nth = 1; nth <= 8; nth++) {
        const disk = new calls.MemoryDisk();
        const store = await openSnapshots(disk);
        await build(store, 10);
        disk.fail({ operation, nth, code: 'EIO', sticky: true });
        const outcome = await codeOf(build(store, 20));
        for (let seed = 1; seed <= 3; seed++) {
          const after = await openSnapshots(disk.imageAfterCrash('random', seed));
          const where = `${operation} ${nth}, seed ${seed}`;
          expect(after.damaged, where).toEqual([]);
          const indexes = after.snapshots.map(({ lastIncluded }) => lastIncluded.index);
          expect(indexes.at(-1), where).toBe(10);
          if (outcome === undefined) expect(indexes, where).toEqual([20, 10]);
          for (const info of after.snapshots) await after.verify(info);
        }
      }
    }
  });

  it('makes the name of a snapshot durable that a start finds, for the log may go behind it', async () => {
    const { disk, store } = await oneSnapshot();
    const { file } = await build(store, 20);
    disk.rename(file, `${file}.unnamed`);
    disk.syncDirectory(DIRECTORY);
    // The process is killed between the rename and the sync behind it.
    disk.rename(`${file}.unnamed`, file);
    const again = await openSnapshots(disk, { keep: 1 });
    expect(again.oldestKept?.lastIncluded.index).toBe(20);
    const afterCrash = await openSnapshots(disk.crash(), { keep: 1 });
    expect(afterCrash.newest?.lastIncluded.index).toBe(20);
  });

  it('keeps as many as it is told, and an older one until the newer is durable', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk, { keep: 2 });
    for (const index of [10, 20, 30]) await build(store, index);
    expect(store.snapshots.map(({ lastIncluded }) => lastIncluded.index)).toEqual([30, 20]);
    expect(store.oldestKept?.lastIncluded.index).toBe(20);
    expect(disk.list(DIRECTORY)).toHaveLength(2);
    disk.fail({ operation: 'dataSync', nth: 1, code: 'EIO' });
    expect(await codeOf(build(store, 40))).toBe('KEELSON_STORAGE_FAILED');
    expect(store.snapshots.map(({ lastIncluded }) => lastIncluded.index)).toEqual([30, 20]);
  });

  it('keeps one that is being read, whatever else is built', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk, { keep: 1 });
    const first = await build(store, 10);
    const handle = await store.openFile(first);
    await build(store, 20);
    expect(disk.exists(first.file)).toBe(true);
    expect(await handle.read(0, first.bytes)).toEqual(Uint8Array.from(disk.readFile(first.file)));
    handle.close();
    await build(store, 30);
    expect(disk.exists(first.file)).toBe(false);
  });

  it('removes what is unfinished at the next start', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk);
    await (await store.create(headerAt(5))).append(patternOf(300));
    await (await store.receive({ ...announced(200), id: 'ab'.repeat(16) }, MACHINE_VERSION)).append(
      patternOf(50),
    );
    expect(disk.list(DIRECTORY)).toHaveLength(2);
    await openSnapshots(disk);
    expect(disk.list(DIRECTORY)).toEqual([]);
  });

  it('falls back to the older one when the newest is damaged, and says which file it is', async () => {
    const { disk, store } = await oneSnapshot();
    const newest = await build(store, 20);
    disk.damage(newest.file, newest.bytes - 60, (bytes) => bytes.fill(0));
    const told: LogFields[] = [];
    const logger = { ...silentLogger, error: (fields: LogFields) => told.push(fields) };
    const again = await openSnapshots(disk, { logger });
    expect(again.newest?.lastIncluded.index).toBe(10);
    expect(told).toMatchObject([{ event: 'snapshot.damaged', file: newest.file }]);
    expect(again.unusable(15).message).toContain(newest.file);
    await build(again, 30);
    expect(disk.exists(newest.file)).toBe(false);
  });

  it.each([
    ['cannot be begun', { operation: 'write', code: 'ENOSPC' }],
    ['cannot be synced', { operation: 'dataSync', code: 'EIO' }],
    ['cannot be renamed', { operation: 'rename', code: 'EIO' }],
    ['cannot be named durably', { operation: 'syncDirectory', code: 'EIO' }],
  ] as const)('is left as it was by snapshots that %s, however many', async (_, fault) => {
    const disk = newDisk();
    const store = await openSnapshots(disk, { chunkBytes: 1024 * 1024 });
    await build(store, 10);
    const before = disk.list(DIRECTORY);
    for (let index = 100; index < 150; index++) {
      disk.fail({ ...fault, nth: 1 });
      expect(await codeOf(buildOrAbort(store, index))).toMatch(/^KEELSON_STORAGE_(FULL|FAILED)$/);
      expect(disk.list(DIRECTORY)).toEqual(before);
    }
    await build(store, 1_000);
  });

  it('has no file of one that there is no memory for', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk, { chunkBytes: 1024 * 1024 });
    const writers: SnapshotWriter[] = [];
    const create = async (): Promise<SnapshotWriter> => {
      const writer = await store.create(headerAt(100 + writers.length));
      writers.push(writer);
      return create();
    };
    expect(await codeOf(create())).toBe('KEELSON_OVERLOADED');
    expect(disk.list(DIRECTORY)).toHaveLength(writers.length);
    for (const writer of writers) await writer.abort();
    expect(disk.list(DIRECTORY)).toEqual([]);
    await build(store, 1_000);
  });

  it('loses those that end before the log begins, but for what is being read', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk, { keep: 4 });
    const [first, second, third] = [
      await build(store, 5),
      await build(store, 10),
      await build(store, 20),
    ];
    const handle = await store.openFile(first);
    await store.removeBelow(20);
    expect(store.snapshots).toEqual([third]);
    expect(disk.exists(second.file)).toBe(false);
    expect(disk.exists(first.file)).toBe(true);
    handle.close();
    while (disk.exists(first.file)) await new Promise((resolve) => setImmediate(resolve));
    expect((await openSnapshots(disk, { keep: 4 })).snapshots).toEqual([third]);
  });

  it('falls back to the older one when the newest cannot be read', async () => {
    const { disk, store } = await oneSnapshot();
    const { file } = await build(store, 20);
    disk.fail({ operation: 'read', nth: 1, code: 'EIO', pathIncludes: file, sticky: true });
    const again = await openSnapshots(disk);
    expect(again.newest?.lastIncluded.index).toBe(10);
    expect(again.damaged).toMatchObject([{ file, finding: expect.stringContaining('EIO') }]);
  });

  it('has no room, says so, and has given back what it took', async () => {
    const { MemoryDisk } = await import('../../dist/storage/memory-disk.js');
    const disk = new MemoryDisk({ capacityBytes: 16 * 4096 });
    const store = await openSnapshots(disk);
    await build(store, 10);
    const writer = await store.create(headerAt(20));
    const fill = async (): Promise<void> => {
      for (let i = 0; i < 100; i++) await writer.append(patternOf(4096));
    };
    expect(await codeOf(fill())).toBe('KEELSON_STORAGE_FULL');
    await writer.abort();
    expect(disk.list(DIRECTORY)).toHaveLength(1);
  });
});

const MACHINE_VERSION = headerAt(0).machineVersion;

/** What a leader says of the snapshot at index 10. */
function announced(totalBytes: number): AnnouncedSnapshot {
  const { id, lastIncluded } = headerAt(10);
  return { id, lastIncluded, totalBytes };
}

describe('a snapshot that another node sends', () => {
  it.each([
    ['another index', { lastIncluded: { term: 3, index: 11 } }],
    ['another term', { lastIncluded: { term: 4, index: 10 } }],
    ['another id', { id: 'ab'.repeat(16) }],
  ])('and that was announced with %s is thrown away', async (_, change) => {
    const sender = await oneSnapshot();
    const bytes = Uint8Array.from(sender.disk.readFile(sender.file));
    const disk = newDisk();
    const store = await openSnapshots(disk);
    const receiver = await store.receive(
      { ...announced(bytes.length), ...change },
      MACHINE_VERSION,
    );
    expect(await codeOf(receiver.append(bytes))).toBe('KEELSON_STORAGE_CORRUPT');
    await store.dropPartial();
    expect(store.newest).toBeUndefined();
    expect(disk.list(DIRECTORY)).toEqual([]);
  });

  it('and that is of a later version of the machine is refused when its header has come', async () => {
    const sender = await oneSnapshot();
    const bytes = Uint8Array.from(sender.disk.readFile(sender.file));
    const store = await openSnapshots(newDisk());
    const receiver = await store.receive(announced(bytes.length), MACHINE_VERSION - 1);
    expect(await codeOf(receiver.append(bytes))).toBe('KEELSON_STORAGE_VERSION');
    expect(store.newest).toBeUndefined();
  });

  it('is received in pieces, verified as a whole, and becomes the newest', async () => {
    const sender = await oneSnapshot();
    const bytes = Uint8Array.from(sender.disk.readFile(sender.file));
    const store = await openSnapshots(newDisk());
    for (let at = 0; at < bytes.length; at += 100) {
      const receiver = await store.receive(announced(bytes.length), MACHINE_VERSION);
      expect(receiver.offset).toBe(at);
      await receiver.append(bytes.slice(at, at + 100));
    }
    await (await store.receive(announced(bytes.length), MACHINE_VERSION)).publish();
    expect(store.newest).toMatchObject(headerAt(10));
    expect(await payloadOf(store, store.newest!)).toEqual(patternOf(300, 10));
  });

  it('that does not verify is thrown away', async () => {
    const sender = await oneSnapshot();
    const bytes = Uint8Array.from(sender.disk.readFile(sender.file));
    bytes[200]! ^= 1;
    const disk = newDisk();
    const store = await openSnapshots(disk);
    const receiver = await store.receive(announced(bytes.length), MACHINE_VERSION);
    await receiver.append(bytes);
    expect(await codeOf(receiver.publish())).toBe('KEELSON_STORAGE_CORRUPT');
    expect(disk.list(DIRECTORY)).toEqual([]);
    expect((await store.receive(announced(bytes.length), MACHINE_VERSION)).offset).toBe(0);
  });

  it('never has more bytes than were announced', async () => {
    const store = await openSnapshots(newDisk());
    const receiver = await store.receive(announced(150), MACHINE_VERSION);
    expect(await codeOf(receiver.append(patternOf(151)))).toBe('KEELSON_STORAGE_CORRUPT');
  });

  it('takes the place of another one that was under way', async () => {
    const disk = newDisk();
    const store = await openSnapshots(disk);
    await (await store.receive(announced(200), MACHINE_VERSION)).append(patternOf(50));
    const other = await store.receive({ ...announced(200), id: 'cd'.repeat(16) }, MACHINE_VERSION);
    expect(other.offset).toBe(0);
    expect(disk.list(DIRECTORY)).toEqual([`receive-${'cd'.repeat(16)}.tmp`]);
  });
});
