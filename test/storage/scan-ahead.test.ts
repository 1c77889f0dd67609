/** However much memory a recovery has, and however many scans run at once, it finds the same log. */
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { type RecoveredLane, recoverLane } from '../../dist/storage/recovery.js';
import type { StorageTask } from '../../dist/storage/storage-tasks.js';
import { BlockCodec } from '../../dist/wasm/block-codec.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MIB, openLog, segmentFile, texts, vote } from './wal-support.js';

const KIB = 1024;
const SEED = 17;
const FOLDER = '/data/wal';
const MAX_BATCH_BYTES = 256 * KIB;
/** Too little for two scans; enough for them; more than a segment; and as much as the store has had. */
const SCRATCHES = [300 * KIB, 512 * KIB, 640 * KIB, 1 * MIB, 4 * MIB];

let disk: MemoryDisk;

interface Recovered {
  readonly lane: RecoveredLane;
  readonly log: unknown;
  /** The most scans at once. */
  readonly scans: number;
}

async function recover(image: MemoryDisk, scratchBytes: number): Promise<Recovered> {
  const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
  const executor = new InlineExecutor(heap, image, new SystemScheduler());
  let running = 0;
  let scans = 0;
  const run = async (task: StorageTask): Promise<unknown> => {
    running++;
    if (task.type === 'scan') scans = Math.max(scans, running);
    try {
      return await executor.run(task);
    } finally {
      running--;
    }
  };
  const lane = await recoverLane(
    heap,
    { run: run as typeof executor.run },
    {
      directory: FOLDER,
      lane: 0,
      lanes: 1,
      mode: 'torn-tail',
      scratch: heap.reserve(scratchBytes, 4 * KIB),
      scratchBytes,
      summary: heap.reserve(BlockCodec.scratchBytes, 64),
      epoch: 1,
    },
  );
  const groups = [...lane.groups].map(([id, { checkpoint, index, memberships, lastTime }]) => {
    const { firstIndex, lastIndex } = index;
    const places = [];
    for (let next = firstIndex; next <= lastIndex; ) {
      const extents = index.scan(next, lastIndex, MIB);
      places.push(...extents);
      next = extents.at(-1)!.firstIndex + extents.at(-1)!.items;
    }
    return { id, checkpoint, firstIndex, lastIndex, places, memberships, lastTime };
  });
  const { batches, entries, tornTail, largestBlockBytes, start } = lane;
  const { carry, ...rest } = start;
  const carried = { ...carry, pointer: 0 };
  const log = { groups, batches, entries, tornTail, largestBlockBytes, rest, carried };
  return { lane, log, scans };
}

beforeAll(async () => {
  disk = new MemoryDisk();
  const random = new SeededRandom(SEED);
  const options = { segmentBytes: MIB, ringBytes: 4 * MIB, maxBatchBytes: MAX_BATCH_BYTES };
  const log = await openLog(disk, options);
  const last = [0, 0, 0];
  while (!disk.exists(segmentFile(6))) {
    const group = random.integer(3);
    // Of small entries the tables are most, and fill their part of the memory.
    const size = ['large', 'small', 'small', 'any'][random.integer(4)];
    const count = size === 'large' ? 1 : 1 + random.integer(size === 'small' ? 1000 : 200);
    const bytes = size === 'large' ? 250 * KIB : size === 'small' ? 0 : random.integer(600);
    const payloads = texts(count, 'x'.repeat(bytes));
    await log.write(payloads, 1, group, last[group]! + 1);
    last[group]! += count;
    if (random.chance(0.1)) log.saveVote(vote(1 + random.integer(9)), group);
  }
  // The last batch is torn: its vote is in the copies alone.
  await log.durable(log.saveVote(vote(1), 1), 1);
  const payloads = texts(1, 'y'.repeat(250 * KIB));
  const io = log.append(payloads, 11, 2, last[2]! + 1);
  await log.durable(io, 2);
  disk = disk.kill();
  const newest = disk
    .list(FOLDER)
    .filter((name) => name.endsWith('.wal'))
    .at(-1)!;
  const bytes = disk.readFile(`${FOLDER}/${newest}`);
  const place = Buffer.from(bytes).indexOf('y'.repeat(64));
  disk.damage(`${FOLDER}/${newest}`, place, (byte) => {
    byte[0]! ^= 1;
  });
});

describe(`a recovery (seed ${SEED})`, () => {
  it('finds the same with any memory, by one scan or by two at once', async () => {
    const alone = await recover(disk, SCRATCHES[0]!);
    expect(alone.scans).toBe(1);
    expect(alone.lane.groups.get(2)?.checkpoint.vote.term).toBe(11);
    expect(alone.lane.tornTail).toBeDefined();
    for (const bytes of SCRATCHES.slice(1)) {
      const { log, scans } = await recover(disk, bytes);
      expect(scans, `${bytes} bytes`).toBe(2);
      expect(log, `${bytes} bytes`).toEqual(alone.log);
    }
  });

  it('takes all of the memory for a batch that is too large for half of it', async () => {
    // Half of it has a window of a quarter: 128 KiB.
    const narrow = await recover(disk, 512 * KIB);
    expect(narrow.log).toEqual((await recover(disk, 4 * MIB)).log);
    await expect(recover(disk, 128 * KIB)).rejects.toMatchObject({
      code: 'KEELSON_INVALID_CONFIG',
      message: expect.stringContaining('larger ringBytes'),
    });
  });
});
