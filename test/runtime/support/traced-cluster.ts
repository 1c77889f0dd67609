/**
 * Three nodes in one process, put together from real parts, with every seam of every node wrapped:
 * what passes through is written down, in the order in which it happens, in one list.
 *
 * | what         | where it is seen                                                         |
 * |--------------|--------------------------------------------------------------------------|
 * | stage        | LogStore.stage, on the leader                                            |
 * | receive      | LogStore.receive, on a follower                                          |
 * | append       | LogStore.append                                                          |
 * | flushed      | LogStoreEvents.flushed                                                   |
 * | replicate    | Network.sendAppend; `peer` is the target                                 |
 * | acknowledge  | Network.send of an accepting AppendResponse; `peer` is the leader        |
 * | acknowledged | NetworkHandler.message with the same, on the leader; `peer` is the sender |
 * | commit       | LogStore.recordCommitted                                                 |
 * | apply        | MachineHost.apply                                                        |
 * | applied      | MachineEvents.applied                                                    |
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '../../../dist/base/logger.js';
import { SystemScheduler } from '../../../dist/base/system-scheduler.js';
import { resolveConfig } from '../../../dist/config/resolve.js';
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
import { MemoryLogImage, MemoryLogStore } from '../../../dist/storage/memory-log-store.js';
import { WalLogStore } from '../../../dist/storage/wal-log-store.js';
import { SharedHeap } from '../../../dist/wasm/shared-heap.js';
import { Counter } from '../../testing/counter.js';

export type What =
  | 'stage'
  | 'receive'
  | 'append'
  | 'flushed'
  | 'replicate'
  | 'acknowledge'
  | 'acknowledged'
  | 'commit'
  | 'apply'
  | 'applied'
  | 'answered';

/** Something that happened to the entries `firstIndex … lastIndex` of a node's log. */
export interface TraceEvent {
  readonly node: number;
  readonly what: What;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly peer: number;
}

export type StoreKind = 'memory' | 'disk';
export type TracedNode = Raft<number, number, 'sum', number>;

const MIB = 1024 * 1024;
const IDS = [1, 2, 3];

export class TracedCluster implements AsyncDisposable {
  readonly trace: TraceEvent[] = [];
  readonly nodes: TracedNode[] = [];
  private readonly kind: StoreKind;
  private readonly directory: string;
  private readonly scheduler = new SystemScheduler();
  private readonly hub = new InProcessHub(this.scheduler);
  private readonly alive = this.scheduler.keepAlive();
  private readonly config = resolveConfig({
    storage: { ringBytes: 8 * MIB, segmentBytes: 8 * MIB, maxBatchBytes: MIB },
    network: { maxFrameBytes: 2 * MIB },
    raft: { maxInflightBytes: 2 * MIB },
  });
  private readonly heldFlushes = new Map<number, (() => void)[]>();
  private waiters: { isDue(event: TraceEvent): boolean; resolve(): void }[] = [];

  private constructor(kind: StoreKind) {
    this.kind = kind;
    this.directory = mkdtempSync(join(tmpdir(), 'keelson-trace-'));
  }

  static async start(kind: StoreKind): Promise<TracedCluster> {
    const cluster = new TracedCluster(kind);
    for (const nodeId of IDS) cluster.nodes.push(Raft.on(await cluster.open(nodeId)));
    return cluster;
  }

  async leader(): Promise<TracedNode> {
    return Promise.any(
      this.nodes.map(async (node) => {
        await node.waitFor((status) => status.readyToLead, { timeoutMs: 30_000 });
        return node;
      }),
    );
  }

  /** Until `releaseFlushes`, the node does not hear of what has become durable. */
  holdFlushes(nodeId: number): void {
    this.heldFlushes.set(nodeId, []);
  }

  releaseFlushes(nodeId: number): void {
    const held = this.heldFlushes.get(nodeId) ?? [];
    this.heldFlushes.delete(nodeId);
    for (const tell of held) tell();
  }

  record(node: number, what: What, firstIndex: number, lastIndex: number, peer = 0): void {
    const event = { node, what, firstIndex, lastIndex, peer };
    this.trace.push(event);
    const due = this.waiters.filter((waiter) => waiter.isDue(event));
    this.waiters = this.waiters.filter((waiter) => !due.includes(waiter));
    for (const waiter of due) waiter.resolve();
  }

  /** Resolves when this happens to the entry, from now on. */
  next(node: number, what: What, index: number): Promise<void> {
    const isDue = (event: TraceEvent): boolean =>
      event.node === node && event.what === what && event.lastIndex >= index;
    return new Promise((resolve) => {
      this.waiters.push({ isDue, resolve });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const nodeId of IDS) this.releaseFlushes(nodeId);
    for (const node of this.nodes) await node.close();
    this.alive.cancel();
    rmSync(this.directory, { recursive: true });
  }

  private open(nodeId: number): Promise<Host> {
    const { config, scheduler } = this;
    const addresses = Object.fromEntries(IDS.map((id) => [id, `in-process:${id}`]));
    return Host.open({
      config,
      identity: {
        clusterId: clusterIdOf('trace', addresses),
        nodeId,
        incarnation: String(nodeId).padStart(32, '0'),
      },
      bootstrap: { configs: [IDS], learners: [], addresses },
      scheduler,
      logger: silentLogger,
      openStore: async (events) => this.traceStore(nodeId, await this.openStore(nodeId, events)),
      createMachine: (events) => this.createMachine(nodeId, events),
      createNetwork: () => this.traceNetwork(nodeId, new InProcessNetwork(this.hub, { nodeId })),
      release: async () => {},
    });
  }

  private openStore(nodeId: number, events: LogStoreEvents): Promise<LogStore> {
    const { config, scheduler } = this;
    const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
    const traced: LogStoreEvents = {
      flushed: (group, io) => {
        const tell = (): void => {
          this.record(nodeId, 'flushed', 0, io.logId.index);
          events.flushed(group, io);
        };
        const held = this.heldFlushes.get(nodeId);
        if (held === undefined) tell();
        else held.push(tell);
      },
      failed: (error) => events.failed(error),
      writable: () => events.writable(),
    };
    const parts = { heap, scheduler, events: traced, decodeMembership };
    if (this.kind === 'disk') {
      const directory = join(this.directory, String(nodeId));
      return WalLogStore.open({ directory, ...config.storage }, parts);
    }
    const image = new MemoryLogImage();
    return Promise.resolve(new MemoryLogStore({ ...parts, image, ...config.storage }));
  }

  private traceStore(nodeId: number, store: LogStore): LogStore {
    return around(store, {
      stage: (group, entries) => {
        const staged = store.stage(group, entries);
        this.record(nodeId, 'stage', staged.firstIndex, staged.lastIndex);
        return staged;
      },
      receive: (group, firstIndex, parts) => {
        const staged = store.receive(group, firstIndex, parts);
        this.record(nodeId, 'receive', staged.firstIndex, staged.lastIndex);
        return staged;
      },
      append: (group, staged, firstIndex, io) => {
        this.record(nodeId, 'append', firstIndex, staged.lastIndex);
        store.append(group, staged, firstIndex, io);
      },
      recordCommitted: (group, index) => {
        this.record(nodeId, 'commit', 0, index);
        store.recordCommitted(group, index);
      },
    });
  }

  private createMachine(nodeId: number, events: MachineEvents): MachineHost {
    const { scheduler, config } = this;
    const traced: MachineEvents = {
      applied: (firstIndex, lastIndex, responses) => {
        this.record(nodeId, 'applied', firstIndex, lastIndex);
        events.applied(firstIndex, lastIndex, responses);
      },
      failed: (error) => events.failed(error),
    };
    const limits = config.stateMachine;
    const host = new MainThreadHost(new Counter(), { group: 0, events: traced, scheduler, limits });
    return around<MachineHost>(host, {
      apply: (lease, firstIndex, lastIndex) => {
        this.record(nodeId, 'apply', firstIndex, lastIndex);
        host.apply(lease, firstIndex, lastIndex);
      },
    });
  }

  private traceNetwork(nodeId: number, network: Network): Network {
    return around(network, {
      start: (handler) => network.start(this.traceHandler(nodeId, handler)),
      send: (target, message) => {
        if (message.type === 'AppendResponse' && message.conflict === undefined) {
          this.record(nodeId, 'acknowledge', 0, message.matchIndex, target);
        }
        network.send(target, message);
      },
      sendAppend: (target, message, entries) => {
        const first = message.prevLogId.index + 1;
        this.record(nodeId, 'replicate', first, message.lastIndex, target);
        return network.sendAppend(target, message, entries);
      },
    });
  }

  private traceHandler(nodeId: number, handler: NetworkHandler): NetworkHandler {
    return around(handler, {
      message: (from, message) => {
        if (message.type === 'AppendResponse' && message.conflict === undefined) {
          this.record(nodeId, 'acknowledged', 0, message.matchIndex, from);
        }
        handler.message(from, message);
      },
    });
  }
}

/** `inner` with some of its methods replaced. */
function around<T extends object>(inner: T, replaced: Partial<T>): T {
  return new Proxy(inner, {
    get(target, name) {
      const replacement: unknown = Reflect.get(replaced, name);
      if (replacement !== undefined) return replacement;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
