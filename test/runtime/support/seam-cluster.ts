/**
 * Nodes in one process, put together from real parts, with every seam open to the test: it may wrap
 * or replace the log store, the state machine and the network of each node, and it holds the handler
 * that a node gave to its network.
 */
import { type Logger, silentLogger } from '../../../dist/base/logger.js';
import type { Timer } from '../../../dist/base/scheduler.js';
import { SystemScheduler } from '../../../dist/base/system-scheduler.js';
import { resolveConfig } from '../../../dist/config/resolve.js';
import type { Config, ConfigInput } from '../../../dist/config/types.js';
import { Host } from '../../../dist/host.js';
import { Raft } from '../../../dist/index.js';
import { InProcessHub } from '../../../dist/network/in-process-hub.js';
import { InProcessNetwork } from '../../../dist/network/in-process-network.js';
import type { Network, NetworkHandler } from '../../../dist/network/network.js';
import { decodeMembership } from '../../../dist/runtime/membership-codec.js';
import type { MachineEvents, MachineHost } from '../../../dist/state-machine/machine-host.js';
import { MainThreadHost } from '../../../dist/state-machine/main-thread-host.js';
import type { LogStore, LogStoreEvents } from '../../../dist/storage/log-store.js';
import { clusterIdOf } from '../../../dist/storage/manifest.js';
import { MemoryDisk } from '../../../dist/storage/memory-disk.js';
import { MemoryLogImage, MemoryLogStore } from '../../../dist/storage/memory-log-store.js';
import { snapshotDirectory } from '../../../dist/storage/snapshot-directory.js';
import {
  InlineSnapshotExecutor,
  type SnapshotExecutor,
} from '../../../dist/storage/snapshot-executor.js';
import { SnapshotStore } from '../../../dist/storage/snapshot-store.js';
import type { WalLogStoreParts } from '../../../dist/storage/wal-log-store.js';
import { SharedHeap } from '../../../dist/wasm/shared-heap.js';
import { Counter } from '../../testing/counter.js';

export type SeamNode = Raft<number, number, 'sum', number>;

export interface Seams {
  /** Default: 1, 2 and 3, all of them started. */
  readonly voters?: readonly number[];
  /** The voters that are started; the others are up to the test's network. */
  readonly started?: readonly number[];
  readonly config?: ConfigInput;
  readonly scheduler?: SystemScheduler;
  readonly logger?: Logger;
  /** Default: a log in memory. */
  readonly openStore?: (
    nodeId: number,
    parts: Omit<WalLogStoreParts, 'executor'>,
    config: Config,
  ) => Promise<LogStore>;
  /** `inner` is the default log; what is returned stands in its place. */
  readonly wrapStore?: (nodeId: number, inner: LogStore) => LogStore;
  /** `inner` works on a disk in memory; what is returned stands in its place. */
  readonly snapshotExecutor?: (nodeId: number, inner: SnapshotExecutor) => SnapshotExecutor;
  /** Default: a `Counter` on the main thread. */
  readonly createMachine?: (
    nodeId: number,
    events: MachineEvents,
    scheduler: SystemScheduler,
    config: Config,
  ) => MachineHost;
  /** `inner` is the node's network in process; what is returned stands in its place. */
  readonly createNetwork?: (nodeId: number, inner: Network) => Network;
}

const MIB = 1024 * 1024;

export class SeamCluster implements AsyncDisposable {
  readonly scheduler: SystemScheduler;
  readonly hub: InProcessHub;
  /** What each node gave to its network. */
  readonly handlers = new Map<number, NetworkHandler>();
  /** The machines of nodes whose machine is the default. */
  readonly machines = new Map<number, Counter>();
  private readonly seams: Seams;
  private readonly voters: readonly number[];
  private readonly config: Config;
  private readonly open = new Map<number, SeamNode>();
  /** What the default log and the snapshots of each node stand on. */
  private readonly images = new Map<number, MemoryLogImage>();
  readonly disks = new Map<number, MemoryDisk>();
  private readonly stores = new Map<number, MemoryLogStore>();
  private readonly alive: Timer;

  private constructor(seams: Seams) {
    this.seams = seams;
    this.scheduler = seams.scheduler ?? new SystemScheduler();
    this.hub = new InProcessHub(this.scheduler);
    this.alive = this.scheduler.keepAlive();
    this.voters = seams.voters ?? [1, 2, 3];
    this.config = resolveConfig({
      ...seams.config,
      storage: {
        ringBytes: 8 * MIB,
        segmentBytes: 8 * MIB,
        maxBatchBytes: MIB,
        ...seams.config?.storage,
      },
      network: { maxFrameBytes: 2 * MIB, ...seams.config?.network },
      raft: { maxInflightBytes: 2 * MIB, ...seams.config?.raft },
    });
  }

  static async start(seams: Seams = {}): Promise<SeamCluster> {
    const cluster = new SeamCluster(seams);
    try {
      for (const nodeId of seams.started ?? cluster.voters) await cluster.start(nodeId);
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  get nodes(): SeamNode[] {
    return [...this.open.values()];
  }

  node(nodeId: number): SeamNode {
    return this.open.get(nodeId) as SeamNode;
  }

  handler(nodeId: number): NetworkHandler {
    return this.handlers.get(nodeId) as NetworkHandler;
  }

  /** Waits for a leader that is ready, among `nodes`. */
  leader(nodes: readonly SeamNode[] = this.nodes): Promise<SeamNode> {
    return Promise.any(
      nodes.map(async (node) => {
        await node.waitFor((status) => status.readyToLead, { timeoutMs: 30_000 });
        return node;
      }),
    );
  }

  followersOf(leader: SeamNode): SeamNode[] {
    return this.nodes.filter((node) => node !== leader);
  }

  /** Loses power, and starts again on what was durable. */
  async restart(nodeId: number): Promise<SeamNode> {
    this.stores.get(nodeId)?.crash();
    this.disks.set(nodeId, this.disk(nodeId).crash());
    await this.open.get(nodeId)?.close();
    this.open.delete(nodeId);
    await this.start(nodeId);
    return this.node(nodeId);
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.close()));
    this.open.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    this.alive.cancel();
  }

  private async start(nodeId: number): Promise<void> {
    const { config, scheduler, voters, seams } = this;
    const addresses = Object.fromEntries(voters.map((id) => [id, `in-process:${id}`]));
    const host = await Host.open({
      config,
      identity: {
        clusterId: clusterIdOf('seams', addresses),
        nodeId,
        incarnation: String(nodeId).padStart(32, '0'),
      },
      bootstrap: { configs: [[...voters]], learners: [], addresses },
      scheduler,
      logger: seams.logger ?? silentLogger,
      openStore: (events) => this.openStore(nodeId, events),
      openSnapshots: () => this.openSnapshots(nodeId),
      createMachine: (events) =>
        seams.createMachine?.(nodeId, events, scheduler, config) ?? this.counter(nodeId, events),
      createNetwork: () => this.createNetwork(nodeId),
      release: async () => {},
    });
    this.open.set(nodeId, Raft.on(host));
  }

  private async openStore(nodeId: number, events: LogStoreEvents): Promise<LogStore> {
    const { scheduler, config } = this;
    const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
    const parts = { heap, scheduler, events, decodeMembership };
    if (this.seams.openStore !== undefined) return this.seams.openStore(nodeId, parts, config);
    const image = this.images.get(nodeId) ?? new MemoryLogImage();
    this.images.set(nodeId, image);
    const store = new MemoryLogStore({ ...parts, image, ...config.storage });
    this.stores.set(nodeId, store);
    return this.seams.wrapStore?.(nodeId, store) ?? store;
  }

  private openSnapshots(nodeId: number): Promise<SnapshotStore> {
    const inner = new InlineSnapshotExecutor(this.disk(nodeId), this.scheduler);
    return SnapshotStore.open({
      directory: snapshotDirectory('/node', 0),
      group: 0,
      ...this.config.snapshot,
      executor: this.seams.snapshotExecutor?.(nodeId, inner) ?? inner,
      logger: this.seams.logger ?? silentLogger,
    });
  }

  private disk(nodeId: number): MemoryDisk {
    const disk = this.disks.get(nodeId) ?? new MemoryDisk();
    this.disks.set(nodeId, disk);
    return disk;
  }

  private counter(nodeId: number, events: MachineEvents): MachineHost {
    const { scheduler, config } = this;
    const machine = new Counter();
    this.machines.set(nodeId, machine);
    const limits = config.stateMachine;
    return new MainThreadHost(machine, { group: 0, events, scheduler, limits });
  }

  private createNetwork(nodeId: number): Network {
    const { maxRequests } = this.config.network;
    const inner = new InProcessNetwork(this.hub, { nodeId, maxRequests });
    const network = this.seams.createNetwork?.(nodeId, inner) ?? inner;
    return around(network, {
      start: (handler) => {
        this.handlers.set(nodeId, handler);
        return network.start(handler);
      },
    });
  }
}

/** Time as the engine sees it can be stopped, so that no heartbeat and no election comes of itself. */
export class StoppableScheduler extends SystemScheduler {
  private stoppedAtMs: number | undefined;

  stop(): void {
    this.stoppedAtMs = super.now();
  }

  override now(): number {
    return this.stoppedAtMs ?? super.now();
  }
}

export const idOf = (node: SeamNode): number => node.status().nodeId;

/** `inner` with some of its methods replaced. */
export function around<T extends object>(inner: T, replaced: Partial<T>): T {
  return new Proxy(inner, {
    get(target, name) {
      const replacement: unknown = Reflect.get(replaced, name);
      if (replacement !== undefined) return replacement;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
