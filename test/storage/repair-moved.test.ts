/**
 * What the mode `repair` makes of copies of old entries: where a log is only found in them, a loss of what says
 * nothing of it takes nothing away, in whatever order the copies stand before and behind it.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { emptyCheckpoint } from '../../dist/storage/hard-state.js';
import { LostRanges } from '../../dist/storage/lost-ranges.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { RecoveredGroup } from '../../dist/storage/recovery.js';
import type { ScannedBlock } from '../../dist/storage/segment-scan.js';
import { type LogEntry, readEntries } from '../../dist/testing/log-blocks.js';
import type { LogStep } from '../../dist/testing/log-workload.js';
import { BATCH, BLOCK, BLOCK_FLAG, ITEM, SEGMENT } from '../../dist/wasm/layout.js';
import { LogIndex } from '../../dist/wasm/log-index.js';
import { createBench, encodeBlocks } from '../wasm/support.js';
import { segmentsOf } from './damage-support.js';
import { GROUPS, openSmall, runScript } from './fault-rig.js';

const SEED = 41;
const [BUSY, IDLE, WIDE] = GROUPS as [number, number, number];
const wait: LogStep = { do: 'wait' };
const append = (group: number, count: number, bytes: number): LogStep => ({
  do: 'append',
  group,
  count,
  bytes,
});

/** Two logs that are idle from then on, beside one that keeps nothing: they are moved again and again. */
function script(rounds = 90): LogStep[] {
  const steps: LogStep[] = [];
  for (let round = 0; round < 6; round++) {
    steps.push(append(IDLE, 2, 1_500), append(BUSY, 1, 3_000), append(WIDE, 1, 4_000), wait);
    steps.push({ do: 'commit', group: IDLE }, { do: 'commit', group: WIDE });
  }
  steps.push({ do: 'vote', group: IDLE }, { do: 'vote', group: WIDE }, wait);
  for (let round = 0; round < rounds; round++) {
    steps.push(append(BUSY, 2, 5_000), wait, { do: 'commit', group: BUSY });
    steps.push({ do: 'purge', group: BUSY, keep: 0 });
  }
  return steps;
}

interface Batch {
  readonly file: string;
  readonly position: number;
  readonly groups: ReadonlySet<number>;
  readonly moved: boolean;
}

/** The batches of all segments, in order. */
function batchesOf(disk: MemoryDisk): Batch[] {
  const found: Batch[] = [];
  for (const file of segmentsOf(disk)) {
    const bytes = disk.readFile(file);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const epoch = view.getBigUint64(SEGMENT.offset.epoch, true);
    let at = Number(view.getBigUint64(SEGMENT.offset.dataStart, true));
    while (at < bytes.length) {
      const own = view.getBigUint64(at + BATCH.offset.epoch, true) === epoch;
      if (!own || view.getUint32(at, true) !== BATCH.magic) break;
      const groups = new Set<number>();
      let moved = false;
      let block = at + BATCH.bytes;
      for (let left = view.getUint32(at + BATCH.offset.blocks, true); left > 0; left--) {
        groups.add(view.getUint32(block + BLOCK.offset.group, true));
        moved ||= (view.getUint32(block + BLOCK.offset.flags, true) & BLOCK_FLAG.moved) !== 0;
        const items = view.getUint32(block + BLOCK.offset.items, true);
        const payloads = view.getUint32(block + BLOCK.offset.payloadLength, true);
        block += BLOCK.bytes + items * ITEM.bytes + payloads;
      }
      found.push({ file, position: at, groups, moved });
      at += view.getUint32(at + BATCH.offset.totalLength, true);
    }
  }
  return found;
}

describe('logs that are idle, of which old segments held the first copies', () => {
  let disk: MemoryDisk;
  let batches: Batch[];
  const truth = new Map<number, readonly LogEntry[]>();

  beforeAll(async () => {
    const running = new MemoryDisk();
    const { refusal, workload } = await runScript(running, SEED, script());
    expect([refusal, workload.failure]).toEqual([undefined, undefined]);
    disk = running.kill();
    batches = batchesOf(disk);
    expect(batches.filter(({ moved }) => moved).length).toBeGreaterThan(3);
    const store = await openSmall(disk.imageAfterKill(), { seed: SEED });
    for (const group of [IDLE, WIDE]) {
      truth.set(group, await readEntries(store, group, 1, store.recovered(group).lastIndex));
    }
    await store.close();
  });

  /** Batches that say nothing of the idle logs are lost; returns whether a start sees that at all. */
  async function keepsAll(victims: readonly Batch[]): Promise<boolean> {
    const image = disk.imageAfterKill();
    for (const { file, position } of victims) {
      image.damage(file, position, (bytes) => bytes.fill(0), BATCH.bytes);
    }
    const places = victims.map(({ file, position }) => `${file} at ${position}`);
    const context = `seed ${SEED}: ${places.join(', ')}`;
    const store = await openSmall(image, { seed: SEED, recovery: 'repair' });
    for (const [group, entries] of truth) {
      const loss = store.damage?.of(group);
      const last = entries.length;
      const lost = loss?.ranges.filter(({ firstIndex }) => firstIndex <= last) ?? [];
      expect(lost, `${context}, group ${group}`).toEqual([]);
      expect(await readEntries(store, group, 1, last), context).toEqual(entries);
    }
    const seen = store.damage !== undefined;
    await store.close();
    return seen;
  }

  it('are whole, whichever batch of another log is lost', async () => {
    const others = batches.filter(({ groups }) => !groups.has(IDLE) && !groups.has(WIDE));
    let seen = 0;
    for (const victim of others) if (await keepsAll([victim])) seen++;
    expect(seen).toBeGreaterThan(5);
  });

  it('are whole, whichever several batches of another log are lost', async () => {
    const random = new SeededRandom(SEED);
    const others = batches.filter(({ groups }) => !groups.has(IDLE) && !groups.has(WIDE));
    let seen = 0;
    for (let round = 0; round < 60; round++) {
      const victims = others.filter(() => random.chance(0.3));
      if (await keepsAll(victims)) seen++;
    }
    expect(seen).toBeGreaterThan(30);
  });
});

it('a last batch of copies that is cut off takes nothing away: their sources are kept until it is proven', async () => {
  let tried = 0;
  for (let rounds = 30; rounds < 60; rounds++) {
    const running = new MemoryDisk();
    await runScript(running, SEED, script(rounds));
    const image = running.kill();
    if (batchesOf(image).at(-1)?.moved !== true) continue;
    await openSmall(image, { seed: SEED });
    // As it is when the store is open, before it writes any more.
    const carried = image.kill();
    const [last, before] = batchesOf(carried).reverse() as [Batch, Batch];
    expect([last.moved, last.file === before.file]).toEqual([true, false]);
    carried.damage(last.file, last.position, (bytes) => bytes.fill(0), BATCH.bytes);
    const context = `seed ${SEED}, ${rounds} rounds: ${last.file} at ${last.position}`;
    const store = await openSmall(carried, { seed: SEED }).catch((cause: unknown) => {
      throw new Error(context, { cause });
    });
    expect(await readEntries(store, IDLE, 1, 12), context).toHaveLength(12);
    expect(await readEntries(store, WIDE, 1, 6), context).toHaveLength(6);
    tried++;
  }
  expect(tried).toBeGreaterThan(2);
});

describe('a copy behind a loss', () => {
  const bench = createBench();
  const id = 7;

  function logOf(committed: number, lastIndex: number, unknownTo = 0): RecoveredGroup {
    const index = new LogIndex(bench.heap);
    if (unknownTo > 0) index.skip(unknownTo);
    place(index, unknownTo + 1, lastIndex, 3);
    return {
      checkpoint: { ...emptyCheckpoint(id), committed },
      index,
      memberships: [],
      lastTime: 0,
    };
  }

  function encode(firstIndex: number, lastIndex: number, term: number): number {
    const payloads = Array.from({ length: lastIndex - firstIndex + 1 }, () => new Uint8Array(8));
    return encodeBlocks(bench, bench.region, [{ group: id, firstIndex, term, payloads }]);
  }

  function place(index: LogIndex, firstIndex: number, lastIndex: number, term: number): void {
    index.appendBlocks(bench.region, encode(firstIndex, lastIndex, term), 1, 8_192);
  }

  /** As a recovery takes it. */
  function takeCopy(
    lost: LostRanges,
    group: RecoveredGroup,
    firstIndex: number,
    lastIndex: number,
    term = 3,
  ): boolean {
    const length = encode(firstIndex, lastIndex, term);
    const termRuns = [{ firstIndex, term }];
    const block = { group: id, pointer: bench.region, length, firstIndex, lastIndex, moved: true };
    lost.settle(group, { ...block, record: undefined, termRuns } as unknown as ScannedBlock);
    return group.index.recoverBlocks(bench.region, length, 2, 8_192, { lastIndex, termRuns });
  }

  function lossOf(lost: LostRanges, group: RecoveredGroup) {
    return lost.finish(new Map([[id, group]]))[0]!.ranges;
  }

  it('of entries that were known only to be there leaves what was committed behind them', () => {
    const group = logOf(20, 20, 8);
    const lost = new LostRanges();
    lost.lose(new Map([[id, group]]));
    expect(takeCopy(lost, group, 1, 8)).toBe(true);
    expect(lossOf(lost, group)).toEqual([{ firstIndex: 21, lastIndex: undefined }]);
    expect(group.index.term(20)).toBe(3);
  });

  it('says nothing of what is lost in front of it, until there is a copy of that too', () => {
    const group = logOf(2, 10);
    const lost = new LostRanges();
    lost.lose(new Map([[id, group]]));
    takeCopy(lost, group, 6, 8);
    takeCopy(lost, group, 4, 5);
    expect(lossOf(lost, group)).toEqual([
      { firstIndex: 3, lastIndex: 3 },
      { firstIndex: 9, lastIndex: undefined },
    ]);
  });

  it('takes the place of entries that were not committed', () => {
    const group = logOf(4, 10);
    const lost = new LostRanges();
    lost.lose(new Map([[id, group]]));
    expect(takeCopy(lost, group, 3, 6, 3)).toBe(true);
    expect(takeCopy(lost, group, 7, 8, 5)).toBe(true);
    expect(lossOf(lost, group)).toEqual([{ firstIndex: 9, lastIndex: undefined }]);
    expect([6, 7, 8].map((index) => group.index.term(index))).toEqual([3, 5, 5]);
  });

  it('is damage where it has another term than what was committed, and changes nothing', () => {
    const group = logOf(6, 10);
    const lost = new LostRanges();
    lost.lose(new Map([[id, group]]));
    expect(takeCopy(lost, group, 2, 4, 9)).toBe(false);
    expect([2, 4, 6].map((index) => group.index.term(index))).toEqual([3, 3, 3]);
    expect(lossOf(lost, group)).toEqual([{ firstIndex: 7, lastIndex: undefined }]);
  });

  it('is no proof of its entries once more is lost behind it', () => {
    const group = logOf(2, 10);
    const groups = new Map([[id, group]]);
    const lost = new LostRanges();
    lost.lose(groups);
    takeCopy(lost, group, 1, 8);
    lost.lose(groups);
    expect(lossOf(lost, group)).toEqual([{ firstIndex: 3, lastIndex: undefined }]);
  });

  it('is kept where it stands further behind than the index keeps what is lost', () => {
    const far = 3 * 1024 * 1024;
    const group = logOf(2, 10);
    const lost = new LostRanges();
    lost.lose(new Map([[id, group]]));
    expect(takeCopy(lost, group, far, far + 4)).toBe(true);
    expect(group.index.term(far)).toBe(3);
    expect(lossOf(lost, group)).toEqual([
      { firstIndex: 1, lastIndex: far - 1 },
      { firstIndex: far + 5, lastIndex: undefined },
    ]);
  });
});
