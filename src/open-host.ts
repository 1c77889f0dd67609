import { randomBytes } from 'node:crypto';
import type { CallOptions } from './api.js';
import { KeelsonError } from './base/errors.js';
import { silentLogger } from './base/logger.js';
import { systemScheduler } from './base/system-scheduler.js';
import type { Config } from './config/types.js';
import { Host } from './host.js';
import { TcpNetwork } from './network/tcp-network.js';
import { type CheckedOptions, checkOptions, type RaftOptions } from './raft-options.js';
import { CallScope } from './runtime/call-scope.js';
import { decodeMembership } from './runtime/membership-codec.js';
import type { MachineEvents, MachineHost } from './state-machine/machine-host.js';
import { MainThreadHost } from './state-machine/main-thread-host.js';
import type { AnyStateMachine } from './state-machine/state-machine.js';
import { WorkerHost } from './state-machine/worker-host.js';
import { logHasBegun, openDataDirectory } from './storage/data-directory.js';
import { type DirectoryLock, lockDirectory } from './storage/directory-lock.js';
import type { Disk } from './storage/disk.js';
import { makeDirectories } from './storage/make-directories.js';
import { clusterIdOf, STORAGE_FORMAT_VERSION } from './storage/manifest.js';
import { NodeDisk } from './storage/node-disk.js';
import { PeerRegistry } from './storage/peer-registry.js';
import { snapshotDirectory } from './storage/snapshot-directory.js';
import { PiscinaSnapshotExecutor } from './storage/snapshot-executor.js';
import { SnapshotStore } from './storage/snapshot-store.js';
import { WalLogStore } from './storage/wal-log-store.js';
import { walMemoryBytes } from './storage/wal-memory.js';
import { SharedHeap } from './wasm/shared-heap.js';

/** The one group of a host until hosts hold several. */
const GROUP = 0;

/** A host on a real disk, real sockets and real threads. */
export async function openHost(options: RaftOptions, call?: CallOptions): Promise<Host> {
  const checked = checkOptions(options);
  const scope = new CallScope(systemScheduler, call, Number.POSITIVE_INFINITY);
  scope.check();
  const { dataDir } = options;
  const disk = new NodeDisk();
  let lock: DirectoryLock | undefined;
  try {
    makeDirectories(disk, dataDir);
    lock = await lockDirectory(dataDir);
    scope.check();
    return await openLocked(options, checked, scope, disk, lock);
  } catch (error) {
    await lock?.release();
    throw isSystemError(error) ? unusableDirectory(dataDir, error) : error;
  }
}

function openLocked(
  options: RaftOptions,
  { config, bootstrap }: CheckedOptions,
  scope: CallScope,
  disk: Disk,
  lock: DirectoryLock,
): Promise<Host> {
  const { clusterName, nodeId, dataDir } = options;
  const scheduler = systemScheduler;
  const logger = options.logger ?? silentLogger;
  const manifest = openDataDirectory(
    disk,
    dataDir,
    {
      clusterName,
      clusterId: clusterIdOf(clusterName, options.bootstrap.voters),
      nodeId,
      laneCount: config.storage.lanes,
      segmentBytes: config.storage.segmentBytes,
    },
    randomBytes,
  );
  const { clusterId, incarnation } = manifest;
  const identity = { clusterId, nodeId, incarnation };
  const heap = SharedHeap.create({ maximumBytes: walMemoryBytes(config.storage) });
  return Host.open({
    config,
    identity,
    bootstrap,
    scheduler,
    logger,
    scope,
    openStore: async (events) => {
      const store = await WalLogStore.open(
        {
          directory: dataDir,
          ...config.storage,
          closeTimeoutMs: closeTimeoutMs(config),
        },
        { scheduler, heap, events, decodeMembership, logger },
      );
      try {
        if (store.damage === undefined) logHasBegun(disk, dataDir, manifest);
      } catch (error) {
        await store.close();
        throw error;
      }
      return store;
    },
    openSnapshots: () =>
      SnapshotStore.open({
        directory: snapshotDirectory(dataDir, GROUP),
        group: GROUP,
        ...config.snapshot,
        executor: new PiscinaSnapshotExecutor(scheduler),
        logger,
      }),
    createMachine: (events) => createMachine(options.stateMachine, config, events),
    createNetwork: (machineVersion) =>
      new TcpNetwork({
        identity,
        versions: {
          format: { min: STORAGE_FORMAT_VERSION, max: STORAGE_FORMAT_VERSION },
          stateMachine: { min: machineVersion, max: machineVersion },
        },
        listen: options.listen,
        advertise: options.advertise,
        config: config.network,
        scheduler,
        logger,
        registry: PeerRegistry.open(disk, dataDir),
      }),
    release: () => lock.release(),
  });
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}

/** What the file system refuses before the log is open, and cares for its errors itself. */
function unusableDirectory(dataDir: string, cause: NodeJS.ErrnoException): KeelsonError {
  const { code, message } = cause;
  return new KeelsonError(
    code === 'ENOSPC' || code === 'EDQUOT' ? 'KEELSON_STORAGE_FULL' : 'KEELSON_STORAGE_FAILED',
    `the data directory ${dataDir} cannot be used: ${message}. This process must be able to make it, and to read and write in it`,
    { details: { dataDir, systemCode: code }, cause },
  );
}

function createMachine(
  machine: AnyStateMachine | URL,
  config: Config,
  events: MachineEvents,
): MachineHost {
  const options = { group: GROUP, events, scheduler: systemScheduler, limits: config.stateMachine };
  return machine instanceof URL
    ? new WorkerHost(machine, { ...options, shutdownTimeoutMs: closeTimeoutMs(config) })
    : new MainThreadHost(machine, options);
}

/** State machine and log are closed one after the other, each with its half of the time. */
function closeTimeoutMs(config: Config): number {
  return config.limits.shutdownTimeoutMs / 2;
}
