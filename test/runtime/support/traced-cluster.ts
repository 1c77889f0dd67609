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
import type { SystemScheduler } from '../../../dist/base/system-scheduler.js';
import type { Config } from '../../../dist/config/types.js';
import type { Network, NetworkHandler } from '../../../dist/network/network.js';
import type { MachineEvents, MachineHost } from '../../../dist/state-machine/machine-host.js';
import { MainThreadHost } from '../../../dist/state-machine/main-thread-host.js';
import type { LogStore, LogStoreEvents } from '../../../dist/storage/log-store.js';
import { MemoryLogImage, MemoryLogStore } from '../../../dist/storage/memory-log-store.js';
import { WalLogStore, type WalLogStoreParts } from '../../../dist/storage/wal-log-store.js';
import { Counter } from '../../testing/counter.js';
import { around, SeamCluster, type SeamNode } from './seam-cluster.js';

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
export type TracedNode = SeamNode;

export class TracedCluster implements AsyncDisposable {
  readonly trace: TraceEvent[] = [];
  private readonly kind: StoreKind;
  private readonly directory: string;
  private readonly heldFlushes = new Map<number, (() => void)[]>();
  private cluster!: SeamCluster;
  private waiters: { isDue(event: TraceEvent): boolean; resolve(): void }[] = [];

  private constructor(kind: StoreKind) {
    this.kind = kind;
    this.directory = mkdtempSync(join(tmpdir(), 'keelson-trace-'));
  }

  static async start(kind: StoreKind): Promise<TracedCluster> {
    const traced = new TracedCluster(kind);
    traced.cluster = await SeamCluster.start({
      openStore: (nodeId, parts, config) => traced.openStore(nodeId, parts, config),
      createMachine: (nodeId, events, scheduler, config) =>
        traced.createMachine(nodeId, events, scheduler, config),
      createNetwork: (nodeId, inner) => traced.traceNetwork(nodeId, inner),
    });
    return traced;
  }

  get nodes(): TracedNode[] {
    return this.cluster.nodes;
  }

  leader(): Promise<TracedNode> {
    return this.cluster.leader();
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
    for (const nodeId of [...this.heldFlushes.keys()]) this.releaseFlushes(nodeId);
    await this.cluster[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true });
  }

  private async openStore(
    nodeId: number,
    parts: WalLogStoreParts,
    config: Config,
  ): Promise<LogStore> {
    const { events } = parts;
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
    if (this.kind === 'disk') {
      const directory = join(this.directory, String(nodeId));
      const options = { directory, ...config.storage };
      return this.traceStore(nodeId, await WalLogStore.open(options, { ...parts, events: traced }));
    }
    const image = new MemoryLogImage();
    const memory = { ...parts, events: traced, image, ...config.storage };
    return this.traceStore(nodeId, new MemoryLogStore(memory));
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

  private createMachine(
    nodeId: number,
    events: MachineEvents,
    scheduler: SystemScheduler,
    config: Config,
  ): MachineHost {
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
