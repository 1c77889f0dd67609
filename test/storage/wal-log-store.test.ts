import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemScheduler } from '../../dist/base/system-scheduler.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import type { LogStoreEvents } from '../../dist/storage/log-store.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { PiscinaExecutor } from '../../dist/storage/piscina-executor.js';
import type { StorageExecutor } from '../../dist/storage/storage-executor.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { decodeTestMembership, describeLogStore } from './log-store-suite.js';
import { MIB } from './wal-support.js';

const MAX_PAYLOAD_BYTES = MIB;

function open(
  directory: string,
  events: LogStoreEvents,
  makeExecutor: (heap: SharedHeap) => StorageExecutor,
): Promise<WalLogStore> {
  const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
  return WalLogStore.open(
    {
      directory,
      segmentBytes: 5 * MIB,
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

describeLogStore('WalLogStore on a disk in memory', () => {
  const disk = new MemoryDisk();
  const inline = (heap: SharedHeap) => new InlineExecutor(heap, disk, systemScheduler);
  return {
    open: (events) => open('/own', events, inline),
    openOther: (events) => open('/other', events, inline),
    dispose: async () => {},
    maxPayloadBytes: MAX_PAYLOAD_BYTES,
  };
});

describeLogStore('WalLogStore in worker threads', () => {
  const directory = mkdtempSync(join(tmpdir(), 'keelson-wal-'));
  const threads = (heap: SharedHeap) => new PiscinaExecutor(heap, systemScheduler);
  return {
    open: (events) => open(join(directory, 'own'), events, threads),
    openOther: (events) => open(join(directory, 'other'), events, threads),
    dispose: async () => rmSync(directory, { recursive: true }),
    maxPayloadBytes: MAX_PAYLOAD_BYTES,
  };
});
