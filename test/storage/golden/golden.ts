/** Golden directories: how they are opened, and the form in which their content is told. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LogId, Membership, Vote } from '../../../dist/engine/types.js';
import { decodeMembership } from '../../../dist/runtime/membership-codec.js';
import { InlineExecutor } from '../../../dist/storage/inline-executor.js';
import type { LogStoreEvents } from '../../../dist/storage/log-store.js';
import { makeDirectories } from '../../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../../dist/storage/memory-disk.js';
import { WalLogStore } from '../../../dist/storage/wal-log-store.js';
import type { LogEntry } from '../../../dist/testing/log-blocks.js';
import { SharedHeap } from '../../../dist/wasm/shared-heap.js';
import { MicrotaskScheduler } from '../microtask-scheduler.js';
import { MIB } from '../wal-support.js';

export const SEGMENT_BYTES: number = 32 * 1024;
export const GOLDEN: string = dirname(fileURLToPath(import.meta.url));

/** What a directory holds of a group: a line of the file beside it. */
export interface GoldenGroup {
  readonly group: number;
  readonly vote: Vote;
  readonly committed: number;
  readonly purged: LogId;
  readonly memberships: readonly { readonly index: number; readonly membership: Membership }[];
  /** Payloads with one character per byte. */
  readonly entries: readonly LogEntry[];
}

export function openGolden(
  disk: MemoryDisk,
  seed: number,
  events: LogStoreEvents,
): Promise<WalLogStore> {
  const heap = SharedHeap.create({ maximumBytes: 16 * MIB });
  const scheduler = new MicrotaskScheduler(seed);
  return WalLogStore.open(
    {
      directory: '/data',
      segmentBytes: SEGMENT_BYTES,
      ringBytes: 2 * SEGMENT_BYTES,
      maxBatchBytes: SEGMENT_BYTES / 4,
      maxBatchEntries: 64,
      maxQueuedBatches: 2,
      lingerMicros: 0,
      recovery: 'torn-tail',
      directIo: 'auto',
      maxIndexBytes: 4 * MIB,
    },
    {
      heap,
      scheduler,
      events,
      decodeMembership,
      executor: new InlineExecutor(heap, disk, scheduler),
    },
  );
}

/** A golden directory, on a disk where it may be changed. */
export function loadGolden(format: string): MemoryDisk {
  const disk = new MemoryDisk();
  makeDirectories(disk, '/data/wal');
  for (const folder of ['', 'wal']) {
    for (const entry of readdirSync(join(GOLDEN, format, folder), { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const file = disk.open(join('/data', folder, entry.name), { access: 'write', create: true });
      file.write(readFileSync(join(GOLDEN, format, folder, entry.name)), 0);
      file.dataSync();
      file.close();
    }
  }
  disk.syncDirectory('/data/wal');
  disk.syncDirectory('/data');
  return disk;
}

export function goldenContent(format: string): GoldenGroup[] {
  const text = readFileSync(join(GOLDEN, `${format}.jsonl`), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}
