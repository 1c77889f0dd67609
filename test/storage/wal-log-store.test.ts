import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { systemScheduler } from '../../dist/base/system-scheduler.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import type { LogStoreEvents } from '../../dist/storage/log-store.js';
import { type CrashMode, MemoryDisk } from '../../dist/storage/memory-disk.js';
import { PiscinaExecutor } from '../../dist/storage/piscina-executor.js';
import type { StorageExecutor } from '../../dist/storage/storage-executor.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import {
  decodeTestMembership,
  logStoreCases,
  logStoreCrashCases,
  logStoreFaultCases,
} from '../../dist/testing/index.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MIB } from './wal-support.js';

const MAX_PAYLOAD_BYTES = MIB;
const LOSSES: readonly CrashMode[] = ['discard', 'reorder', 'torn', 'random'];

function open(
  directory: string,
  events: LogStoreEvents,
  makeExecutor: (heap: SharedHeap) => StorageExecutor,
  lanes: number,
): Promise<WalLogStore> {
  const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
  return WalLogStore.open(
    {
      directory,
      segmentBytes: 5 * MIB,
      lanes,
      ringBytes: 5 * MIB,
      maxBatchBytes: MIB,
      maxBatchEntries: 4096,
      maxQueuedBatches: 2,
      lingerMicros: 0,
      recovery: 'strict',
      directIo: 'auto',
    },
    {
      heap,
      scheduler: systemScheduler,
      events,
      decodeMembership: decodeTestMembership,
      executor: makeExecutor(heap),
    },
  );
}

const inline =
  (disk: MemoryDisk) =>
  (heap: SharedHeap): StorageExecutor =>
    new InlineExecutor(heap, disk, systemScheduler);

describe.each([1, 3])('a WalLogStore of %i lanes on a disk in memory', (lanes) => {
  const makeFixture = () => {
    let disk = new MemoryDisk();
    let crashes = 0;
    return {
      open: (events: LogStoreEvents) => {
        disk.clearFaults();
        return open('/own', events, inline(disk), lanes);
      },
      openOther: (events: LogStoreEvents) => open('/other', events, inline(disk), lanes),
      maxPayloadBytes: MAX_PAYLOAD_BYTES,
      crash: () => {
        disk = disk.crash(LOSSES[crashes % LOSSES.length], ++crashes);
      },
      failWrites: () => {
        for (const operation of ['write', 'dataSync'] as const) {
          disk.fail({ operation, nth: 1, code: 'EIO', sticky: true });
        }
      },
      dispose: async () => {},
    };
  };
  const cases = [
    ...logStoreCases(makeFixture),
    ...logStoreCrashCases(makeFixture),
    ...logStoreFaultCases(makeFixture),
  ];
  for (const { name, run } of cases) test(name, run);
});

describe.each([1, 2])('a WalLogStore of %i lanes in worker threads', (lanes) => {
  const makeFixture = () => {
    const directory = mkdtempSync(join(tmpdir(), 'keelson-wal-'));
    const threads = (heap: SharedHeap) => new PiscinaExecutor(heap, systemScheduler);
    return {
      open: (events: LogStoreEvents) => open(join(directory, 'own'), events, threads, lanes),
      openOther: (events: LogStoreEvents) => open(join(directory, 'other'), events, threads, lanes),
      dispose: async () => rmSync(directory, { recursive: true }),
      maxPayloadBytes: MAX_PAYLOAD_BYTES,
    };
  };
  for (const { name, run } of logStoreCases(makeFixture)) test(name, run);
});
