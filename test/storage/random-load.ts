/**
 * A lane under a load that a seed decides: logs that are idle, one that many writers write to and that keeps
 * a window of it, a disk and reads that take a turn each. Tells at each roll what the files of the lane take up.
 */
import type { KeelsonError } from '../../dist/base/errors.js';
import { SeededRandom } from '../../dist/base/random.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { StorageTask } from '../../dist/storage/storage-tasks.js';
import { ITEM } from '../../dist/wasm/layout.js';
import { type OpenOptions, openLog, type TestLog } from './wal-support.js';

const KIB = 1024;
export const SEGMENT_BYTES: number = 512 * KIB;
const ROLLS = 60;
/** Until then the lane makes the files that it works with. */
const FIRST_ROLLS = 3;

export interface Load {
  readonly seed: number;
  readonly idleGroups: number;
  /** Of each idle group. */
  readonly idleBytes: number;
  readonly idleEntryBytes: number;
  /** What the group keeps that is written to. */
  readonly keptBytes: number;
  readonly entryBytes: number;
  readonly writers: number;
  readonly maxBatchBytes: number;
  readonly ringBytes: number;
  /** Turns of the event loop that a task takes. */
  readonly readTurns: number;
}

/** A roll that left more than the bound allows. */
export interface Excess {
  readonly roll: number;
  readonly usedBytes: number;
  readonly boundBytes: number;
}

export interface LoadResult {
  readonly excesses: readonly Excess[];
  readonly refusals: number;
  readonly rolls: number;
}

export function loadOf(seed: number): Load {
  const random = new SeededRandom(seed);
  const pick = (list: readonly number[]): number => list[random.integer(list.length)]!;
  const idleGroups = pick([1, 3, 30]);
  const idleBytes = pick([1, 50, 300, 1_200]) * KIB;
  return {
    seed,
    idleGroups,
    idleBytes: Math.floor(idleBytes / idleGroups),
    idleEntryBytes: pick([200, 4_000, 30_000]),
    keptBytes: pick([0, 50, 600, 2_000]) * KIB,
    entryBytes: pick([300, 4_000, 30_000, 100_000]),
    writers: pick([1, 4, 16]),
    maxBatchBytes: pick([32, 64, 128]) * KIB,
    ringBytes: pick([512, 1_024, 4_096]) * KIB,
    readTurns: pick([0, 1]),
  };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class WatchedDisk extends MemoryDisk {
  rolled: () => void = () => {};

  override rename(from: string, to: string): void {
    super.rename(from, to);
    if (to.endsWith('.wal')) this.rolled();
  }

  laneBytes(): number {
    let bytes = 0;
    for (const name of this.list('/data/wal')) {
      const file = this.open(`/data/wal/${name}`, { access: 'read' });
      bytes += file.size();
      file.close();
    }
    return bytes;
  }
}

/** One task at a time, as the thread for them does it, beside the one that writes. */
function slow(disk: MemoryDisk, readTurns: number): OpenOptions['executor'] {
  return (heap, scheduler) => {
    const executor = new InlineExecutor(heap, disk, scheduler);
    const run = executor.run.bind(executor);
    const submit = executor.submit.bind(executor);
    let last: Promise<unknown> = Promise.resolve();
    const inTurn = (task: StorageTask): Promise<unknown> => {
      const result = last.then(async () => {
        for (let turns = 0; turns < readTurns; turns++) await turn();
        return run(task);
      });
      last = result.catch(() => {});
      return result;
    };
    return Object.assign(executor, {
      run: inTurn as typeof executor.run,
      submit: (...command: Parameters<typeof submit>) => {
        setImmediate(() => submit(...command));
      },
    });
  };
}

export async function runLoad(load: Load): Promise<LoadResult> {
  const random = new SeededRandom(load.seed);
  const disk = new WatchedDisk();
  const { ringBytes, maxBatchBytes } = load;
  const executor = slow(disk, load.readTurns);
  const sizes = { segmentBytes: SEGMENT_BYTES, ringBytes, maxBatchBytes };
  const log = await openLog(disk, { ...sizes, executor });
  const idleBytes = await writeIdle(log, load, random);
  const excesses: Excess[] = [];
  let rolls = 0;
  let liveBytes = idleBytes;
  /** Since the last roll: what is decided by what is live takes a segment to come about. */
  let mostLiveBytes = liveBytes;
  disk.rolled = () => {
    rolls++;
    const usedBytes = disk.laneBytes();
    const boundBytes = 2 * mostLiveBytes + 4 * SEGMENT_BYTES;
    if (rolls > FIRST_ROLLS && usedBytes > boundBytes) {
      excesses.push({ roll: rolls, usedBytes, boundBytes });
    }
    mostLiveBytes = liveBytes;
  };
  /** Of the entries that are kept. */
  const sizesKept: number[] = [];
  let first = 1;
  let last = 0;
  let durable = 0;
  let refusals = 0;
  const write = async (): Promise<void> => {
    while (rolls < ROLLS) {
      const bytes = 1 + random.integer(load.entryBytes);
      const before = log.writableCalls;
      try {
        const io = log.append([Buffer.alloc(bytes)], 1, 0, last + 1);
        last++;
        sizesKept.push(bytes + ITEM.bytes);
        liveBytes += bytes + ITEM.bytes;
        mostLiveBytes = Math.max(mostLiveBytes, liveBytes);
        await log.durable(io);
        durable = Math.max(durable, io.logId.index);
      } catch (error) {
        if ((error as KeelsonError).code !== 'KEELSON_OVERLOADED') throw error;
        refusals++;
        await log.writableAfter(before);
        continue;
      }
      const next = first;
      while (liveBytes - idleBytes - (sizesKept[0] ?? 0) >= load.keptBytes && first <= durable) {
        liveBytes -= sizesKept.shift()!;
        first++;
      }
      if (first > next) log.store.purge(0, { index: first - 1, term: 1 });
    }
  };
  await Promise.all(Array.from({ length: load.writers }, write));
  if (log.failure !== undefined) throw log.failure;
  return { excesses, refusals, rolls };
}

/** Returns what the idle groups take up. */
async function writeIdle(log: TestLog, load: Load, random: SeededRandom): Promise<number> {
  let total = 0;
  for (let group = 1; group <= load.idleGroups; group++) {
    let bytes = 0;
    for (let index = 1; bytes < load.idleBytes; index++) {
      const payload = Buffer.alloc(1 + random.integer(load.idleEntryBytes));
      await log.write([payload], 1, group, index);
      bytes += payload.length + ITEM.bytes;
    }
    total += bytes;
  }
  return total;
}
