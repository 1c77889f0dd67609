/**
 * A disk that reports each write of a script in turn as done, though its bytes stand elsewhere in the file or in
 * another one, or only a part of them was written. The power fails some writes later. A start finds what was
 * acknowledged, or refuses and names the place; only the last batch, which nothing proves, may be cut off. Nothing
 * is invented.
 */
import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { SeededRandom } from '../../dist/base/random.js';
import { type LyingWrite, MemoryDisk } from '../../dist/storage/memory-disk.js';
import { checkHistories } from '../../dist/testing/log-history.js';
import { SECTOR_BYTES } from '../../dist/wasm/layout.js';
import { openSmall, runScript, settled } from './fault-rig.js';

const SEED = 11;
const FOLDER = '/data/wal';
const SEGMENT_BYTES = 64 * 1024;
/** What a disk writes as a whole. */
const DISK_SECTOR_BYTES = 512;
/** The most writes between the lie and the end. */
const MAX_WRITES_LATER = 12;

interface Write {
  /** From 1, over all writes. */
  readonly nth: number;
  readonly file: string;
  readonly position: number;
  readonly bytes: number;
  /** The other files that are there. */
  readonly others: readonly string[];
  readonly zeros: boolean;
  /** How often the store had been opened before. */
  readonly opening: number;
}

/** Notes each write. */
class WatchedDisk extends MemoryDisk {
  readonly writes: Write[] = [];
  openings = 0;

  override open(path: string, options: Parameters<MemoryDisk['open']>[1]) {
    const file = super.open(path, options);
    const write = file.write.bind(file);
    file.write = (view, position) => {
      const others = this.list(FOLDER)
        .map((name) => `${FOLDER}/${name}`)
        .filter((other) => other !== file.path);
      this.writes.push({
        nth: this.writes.length + 1,
        file: file.path,
        position,
        bytes: view.length,
        others,
        zeros: view.every((byte) => byte === 0),
        opening: this.openings,
      });
      write(view, position);
    };
    return file;
  }
}

async function writesOfScript(): Promise<Write[]> {
  const disk = new WatchedDisk();
  const { refusal, workload } = await runScript(disk, SEED, undefined, undefined, () => {
    disk.openings++;
  });
  expect([refusal, workload.failure]).toEqual([undefined, undefined]);
  return disk.writes;
}

/** The numbers of the calls that write, over all calls of the disk. */
async function callsThatWrite(): Promise<number[]> {
  const disk = new MemoryDisk();
  const calls = disk.recordCalls();
  await runScript(disk, SEED);
  return calls.filter(({ operation }) => operation === 'write').map(({ number }) => number);
}

type Lie = (write: Write, random: SeededRandom, writes: readonly Write[]) => LyingWrite | undefined;

/** Exactly over a batch of the same length, if there is one. */
const overAnother: Lie = (write, random, writes) => {
  const { nth, file, position, bytes, opening } = write;
  const alike = writes.filter(
    (other) =>
      other.nth < nth &&
      other.file === file &&
      other.opening === opening &&
      other.bytes === bytes &&
      other.position !== position,
  );
  if (alike.length === 0) return undefined;
  return { nth, movedBytes: alike[random.integer(alike.length)]!.position - position };
};

/** Elsewhere in the file: before or behind, over what is there or not. */
const moved: Lie = ({ nth, position, bytes }, random) => {
  const sectors = Math.max(1, Math.floor((SEGMENT_BYTES - bytes) / SECTOR_BYTES));
  const to = SECTOR_BYTES * random.integer(sectors);
  return to === position ? undefined : { nth, movedBytes: to - position };
};

const intoAnother: Lie = ({ nth, others }, random) =>
  others.length === 0 ? undefined : { nth, intoPath: others[random.integer(others.length)]! };

const short: Lie = ({ nth, bytes }, random) => ({
  nth,
  arrivingBytes: DISK_SECTOR_BYTES * random.integer(bytes / DISK_SECTOR_BYTES),
});

type Outcome = 'whole' | 'refused' | 'cut';

interface Case {
  readonly lie: LyingWrite;
  /** The call at which the power fails; undefined: at the end of the script. */
  readonly endsAt: number | undefined;
  /** Something that was written behind it tells that it was durable. */
  readonly proven: boolean;
  readonly context: string;
}

/** What a start, or one in the middle of the script, makes of it. */
async function outcomeOf({ lie, endsAt, proven, context }: Case): Promise<Outcome> {
  const disk = new MemoryDisk();
  disk.lie(lie);
  if (endsAt !== undefined) disk.crashAt(endsAt);
  const { workload, refusal } = await runScript(disk, SEED);
  const { histories } = workload;
  try {
    if (refusal !== undefined && !disk.faults.isDead) throw refusal;
    const store = await openSmall(disk.imageAfterCrash(), { seed: SEED + 9 });
    await checkHistories(store, histories);
    return 'whole';
  } catch (error) {
    if (error instanceof KeelsonError) {
      const { code, details, message } = error;
      expect(code, `${context}: ${message}`).toBe('KEELSON_STORAGE_CORRUPT');
      const known = details.file ?? details.group;
      expect(known, `${context}: ${message}`).toBeDefined();
      return 'refused';
    }
    expect(proven, `${context}: ${(error as Error).message}`).toBe(false);
    await settled();
    const store = await openSmall(disk.imageAfterCrash(), { seed: SEED });
    for (const history of histories.values()) {
      await history
        .unacknowledged()
        .check(store)
        .catch((cause: unknown) => {
          throw new Error(`${context}: ${(cause as Error).message}`, { cause });
        });
    }
    return 'cut';
  } finally {
    await settled();
  }
}

describe.each([
  ['stand elsewhere in the file', moved, 60],
  ['stand where another batch of that length was', overAnother, 20],
  ['stand in another file', intoAnother, 50],
  ['are not all written', short, 20],
] as const)('writes that report success, though their bytes %s', (_, lieOf, refusals) => {
  it('are found out, or take nothing away', async () => {
    const counts: Record<Outcome, number> = { whole: 0, refused: 0, cut: 0 };
    const random = new SeededRandom(SEED);
    const writes = await writesOfScript();
    const calls = await callsThatWrite();
    for (const write of writes) {
      const lie = lieOf(write, random, writes);
      if (lie === undefined) continue;
      const { nth, file, position, bytes, opening } = write;
      const end = nth + 1 + (random.chance(0.3) ? 0 : random.integer(MAX_WRITES_LATER));
      const behind = writes.slice(nth, end - 1);
      // A header is no proof before its file has its name, which it has when the next batch is written.
      const proofs = behind.filter((later) => !later.zeros && later.opening === opening);
      const place = `write ${nth}, ${bytes} bytes at ${position} of ${file}`;
      const context = `seed ${SEED}, ${place}, ends at ${end}: ${JSON.stringify(lie)}`;
      const proven = proofs.length > 1;
      counts[await outcomeOf({ lie, endsAt: calls[end - 1], proven, context })]++;
    }
    expect(counts.refused).toBeGreaterThan(refusals);
  });
});
