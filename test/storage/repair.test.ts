/**
 * The mode `repair` opens a damaged log for reading: what is lost is marked, what is left is what was written,
 * nothing is invented, and nothing is written.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { Engine } from '../../dist/engine/engine.js';
import type { GroupLoss, RecoveredLog } from '../../dist/engine/types.js';
import { readableLog } from '../../dist/readable-log.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { type LogEntry, readEntries } from '../../dist/testing/log-blocks.js';
import type { LogStep } from '../../dist/testing/log-workload.js';
import { BATCH, SECTOR_BYTES, SEGMENT } from '../../dist/wasm/layout.js';
import { TEST_CONFIG } from '../engine/support/cluster.js';
import { flippedBits, isRefused, segmentsOf } from './damage-support.js';
import { GROUPS, openSmall, runScript } from './fault-rig.js';
import { FIRST_SEGMENT, openLog, texts, vote } from './wal-support.js';

const SEED = 29;
const SEGMENT_BYTES = 64 * 1024;
const FOLDER = '/data/wal';
/** Every so many bytes of a file are damaged in turn. */
const STRIDE = 3011;

interface Truth {
  readonly log: RecoveredLog;
  readonly entries: ReadonlyMap<number, LogEntry>;
}

let disk: MemoryDisk;
let truth: ReadonlyMap<number, Truth>;

async function lookInto(image: MemoryDisk): Promise<Map<number, Truth>> {
  const store = await openSmall(image, { seed: SEED });
  const found = new Map<number, Truth>();
  for (const group of GROUPS) {
    const log = store.recovered(group);
    const entries = await readEntries(store, group, log.purged.index + 1, log.lastIndex);
    found.set(group, { log, entries: new Map(entries.map((entry) => [entry.index, entry])) });
  }
  return found;
}

/** Logs that are overwritten and cut again and again, and of which little is known to be committed. */
function script(): LogStep[] {
  const random = new SeededRandom(SEED);
  const steps: LogStep[] = [];
  for (let round = 0; round < 70; round++) {
    const group = GROUPS[random.integer(3)]!;
    const back = random.integer(4);
    if (random.chance(0.2)) steps.push({ do: 'truncate', group, entries: 1 + random.integer(3) });
    else steps.push({ do: 'append', group, count: 1 + random.integer(4), bytes: 3_000, back });
    if (random.chance(0.1)) steps.push({ do: 'vote', group });
    steps.push({ do: 'wait' });
    if (random.chance(0.15)) steps.push({ do: 'commit', group });
    if (random.chance(0.05)) steps.push({ do: 'purge', group, keep: 3 });
    if (round === 40) steps.push({ do: 'reset', group, ahead: 2 }, { do: 'reopen' });
  }
  return steps;
}

beforeAll(async () => {
  disk = new MemoryDisk();
  const { refusal, workload } = await runScript(disk, SEED, script());
  expect([refusal, workload.failure]).toEqual([undefined, undefined]);
  disk = disk.kill();
  truth = await lookInto(disk.imageAfterKill());
});

const contentOf = (image: MemoryDisk): string[] =>
  image
    .list(FOLDER)
    .map(
      (name) => `${name} ${Buffer.from(image.readFile(`${FOLDER}/${name}`)).toString('base64')}`,
    );

/** Where the last batch of a segment begins. */
function lastBatchOf(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer);
  const field = (at: number, offset: number): bigint => view.getBigUint64(at + offset, true);
  const epoch = field(0, SEGMENT.offset.epoch);
  let last = 0;
  for (let at = Number(field(0, SEGMENT.offset.dataStart)); at < bytes.length; ) {
    const isBatch = view.getUint32(at, true) === BATCH.magic;
    if (!isBatch || field(at, BATCH.offset.epoch) !== epoch) break;
    last = at;
    at += view.getUint32(at + BATCH.offset.totalLength, true);
  }
  return last;
}

const isVoteBefore = (left: RecoveredLog['vote'], right: RecoveredLog['vote']): boolean =>
  left.term < right.term || (left.term === right.term && left.nodeId !== right.nodeId);

/** Holds each entry, one by one, against what was written; returns how many are lost. */
async function expectNothingInvented(store: WalLogStore, context: string): Promise<number> {
  let lost = 0;
  for (const [group, { log, entries }] of truth) {
    const found = store.recovered(group);
    const loss = store.damage!.of(group);
    const what = `${context}, group ${group}: ${JSON.stringify(loss)}`;
    const last = Math.max(found.lastIndex, log.lastIndex);
    for (let index = found.purged.index + 1; index <= last; index++) {
      const marked = loss.ranges.some(
        ({ firstIndex, lastIndex = Number.POSITIVE_INFINITY }) =>
          firstIndex <= index && index <= lastIndex,
      );
      if (marked) {
        lost++;
        expect(() => store.read(group, index, index, 1 << 20), what).toThrow(
          expect.objectContaining({
            code: 'KEELSON_STORAGE_CORRUPT',
            details: expect.objectContaining({ group, index, file: expect.any(String) }),
          }),
        );
        continue;
      }
      // A purge or a reset may be lost: what it gave up was committed, and is there again.
      if (index <= log.purged.index) continue;
      expect(index, `${what}: neither lost nor there`).toBeLessThanOrEqual(found.lastIndex);
      const [entry] = await readEntries(store, group, index, index);
      expect(entry, `${what}, entry ${index}`).toEqual(entries.get(index));
    }
    if (!loss.voteInDoubt) {
      expect(isVoteBefore(found.vote, log.vote), `${what}, ${JSON.stringify(found.vote)}`).toBe(
        false,
      );
    }
    expect(found.committed, what).toBeLessThanOrEqual(log.committed);
    expectSoundStart({ log, entries }, found, loss, what);
  }
  return lost;
}

/**
 * What an engine applies that starts from it, behind any snapshot, is whole and committed: so an engine
 * whose log is damaged never holds a part that is lost.
 */
function expectSoundStart(
  { log, entries }: Truth,
  found: RecoveredLog,
  loss: GroupLoss,
  what: string,
): void {
  for (let index = found.purged.index; index <= log.committed; index++) {
    const term = index === log.purged.index ? log.purged.term : entries.get(index)?.term;
    const membership = { index, membership: { configs: [[1, 2]], learners: [], addresses: {} } };
    const snapshot = term === undefined ? undefined : { lastIncluded: { term, index }, membership };
    const start = readableLog({ ...found, snapshot }, loss, index);
    const context = `${what}, behind ${index}: ${JSON.stringify(start)}`;
    const engine = new Engine({ ...TEST_CONFIG, nodeId: 1 }, start, 0);
    expect([engine.role, engine.appliedIndex], context).toEqual(['damaged', index]);
    expect(engine.committedIndex, context).toBeLessThanOrEqual(Math.max(index, log.committed));
    for (let next = index + 1; next <= engine.lastLogId.index; next++) {
      const isLost = loss.ranges.some(
        ({ firstIndex, lastIndex = Number.POSITIVE_INFINITY }) =>
          firstIndex <= next && next <= lastIndex,
      );
      expect(isLost, `${context}, entry ${next}`).toBe(false);
      const there = entries.get(next);
      if (there !== undefined) expect(engine.termAt(next), context).toBe(there.term);
    }
    const reached = nextLost(loss, index);
    const known = Math.min(reached - 1, found.committed);
    expect(engine.committedIndex, `${context}: all that is known`).toBe(Math.max(index, known));
    let command = engine.nextCommand();
    for (; command !== undefined; command = engine.nextCommand()) {
      expect(['Apply', 'LeadershipChanged'], context).toContain(command.type);
    }
  }
}

/** The first entry behind `index` that is lost. */
function nextLost({ ranges }: GroupLoss, index: number): number {
  const range = ranges.find(({ lastIndex = Number.POSITIVE_INFINITY }) => lastIndex > index);
  return Math.max(index + 1, range?.firstIndex ?? Number.POSITIVE_INFINITY);
}

async function repairsAt(image: MemoryDisk, context: string): Promise<'whole' | 'lost'> {
  const before = contentOf(image);
  const copy = image.imageAfterKill();
  const refused = await isRefused(image.imageAfterKill(), SEED);
  const store = await openSmall(image, { seed: SEED, recovery: 'repair' });
  if (store.damage === undefined) {
    await store.close();
    // What is refused and yet not lost stands behind an orderly close.
    const expected = refused ? truth : await lookInto(copy);
    expect(await lookInto(image), context).toEqual(expected);
    return 'whole';
  }
  expect(refused, `${context}: damage that a start does not refuse`).toBe(true);
  await expectNothingInvented(store, context);
  await store.close();
  expect(contentOf(image), `${context}: the files are as they were`).toEqual(before);
  expect(await isRefused(image, SEED), `${context}: and refused as before`).toBe(true);
  return 'lost';
}

describe('a log that is damaged at rest, in the mode repair', () => {
  it('gives what was written or says that it is lost, for a flipped bit anywhere', async () => {
    let losses = 0;
    for (const { image, context } of flippedBits(disk, SEED, STRIDE)) {
      if ((await repairsAt(image, context)) === 'lost') losses++;
    }
    expect(losses).toBeGreaterThan(40);
  });

  it('does so for several places that are zeroed, and for segments that are gone', async () => {
    const random = new SeededRandom(SEED + 1);
    const files = segmentsOf(disk);
    let losses = 0;
    for (let round = 0; round < 120; round++) {
      const image = disk.imageAfterKill();
      const places: string[] = [];
      for (let count = 1 + random.integer(3); count > 0; count--) {
        const file = files[random.integer(files.length)]!;
        // Nothing proves the last batch: where it is damaged, it is cut off.
        const end = file === files.at(-1) ? lastBatchOf(disk.readFile(file)) : SEGMENT_BYTES;
        const sector = SECTOR_BYTES * random.integer(end / SECTOR_BYTES);
        places.push(`${file} ${sector}`);
        image.damage(file, sector, (bytes) => bytes.fill(0), SECTOR_BYTES);
      }
      if (random.chance(0.2)) {
        const file = files[random.integer(files.length - 1)]!;
        places.push(`${file} removed`);
        image.remove(file);
      }
      const context = `seed ${SEED + 1} round ${round}: ${places.join(', ')}`;
      if ((await repairsAt(image, context)) === 'lost') losses++;
    }
    expect(losses).toBeGreaterThan(50);
  });
});

describe('a log of which one batch is lost', () => {
  async function damaged(committed: boolean): Promise<MemoryDisk> {
    const image = new MemoryDisk();
    const log = await openLog(image);
    await log.durable(log.append(texts(4)));
    if (committed) {
      log.store.recordCommitted(0, 4);
      await log.durable(log.saveVote(vote(1)));
    }
    await log.durable(log.append(texts(3, 'lost')));
    await log.durable(log.append(texts(2, 'kept')));
    await log.durable(log.append(texts(1, 'last')));
    const bytes = image.readFile(FIRST_SEGMENT);
    const position = Buffer.from(bytes).indexOf('lost-2');
    image.damage(FIRST_SEGMENT, position, (byte) => byte.fill(0));
    return image.kill();
  }

  it('has lost what was in it, and gives all others', async () => {
    const log = await openLog(await damaged(true), { recovery: 'repair' });
    const { store } = log;
    const ranges = [{ firstIndex: 5, lastIndex: 7 }];
    expect(store.damage?.of(0)).toEqual({ group: 0, ranges, voteInDoubt: false });
    expect(store.recovered(0)).toMatchObject({ lastIndex: 10, committed: 4 });
    expect(await log.contents(0, 8)).toEqual(['kept-1', 'kept-2', 'last-1']);
    const before = await store.read(0, 3, 10, 1 << 20);
    expect([before.firstIndex, before.lastIndex]).toEqual([3, 4]);
    before.release();
    expect(() => store.read(0, 6, 9, 1000)).toThrow('Entry 6 of group 0 is lost');
    await store.close();
  });

  it('has lost what it may have overwritten too: what was not known to be committed', async () => {
    const log = await openLog(await damaged(false), { recovery: 'repair' });
    const ranges = [{ firstIndex: 1, lastIndex: 7 }];
    expect(log.store.damage?.of(0)).toEqual({ group: 0, ranges, voteInDoubt: false });
    expect(await log.contents(0, 8)).toEqual(['kept-1', 'kept-2', 'last-1']);
    await log.store.close();
  });

  it('takes nothing, and says why', async () => {
    const image = await damaged(true);
    const { store } = await openLog(image, { recovery: 'repair' });
    const io = { sequence: 1, vote: vote(9), logId: { term: 1, index: 10 } };
    const entries = { firstIndex: 11, term: 1, time: 1, kind: 2, payloads: texts(1), count: 1 };
    const error = expect.objectContaining({
      code: 'KEELSON_STORAGE_CORRUPT',
      outcome: 'rejected',
      message: expect.stringContaining('takes nothing until it is repaired'),
      details: expect.objectContaining({ file: FIRST_SEGMENT, losses: 1 }),
    });
    expect(() => store.stage(0, entries)).toThrow(error);
    expect(() => store.receive(0, 11, [])).toThrow(error);
    expect(() => store.saveVote(0, io)).toThrow(error);
    expect(() => store.truncateAfter(0, 5, io)).toThrow(error);
    expect(() => store.advanceIo(0, io)).toThrow(error);
    expect(() => store.purge(0, { index: 4, term: 1 })).toThrow(error);
    expect(() => store.resetLog(0, { index: 20, term: 2 }, io)).toThrow(error);
    expect(() => store.stage(77, entries)).toThrow(error);
    await store.close();
    await expect(openLog(image)).rejects.toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });
  });

  it('knows nothing of a group that is in no batch that is left', async () => {
    const { store } = await openLog(await damaged(true), { recovery: 'repair' });
    const ranges = [{ firstIndex: 1, lastIndex: undefined }];
    expect(store.damage?.of(5)).toEqual({ group: 5, ranges, voteInDoubt: true });
    await store.close();
  });
});

it('a commit that is told behind a loss makes nothing certain that was before it', async () => {
  const image = new MemoryDisk();
  const log = await openLog(image);
  await log.durable(log.append(texts(4)));
  log.store.recordCommitted(0, 2);
  await log.durable(log.saveVote(vote(1)));
  await log.durable(log.append(texts(2, 'lost'), 2, 0, 3));
  log.store.recordCommitted(0, 4);
  await log.durable(log.saveVote(vote(2)));
  await log.durable(log.append(texts(1, 'gone'), 2));
  await log.durable(log.append(texts(1, 'kept'), 2));
  await log.durable(log.append(texts(1, 'last'), 2));
  for (const text of ['lost-1', 'gone-1']) {
    const position = Buffer.from(image.readFile(FIRST_SEGMENT)).indexOf(text);
    image.damage(FIRST_SEGMENT, position, (byte) => byte.fill(0));
  }
  const { store } = await openLog(image.kill(), { recovery: 'repair' });
  expect(store.damage?.of(0)?.ranges).toEqual([{ firstIndex: 3, lastIndex: 5 }]);
  await store.close();
});

it.each([1_000, 1e12])(
  'a log that began anew behind entry %d in what is lost goes on from there',
  async (behind) => {
    const image = new MemoryDisk();
    const log = await openLog(image);
    await log.durable(log.append(texts(4)));
    const reset = log.nextIo(2, behind);
    log.store.resetLog(0, { index: behind, term: 2 }, reset);
    log.append(texts(1, 'lost'), 2, 0, behind + 1);
    await log.durable(reset);
    await log.durable(log.append(texts(2, 'kept'), 2));
    await log.durable(log.append(texts(1, 'last'), 2));
    const position = Buffer.from(image.readFile(FIRST_SEGMENT)).indexOf('lost-1');
    image.damage(FIRST_SEGMENT, position, (byte) => byte.fill(0));
    const after = await openLog(image.kill(), { recovery: 'repair' });
    const ranges = [{ firstIndex: 1, lastIndex: behind + 1 }];
    expect(after.store.damage?.of(0)).toEqual({ group: 0, ranges, voteInDoubt: false });
    expect(await after.contents(0, behind + 2)).toEqual(['kept-1', 'kept-2', 'last-1']);
    expect(() => after.store.read(0, 2, 4, 1000)).toThrow('Entry 2 of group 0 is lost');
    await after.store.close();
  },
);

it('a log that is whole is opened in the mode repair as in any other', async () => {
  const image = new MemoryDisk();
  const first = await openLog(image, { recovery: 'repair' });
  await first.durable(first.append(texts(3)));
  const log = await openLog(image.crash(), { recovery: 'repair' });
  expect(log.store.damage?.of(0)).toBeUndefined();
  await log.durable(log.append(texts(2, 'more')));
  expect(await log.contents()).toHaveLength(5);
  await log.store.close();
});
