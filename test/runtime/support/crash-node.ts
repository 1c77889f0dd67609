/** One node from real parts over a disk in memory whose power a test may cut, at whatever call. */
import { KeelsonError } from '../../../dist/base/errors.js';
import { silentLogger } from '../../../dist/base/logger.js';
import type { Scheduler } from '../../../dist/base/scheduler.js';
import { SystemScheduler } from '../../../dist/base/system-scheduler.js';
import { resolveConfig } from '../../../dist/config/resolve.js';
import type { Membership } from '../../../dist/engine/types.js';
import { Host } from '../../../dist/host.js';
import { Raft } from '../../../dist/index.js';
import type { Network } from '../../../dist/network/network.js';
import { decodeMembership } from '../../../dist/runtime/membership-codec.js';
import { MainThreadHost } from '../../../dist/state-machine/main-thread-host.js';
import type { CrashMode } from '../../../dist/storage/crash-survival.js';
import { InlineExecutor } from '../../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../../dist/storage/memory-disk.js';
import { snapshotDirectory } from '../../../dist/storage/snapshot-directory.js';
import { InlineSnapshotExecutor } from '../../../dist/storage/snapshot-executor.js';
import { SnapshotStore } from '../../../dist/storage/snapshot-store.js';
import { WalLogStore } from '../../../dist/storage/wal-log-store.js';
import { SharedHeap } from '../../../dist/wasm/shared-heap.js';
import type { Ledger } from './ledger.js';

const KIB = 1024;
const DIRECTORY = '/data';

export const LOSSES: readonly CrashMode[] = ['discard', 'keep', 'reorder', 'torn'];

const config = resolveConfig({
  snapshot: { everyEntries: 0, everyBytes: 0, keep: 2, keepEntries: 3, chunkBytes: 4 * KIB },
});
const heap = SharedHeap.create({ maximumBytes: 16 * KIB * KIB });

export interface CrashNodeOptions {
  readonly ledger: Ledger;
  readonly membership: Membership;
  readonly createNetwork: (scheduler: Scheduler) => Network;
}

export interface CrashNode {
  readonly raft: Raft<number, number, 'sum', number>;
  /** As when the power fails: nothing is written any more. */
  stop(): void;
}

/** Opens node 1, which leads before this resolves; the node before must not be used any more. */
export async function openCrashNode(
  disk: MemoryDisk,
  { ledger, membership, createNetwork }: CrashNodeOptions,
): Promise<CrashNode> {
  heap.reset();
  const scheduler = new SystemScheduler();
  const host = await Host.open({
    config,
    identity: { clusterId: 'c'.repeat(32), nodeId: 1, incarnation: '1'.repeat(32) },
    bootstrap: membership,
    scheduler,
    logger: silentLogger,
    openStore: (events) =>
      WalLogStore.open(
        {
          directory: DIRECTORY,
          segmentBytes: 64 * KIB,
          ringBytes: 64 * KIB,
          maxBatchBytes: 16 * KIB,
          maxBatchEntries: 64,
          maxQueuedBatches: 2,
          lingerMicros: 0,
          recovery: 'torn-tail',
          directIo: 'auto',
          maxIndexBytes: 4 * KIB * KIB,
        },
        {
          heap,
          scheduler,
          events,
          decodeMembership,
          executor: new InlineExecutor(heap, disk, scheduler),
        },
      ),
    openSnapshots: () => openCrashSnapshots(disk, snapshotDirectory(DIRECTORY, 0), scheduler),
    createMachine: (events) =>
      new MainThreadHost(ledger, { group: 0, events, scheduler, limits: config.stateMachine }),
    createNetwork: () => createNetwork(scheduler),
    release: async () => {},
  });
  const { runtime } = host;
  const stop = (): void => runtime.stop(new KeelsonError('KEELSON_CLOSED', 'the power has failed'));
  try {
    runtime.engine.campaign();
    runtime.run();
    const raft = Raft.on<number, number, 'sum', number>(host);
    await raft.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 10_000 });
    return { raft, stop };
  } catch (error) {
    stop();
    throw error;
  }
}

export function openCrashSnapshots(
  disk: MemoryDisk,
  directory: string,
  scheduler: Scheduler,
): Promise<SnapshotStore> {
  return SnapshotStore.open({
    directory,
    group: 0,
    ...config.snapshot,
    executor: new InlineSnapshotExecutor(disk, scheduler),
    logger: silentLogger,
  });
}

/** With the data directory in it; one that `lies` makes nothing durable. */
export function newCrashDisk(lies = false): MemoryDisk {
  const disk = new MemoryDisk();
  disk.makeDirectory(DIRECTORY);
  disk.syncDirectory('/');
  disk.ignoreDataSync = lies;
  return disk;
}
