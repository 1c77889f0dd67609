/**
 * Damage to each place of a small store in turn. Recovery gives what was acknowledged, or refuses and
 * names the place; only the last batch, which nothing proves, may be cut off instead. It invents
 * nothing, and forgets no vote of which a copy is left.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { SeededRandom } from '../../dist/base/random.js';
import type { RecoveredLog } from '../../dist/engine/types.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { type LogEntry, readEntries } from '../../dist/testing/log-blocks.js';
import type { LogStep } from '../../dist/testing/log-workload.js';
import {
  BATCH,
  BLOCK,
  BLOCK_FLAG,
  CHECKPOINT,
  ITEM,
  SECTOR_BYTES,
  SEGMENT,
} from '../../dist/wasm/layout.js';
import { GROUPS, openSmall, runScript } from './fault-rig.js';

const SEED = 7;
const SEGMENT_BYTES = 32 * 1024;
const FOLDER = '/data/wal';
/** Of bytes that are zero and mean nothing, every so many is looked at. */
const PADDING_STRIDE = 61;

const append = (group: number, count: number, back = 0): LogStep => ({
  do: 'append',
  group,
  count,
  bytes: 40,
  back,
});
const wait: LogStep = { do: 'wait' };
const [FIRST, SECOND, THIRD] = GROUPS as [number, number, number];

/** Rolls once, is closed once, and ends with a batch of entries and a new vote that nothing proves. */
const STEPS: readonly LogStep[] = [
  append(FIRST, 3),
  append(SECOND, 1),
  { do: 'vote', group: SECOND },
  wait,
  { do: 'truncate', group: FIRST, entries: 1 },
  append(THIRD, 2),
  wait,
  { do: 'commit', group: THIRD },
  append(THIRD, 2),
  wait,
  append(FIRST, 2, 1),
  wait,
  { do: 'reopen' },
  append(SECOND, 2),
  wait,
  { do: 'vote', group: FIRST },
  append(FIRST, 1),
  wait,
];

interface Found {
  readonly log: RecoveredLog;
  readonly entries: readonly LogEntry[];
}

interface Region {
  readonly file: string;
  readonly from: number;
  readonly to: number;
}

let disk: MemoryDisk;
let files: readonly string[];
/** Per group: what was acknowledged, and what was before the last batch. */
let whole: readonly Found[];
let withoutLast: readonly Found[];
let last: Region;

async function lookInto(image: MemoryDisk): Promise<Found[]> {
  const store = await openSmall(image, { seed: SEED, segmentBytes: SEGMENT_BYTES });
  const found: Found[] = [];
  for (const group of GROUPS) {
    const log = store.recovered(group);
    found.push({ log, entries: await readEntries(store, group, 1, log.lastIndex) });
  }
  return found;
}

/** The last batch of a file, by its magic. */
function lastBatch(bytes: Uint8Array, file: string): Region {
  const view = new DataView(bytes.buffer);
  const epoch = view.getBigUint64(SEGMENT.offset.epoch, true);
  let from = 0;
  for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
    // Bytes of an earlier use of the file have another epoch.
    const own = view.getBigUint64(at + BATCH.offset.epoch, true) === epoch;
    if (own && view.getUint32(at, true) === BATCH.magic) from = at;
  }
  return { file, from, to: from + view.getUint32(from + BATCH.offset.totalLength, true) };
}

/** Header and checkpoint of a segment, and the headers of its first and its last batch. */
function recordsOf(bytes: Uint8Array, file: string): Region[] {
  const view = new DataView(bytes.buffer);
  const epoch = view.getBigUint64(SEGMENT.offset.epoch, true);
  const dataStart = Number(view.getBigUint64(SEGMENT.offset.dataStart, true));
  const groups = view.getUint32(SEGMENT.offset.groups, true);
  const batches: Region[] = [];
  for (let at = dataStart; at < bytes.length; ) {
    const own = view.getBigUint64(at + BATCH.offset.epoch, true) === epoch;
    if (!own || view.getUint32(at, true) !== BATCH.magic) break;
    batches.push({ file, from: at, to: at + BATCH.bytes });
    at += view.getUint32(at + BATCH.offset.totalLength, true);
  }
  return [
    { file, from: 0, to: SEGMENT.bytes },
    { file, from: SECTOR_BYTES, to: SECTOR_BYTES + groups * CHECKPOINT.bytes },
    ...batches.slice(0, 1),
    ...batches.slice(1).slice(-1),
  ];
}

/** All of its blocks are copies. */
function isMove(bytes: Uint8Array, { from }: Region): boolean {
  const view = new DataView(bytes.buffer);
  const blocks = view.getUint32(from + BATCH.offset.blocks, true);
  let at = from + BATCH.bytes;
  for (let block = 0; block < blocks; block++) {
    const { flags, items, payloadLength } = BLOCK.offset;
    if ((view.getUint32(at + flags, true) & BLOCK_FLAG.moved) === 0) return false;
    const itemBytes = view.getUint32(at + items, true) * ITEM.bytes;
    at += BLOCK.bytes + itemBytes + view.getUint32(at + payloadLength, true);
  }
  return blocks > 0;
}

beforeAll(async () => {
  const running = new MemoryDisk();
  const { refusal, workload } = await runScript(running, SEED, STEPS, {
    segmentBytes: SEGMENT_BYTES,
  });
  expect([refusal, workload.failure]).toEqual([undefined, undefined]);
  disk = running.crash();
  files = disk
    .list(FOLDER)
    .filter((name) => name.endsWith('.wal'))
    .map((name) => `${FOLDER}/${name}`);
  expect(files.length).toBeGreaterThanOrEqual(2);
  const file = files[files.length - 1]!;
  last = lastBatch(disk.readFile(file), file);
  while (isMove(disk.readFile(file), last)) {
    // The log wrote old entries once more behind the last step, and that would prove it.
    disk.damage(file, last.from, (bytes) => bytes.fill(0), last.to - last.from);
    last = lastBatch(disk.readFile(file), file);
  }
  whole = await lookInto(disk.imageAfterKill());
  const cut = disk.imageAfterKill();
  cut.damage(file, last.from, (bytes) => bytes.fill(0), last.to - last.from);
  withoutLast = await lookInto(cut);
  expect(withoutLast).not.toEqual(whole);
});

/** Opens the damaged store and says what it did. */
async function judge(image: MemoryDisk, damaged: Region, what: string): Promise<Outcome> {
  const context = `seed ${SEED}: ${what} of ${damaged.file}`;
  const inLast = damaged.file === last.file && damaged.from >= last.from && damaged.to <= last.to;
  let found: Found[];
  try {
    found = await lookInto(image);
  } catch (error) {
    if (!(error instanceof KeelsonError)) throw new Error(context, { cause: error });
    const { code, details, message } = error;
    expect(code, context).toBe('KEELSON_STORAGE_CORRUPT');
    expect(details, context).toMatchObject({
      file: expect.stringContaining(FOLDER),
      offset: expect.any(Number),
    });
    expect(message, context).toContain(`${details.file} at ${details.offset}`);
    expect(inLast, `${context}: nothing proves the last batch`).toBe(false);
    return 'refused';
  }
  const votes = found.map(({ log }) => log.vote);
  expect(votes, context).toEqual(whole.map(({ log }) => log.vote));
  if (JSON.stringify(found) === JSON.stringify(whole)) return 'whole';
  expect(inLast, `${context}: data is missing or invented`).toBe(true);
  const entries = found.map((each) => each.entries);
  expect(entries, context).toEqual(withoutLast.map((each) => each.entries));
  return 'cut';
}

type Outcome = 'whole' | 'refused' | 'cut';

class Tally {
  private readonly counts: Map<Outcome, number> = new Map();

  add(outcome: Outcome): void {
    this.counts.set(outcome, this.of(outcome) + 1);
  }

  of(outcome: Outcome): number {
    return this.counts.get(outcome) ?? 0;
  }
}

/** Bytes that say something: not zero, or within a record's reach of one that is not. */
function meaningful(bytes: Uint8Array): number[] {
  const reach = 64;
  const places: number[] = [];
  let until = -1;
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== 0) until = at + reach;
    if (at <= until || at % PADDING_STRIDE === 0) places.push(at);
  }
  return places;
}

describe('a store that is damaged at rest gives what was acknowledged, or names the place', () => {
  it('for a flipped bit in each byte', async () => {
    const random = new SeededRandom(SEED);
    const tally = new Tally();
    for (const file of files) {
      for (const position of meaningful(disk.readFile(file))) {
        const bit = random.integer(8);
        const image = disk.imageAfterKill();
        image.damage(file, position, (bytes) => {
          bytes[0]! ^= 1 << bit;
        });
        const region = { file, from: position, to: position + 1 };
        tally.add(await judge(image, region, `bit ${bit} of byte ${position}`));
      }
    }
    expect(tally.of('refused')).toBeGreaterThan(1_000);
    expect(tally.of('cut')).toBeGreaterThan(100);
  });

  it('for each bit of the headers of segments and batches, and of checkpoints', async () => {
    const tally = new Tally();
    for (const file of files) {
      for (const { from, to } of recordsOf(disk.readFile(file), file)) {
        for (let bit = from * 8; bit < to * 8; bit++) {
          const position = bit >> 3;
          const image = disk.imageAfterKill();
          image.damage(file, position, (bytes) => {
            bytes[0]! ^= 1 << (bit & 7);
          });
          const region = { file, from: position, to: position + 1 };
          tally.add(await judge(image, region, `bit ${bit & 7} of byte ${position}`));
        }
      }
    }
    expect(tally.of('refused')).toBeGreaterThan(5_000);
    expect(tally.of('cut')).toBeGreaterThan(500);
  });

  it('for each zeroed sector', async () => {
    const tally = new Tally();
    for (const file of files) {
      for (let from = 0; from < SEGMENT_BYTES; from += SECTOR_BYTES) {
        const image = disk.imageAfterKill();
        image.damage(file, from, (bytes) => bytes.fill(0), SECTOR_BYTES);
        const region = { file, from, to: from + SECTOR_BYTES };
        tally.add(await judge(image, region, `zeros at ${from}`));
      }
    }
    expect(tally.of('refused')).toBeGreaterThan(5);
    expect(tally.of('cut')).toBeGreaterThan(0);
  });

  it('for each length to which a file is cut', async () => {
    const random = new SeededRandom(SEED);
    const tally = new Tally();
    for (const file of files) {
      const bytes = disk.readFile(file);
      const lengths = Array.from({ length: SEGMENT_BYTES / 512 }, (_, place) => place * 512);
      for (let more = 0; more < 60; more++) lengths.push(random.integer(SEGMENT_BYTES));
      for (const length of lengths) {
        const image = disk.imageAfterKill();
        image.remove(file);
        const short = image.open(file, { access: 'write', create: true });
        short.write(bytes.subarray(0, length), 0);
        // The file was made at full length: one that is shorter is damaged, whatever it held.
        tally.add(
          await judge(image, { file, from: 0, to: SEGMENT_BYTES }, `the first ${length} bytes`),
        );
      }
    }
    expect(tally.of('refused')).toBeGreaterThan(100);
  });
});
