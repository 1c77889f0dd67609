import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import type { Logger } from '../../dist/base/logger.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { SpareSegment } from '../../dist/storage/spare-segment.js';
import type { StorageExecutor } from '../../dist/storage/storage-executor.js';
import {
  type PrefillTask,
  type StorageTask,
  StorageTaskRunner,
} from '../../dist/storage/storage-tasks.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MIB, openLog, segmentFile, texts } from './wal-support.js';

const KIB = 1024;
const SEGMENT_BYTES = 4 * MIB;
const SPARE = '/wal/lane-0-spare-0000000000';

/** A log that only tells where its batches stand, and the disk on which the file is made. */
class Bench {
  readonly disk: MemoryDisk;
  readonly tasks: PrefillTask[] = [];
  readonly warnings: unknown[] = [];
  readonly spare: SpareSegment;
  failing = false;
  /** The disk has room for zeros beside what is queued and kept. */
  roomy = true;
  /** Slices that wait until they are let go. */
  held: (() => void)[] | undefined;
  private position = 0;

  constructor(disk: MemoryDisk = new MemoryDisk()) {
    this.disk = disk;
    const heap = SharedHeap.create({ maximumBytes: 16 * MIB });
    const zeros = { pointer: heap.reserve(MIB, 4096), bytes: MIB };
    const runner = new StorageTaskRunner(heap, this.disk);
    makeDirectories(this.disk, '/wal');
    const run = async (task: StorageTask): Promise<unknown> => {
      this.tasks.push(task as PrefillTask);
      if (this.failing) throw new KeelsonError('KEELSON_STORAGE_FULL', 'no space');
      if (this.held !== undefined) await new Promise<void>((go) => this.held?.push(go));
      return runner.run(task);
    };
    const logger = { warn: (fields: unknown) => this.warnings.push(fields) };
    this.spare = new SpareSegment(
      { directory: '/wal', lane: 0, lanes: 1, segmentBytes: SEGMENT_BYTES, direct: true, zeros },
      {
        executor: { run } as unknown as StorageExecutor,
        logger: logger as unknown as Logger,
        take: () => this.roomy,
      },
    );
  }

  /** Flushes of one size from where the segment stands up to `to`; a new segment begins at 0. */
  async write(segment: number, flushBytes: number, from: number, to: number): Promise<void> {
    this.position = from;
    while (this.position < to) {
      this.spare.written({ segment, position: this.position, totalLength: flushBytes });
      this.position += flushBytes;
      // Slices complete in microtasks.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Whether the file is there, of full length and zero; comparing it as a value would take seconds. */
function isAllZero(disk: MemoryDisk): boolean {
  return Buffer.compare(disk.readFile(SPARE), new Uint8Array(SEGMENT_BYTES)) === 0;
}

describe('the file of the next segment', () => {
  it('takes no blocks for zeros that the log may need', async () => {
    const bench = new Bench();
    bench.roomy = false;
    await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES);
    expect(bench.disk.usedBytes()).toBe(0);
    expect(isAllZero(bench.disk)).toBe(true);
  });

  it('is filled with zeros beside small flushes, slice by slice, and whole before it is needed', async () => {
    const bench = new Bench();
    await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES / 8);
    expect(bench.tasks).toEqual([]);
    await bench.write(1, 8 * KIB, SEGMENT_BYTES / 8, SEGMENT_BYTES / 2);
    expect(bench.disk.exists(SPARE)).toBe(false);
    const halfway = bench.tasks.length;
    expect(halfway).toBeGreaterThan(4);
    await bench.write(1, 8 * KIB, SEGMENT_BYTES / 2, (SEGMENT_BYTES / 8) * 7);
    expect(isAllZero(bench.disk)).toBe(true);
    expect(bench.tasks.every(({ zeroed }) => zeroed)).toBe(true);
    expect(bench.tasks.map(({ from }) => from)).toEqual(
      bench.tasks.map((_, slice) => slice * 256 * KIB),
    );
    // Not all at once: a flush that meets a slice waits for it.
    expect(bench.tasks.length - halfway).toBeGreaterThan(4);
    const made = bench.tasks.length;
    await bench.write(1, 8 * KIB, (SEGMENT_BYTES / 8) * 7, SEGMENT_BYTES);
    expect(bench.tasks.length).toBe(made);
    await bench.write(2, 8 * KIB, 0, SEGMENT_BYTES / 4);
    expect(bench.tasks[made]).toMatchObject({ from: 0 });
  });

  it('stays a hole of full length while flushes are large, so that the disk is left to the log', async () => {
    const bench = new Bench();
    await bench.write(1, 128 * KIB, 0, SEGMENT_BYTES);
    expect(bench.tasks).toMatchObject([{ from: 0, to: SEGMENT_BYTES, zeroed: false }]);
    expect(bench.disk.calls.write).toBe(0);
    expect(isAllZero(bench.disk)).toBe(true);
  });

  it('is durable before it has its name', async () => {
    for (const flushBytes of [8 * KIB, 128 * KIB]) {
      const bench = new Bench();
      await bench.write(1, flushBytes, 0, SEGMENT_BYTES);
      expect(isAllZero(bench.disk.crash())).toBe(true);
    }
  });

  it('is made by one task at a time, and by none once it is stopped', async () => {
    const bench = new Bench();
    bench.held = [];
    await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES / 2);
    expect(bench.tasks.length).toBe(1);
    let stopped = false;
    const stopping = bench.spare.stop().then(() => {
      stopped = true;
    });
    await bench.write(1, 8 * KIB, SEGMENT_BYTES / 2, SEGMENT_BYTES);
    expect(stopped).toBe(false);
    bench.held[0]?.();
    await stopping;
    expect(bench.tasks.length).toBe(1);
  });

  it('goes on in the next segment when the log was faster', async () => {
    const bench = new Bench();
    bench.held = [];
    await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES);
    const { held } = bench;
    bench.held = undefined;
    for (const go of held) go();
    await bench.write(2, 8 * KIB, 0, (SEGMENT_BYTES / 8) * 7);
    expect(isAllZero(bench.disk)).toBe(true);
    expect(bench.tasks.filter(({ from }) => from === 0)).toHaveLength(1);
  });

  it('that cannot be made is told of once, and tried again in the next segment', async () => {
    const bench = new Bench();
    bench.failing = true;
    await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES);
    expect(bench.warnings).toMatchObject([{ event: 'storage.prefill-failed' }]);
    expect(bench.tasks.length).toBe(1);
    bench.failing = false;
    await bench.write(2, 8 * KIB, 0, (SEGMENT_BYTES / 8) * 7);
    expect(isAllZero(bench.disk)).toBe(true);
  });
});

describe('the disk on which the next segment is made', () => {
  it('has its room back when the file cannot be made, whatever failed', async () => {
    for (const operation of ['open', 'extend', 'write', 'dataSync', 'rename'] as const) {
      for (const nth of [1, 2]) {
        const bench = new Bench(new MemoryDisk({ allowDirect: false }));
        bench.disk.fail({ operation, nth, code: 'ENOSPC', pathIncludes: 'spare' });
        await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES);
        const failed = operation === 'extend' || operation === 'rename' ? nth === 1 : true;
        expect(bench.warnings.length, `${operation} ${nth}`).toBe(failed ? 1 : 0);
        expect(bench.disk.list('/wal'), `${operation} ${nth}`).toEqual(
          failed ? [] : ['lane-0-spare-0000000000'],
        );
      }
    }
  });

  it('keeps room for a segment: beyond that the file is a hole, of full length', async () => {
    const bench = new Bench(new MemoryDisk({ capacityBytes: 1.5 * SEGMENT_BYTES }));
    await bench.write(1, 8 * KIB, 0, SEGMENT_BYTES);
    expect(isAllZero(bench.disk)).toBe(true);
    expect(bench.disk.freeBytes()).toBe(SEGMENT_BYTES);
    expect(bench.warnings).toEqual([]);
  });
});

function withoutPrefill(executor: InlineExecutor): StorageExecutor {
  const run = executor.run.bind(executor);
  executor.run = (task) =>
    task.type === 'prefill' ? Promise.reject(new Error('not made')) : run(task);
  return executor;
}

describe('a log without a file made ahead', () => {
  it('makes its next segments itself, of full length, and recovers them', async () => {
    const disk = new MemoryDisk();
    const log = await openLog(disk, {
      executor: (heap, scheduler) => withoutPrefill(new InlineExecutor(heap, disk, scheduler)),
    });
    const written: string[] = [];
    for (let batch = 0; batch < 40; batch++) {
      const payloads = texts(8, `${batch}-${'h'.repeat(9_000)}`);
      written.push(...payloads.map((bytes) => new TextDecoder().decode(bytes)));
      await log.durable(log.append(payloads));
    }
    expect(disk.exists(segmentFile(3))).toBe(true);
    expect(disk.readFile(segmentFile(3)).length).toBe(MIB);
    expect(await (await openLog(disk.crash())).contents()).toEqual(written);
  });
});
