import type { EngineConfig } from '../../../dist/engine/config.js';
import type { Membership, NodeId } from '../../../dist/engine/types.js';
import { type Packet, TestNode } from './node.js';

export const TEST_CONFIG: Omit<EngineConfig, 'nodeId'> = {
  seed: 1,
  electionTimeoutMs: 1_000,
  heartbeatIntervalMs: 100,
  preVote: true,
  checkQuorum: true,
  maxInflightMessages: 4,
  maxInflightBytes: 64,
  maxAppendBytes: 16,
  maxUncommittedEntries: 1_000,
  keepEntries: 0,
};

export function membershipOf(...voters: NodeId[]): Membership {
  const addresses: Record<NodeId, string> = {};
  for (const id of voters) addresses[id] = `node-${id}:7000`;
  return { configs: [voters], learners: [], addresses };
}

export interface ClusterOptions extends Partial<EngineConfig> {
  readonly voters?: readonly NodeId[];
  readonly membership?: Membership;
  /** Nodes that are there but are not told of the membership. */
  readonly outsiders?: readonly NodeId[];
}

/** Engines and the wires between them; nothing moves unless the test moves it. */
export class TestCluster {
  readonly nodes: Map<NodeId, TestNode> = new Map();
  readonly membership: Membership;
  /** Packets under way, in the order in which they were sent. */
  wire: Packet[] = [];
  nowMs = 0;
  /** Packets for which this is false are lost when they are sent. */
  carries: (packet: Packet) => boolean = () => true;

  constructor(options: ClusterOptions = {}) {
    const { voters = [1, 2, 3], membership, outsiders = [], ...config } = options;
    this.membership = membership ?? membershipOf(...voters);
    const ids = [...new Set([...this.membership.configs.flat(), ...this.membership.learners])];
    for (const id of [...ids, ...outsiders]) {
      const out = (packet: Packet) => {
        if (this.carries(packet)) this.wire.push(packet);
      };
      this.nodes.set(id, new TestNode({ ...TEST_CONFIG, ...config, nodeId: id }, out, 0));
      if (ids.includes(id)) this.node(id).bootstrap(this.membership);
    }
  }

  node(id: NodeId): TestNode {
    return this.nodes.get(id)!;
  }

  leaders(): TestNode[] {
    return [...this.nodes.values()].filter((node) => node.engine.role === 'leader');
  }

  deliver(packet: Packet): void {
    this.nodes.get(packet.to)?.receive(packet);
  }

  /** Delivers what is under way and matches, in order; what it causes stays under way. */
  deliverWhere(matches: (packet: Packet) => boolean): number {
    const due = this.wire.filter(matches);
    this.wire = this.wire.filter((packet) => !matches(packet));
    for (const packet of due) this.deliver(packet);
    return due.length;
  }

  take(matches: (packet: Packet) => boolean): Packet[] {
    const taken = this.wire.filter(matches);
    this.wire = this.wire.filter((packet) => !matches(packet));
    return taken;
  }

  /** Delivers, flushes and applies until nothing is left to do. */
  settle(): void {
    for (let busy = true; busy; ) {
      busy = this.deliverWhere(() => true) > 0;
      for (const node of this.nodes.values()) {
        if (node.pending.length > 0 || node.building || node.arrived.length > 0) busy = true;
        node.flush();
        node.completeBuild();
        node.completeArrived();
        node.apply();
      }
    }
  }

  flushAll(): void {
    for (const node of this.nodes.values()) node.flush();
  }

  tick(stepMs: number): void {
    this.nowMs += stepMs;
    for (const node of this.nodes.values()) {
      node.elapse(this.nowMs);
      node.resendSnapshots();
    }
  }

  /** Lets time pass in small steps and settles after each. */
  run(durationMs: number, stepMs = 50): void {
    for (let passed = 0; passed < durationMs; passed += stepMs) {
      this.tick(stepMs);
      this.settle();
    }
  }

  /** Makes `id` the leader of a healthy cluster. */
  elect(id: NodeId): TestNode {
    this.settle();
    const node = this.node(id);
    node.tell((engine) => engine.campaign());
    this.settle();
    if (node.engine.role !== 'leader') throw new Error(`node ${id} was not elected`);
    return node;
  }

  isolate(...ids: NodeId[]): void {
    const apart = new Set(ids);
    this.carries = (packet) => apart.has(packet.from) === apart.has(packet.to);
    this.wire = this.wire.filter(this.carries);
  }

  heal(): void {
    this.carries = () => true;
  }
}
