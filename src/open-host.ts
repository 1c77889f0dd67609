import { randomBytes } from 'node:crypto';
import { type Logger, silentLogger } from './base/logger.js';
import { systemScheduler } from './base/system-scheduler.js';
import { type BootstrapOptions, bootstrapMembership } from './bootstrap.js';
import { resolveConfig } from './config/resolve.js';
import type { Config, ConfigInput } from './config/types.js';
import type { Membership } from './engine/types.js';
import { Host } from './host.js';
import { TcpNetwork } from './network/tcp-network.js';
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
import { WalLogStore } from './storage/wal-log-store.js';
import { walMemoryBytes } from './storage/wal-memory.js';
import { SharedHeap } from './wasm/shared-heap.js';

/** What `Raft.open` needs to know. */
export interface RaftOptions<Machine = AnyStateMachine | URL> extends BootstrapOptions {
  /**
   * An object runs on the main thread; a module URL runs in a worker thread (its default export is a
   * machine, a class, or a function that makes one).
   */
  readonly stateMachine: Machine;
  readonly config?: ConfigInput | undefined;
  /** Any pino-shaped logger. Default: silent. */
  readonly logger?: Logger | undefined;
}

/** The one group of a host until hosts hold several. */
const GROUP = 0;

/** A host on a real disk, real sockets and real threads. */
export async function openHost(options: RaftOptions): Promise<Host> {
  const config = resolveConfig(options.config);
  const bootstrap = bootstrapMembership(options);
  const logger = options.logger ?? silentLogger;
  const disk = new NodeDisk();
  makeDirectories(disk, options.dataDir);
  const lock = await lockDirectory(options.dataDir);
  try {
    return await openLocked(options, config, bootstrap, logger, disk, lock);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

function openLocked(
  options: RaftOptions,
  config: Config,
  bootstrap: Membership,
  logger: Logger,
  disk: Disk,
  lock: DirectoryLock,
): Promise<Host> {
  const { clusterName, nodeId, dataDir } = options;
  const scheduler = systemScheduler;
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
    openStore: async (events) => {
      const store = await WalLogStore.open(
        {
          directory: dataDir,
          ...config.storage,
          closeTimeoutMs: config.limits.shutdownTimeoutMs / 2,
        },
        { scheduler, heap, events, decodeMembership, logger },
      );
      try {
        logHasBegun(disk, dataDir, manifest);
      } catch (error) {
        await store.close();
        throw error;
      }
      return store;
    },
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

function createMachine(
  machine: AnyStateMachine | URL,
  config: Config,
  events: MachineEvents,
): MachineHost {
  const options = { group: GROUP, events, scheduler: systemScheduler, limits: config.stateMachine };
  const { shutdownTimeoutMs } = config.limits;
  return machine instanceof URL
    ? new WorkerHost(machine, { ...options, shutdownTimeoutMs })
    : new MainThreadHost(machine, options);
}
