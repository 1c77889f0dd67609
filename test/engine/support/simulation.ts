import { expect } from 'vitest';
import type { Command } from '../../../dist/engine/commands.js';
import { Random } from '../../../dist/engine/random.js';
import type { NodeId } from '../../../dist/engine/types.js';
import { type ClusterOptions, TestCluster } from './cluster.js';
import type { TestEntry, TestNode } from './node.js';

export interface SimulationOptions extends ClusterOptions {
  readonly seed: number;
  readonly steps: number;
  /** Crashes that lose unflushed writes, with chance 1 in this many steps. */
  readonly crashEvery?: number;
  /** Nodes build snapshots and purge their logs. */
  readonly snapshots?: boolean;
}

/**
 * Drives a cluster by a seeded sequence of deliveries, losses, repetitions, flushes, crashes and
 * partitions, and holds it against Raft's safety properties (paper, figure 3) at every step.
 */
export class Simulation {
  readonly cluster: TestCluster;
  private readonly random: Random;
  private readonly options: SimulationOptions;
  private readonly leaderOfTerm: Map<number, NodeId> = new Map();
  private readonly committed: TestEntry[] = [];
  private readonly lastCommitted: Map<NodeId, number> = new Map();
  private readonly reads: { node: TestNode; round: number; atLeast: number }[] = [];
  readsAnswered = 0;
  snapshotsInstalled = 0;

  constructor(options: SimulationOptions) {
    this.options = options;
    this.random = new Random(options.seed);
    this.cluster = new TestCluster(options);
    for (const node of this.cluster.nodes.values()) {
      node.observe = (command) => this.check(node, command);
      if (this.chance(3)) node.heldReplicates = [];
    }
  }

  get committedEntries(): number {
    return this.committed.length;
  }

  run(): void {
    for (let step = 0; step < this.options.steps; step++) {
      this.step();
      if (step % 16 === 0) this.checkLogMatching();
    }
    this.checkLogMatching();
  }

  /** Without further faults the cluster must come to agree, and take writes again. */
  recover(): void {
    const { cluster } = this;
    cluster.heal();
    for (const node of cluster.nodes.values()) {
      const held = node.heldReplicates ?? [];
      node.heldReplicates = undefined;
      for (const command of held) node.answerHeld(command);
    }
    cluster.run(12_000, 100);
    const [leader] = cluster.leaders();
    expect(cluster.leaders()).toHaveLength(1);
    const index = leader!.write(1);
    expect(index).toBeGreaterThan(0);
    cluster.run(1_000, 100);
    for (const node of cluster.nodes.values()) {
      expect(node.engine.committedIndex, `node ${node.id} commits`).toBe(index);
      expect(node.appliedContents.length, `node ${node.id} applies`).toBe(index);
    }
    this.checkLogMatching();
  }

  private step(): void {
    const { cluster, random } = this;
    const node = this.anyNode();
    if (this.options.snapshots) this.snapshotStep(node);
    const dice = random.below(100);
    if (dice < 45) this.deliverOne();
    else if (dice < 63) node.flush(random.below(node.pending.length + 1));
    else if (dice < 68) node.apply();
    else if (dice < 78) cluster.tick(1 + random.below(this.chance(12) ? 900 : 120));
    else if (dice < 86) (cluster.leaders()[0] ?? node).write(1 + random.below(5));
    else if (dice < 90) this.read(this.anyNode());
    else if (dice < 94) this.answerOneHeld(node);
    else if (dice < 95) cluster.wire.splice(0, random.below(cluster.wire.length + 1));
    else if (dice < 96) this.partition();
    else if (dice < 97) cluster.heal();
    else if (dice < 98) this.reconnect(node);
    else if (dice < 99) node.tell((engine) => engine.campaign());
    else if (this.chance(4)) node.tell((engine) => engine.stepDown());
    if (this.chance(this.options.crashEvery ?? 120)) this.crash(this.anyNode());
  }

  private snapshotStep(node: TestNode): void {
    const dice = this.random.below(40);
    if (dice < 5) node.buildSnapshot();
    else if (dice < 12) node.completeBuild();
    else if (dice < 17) node.completeArrived();
    else if (dice < 19) node.resendSnapshots();
    else if (dice === 19 && this.chance(10)) this.leaveBehind(node);
  }

  /** The others go on for long enough that their logs no longer reach back to the node. */
  private leaveBehind(node: TestNode): void {
    const { cluster } = this;
    cluster.isolate(node.id);
    for (let round = 0; round < 3; round++) {
      cluster.run(2_500, 100);
      cluster.leaders()[0]?.write(3);
      for (const other of cluster.nodes.values()) other.buildSnapshot();
    }
    cluster.heal();
  }

  private deliverOne(): void {
    const { wire } = this.cluster;
    if (wire.length === 0) return;
    const place = this.chance(3) ? this.random.below(wire.length) : 0;
    const packet = wire[place]!;
    if (!this.chance(10)) wire.splice(place, 1);
    if (!this.chance(15)) this.cluster.deliver(packet);
  }

  private read(node: TestNode): void {
    const atLeast = this.committed.length;
    const asked = node.read();
    if (asked > 0) this.reads.push({ node, round: asked, atLeast });
    this.checkReads(node);
  }

  private answerOneHeld(node: TestNode): void {
    const held = node.heldReplicates ?? [];
    const command = held[this.random.below(held.length)];
    if (command === undefined) return;
    if (this.chance(6)) {
      node.heldReplicates = held.filter((other) => other !== command);
      node.tell((engine) => engine.replicateFailed(command.target, command.session));
    } else node.answerHeld(command);
  }

  private partition(): void {
    this.cluster.isolate(...[...this.cluster.nodes.keys()].filter(() => this.chance(2)));
  }

  private reconnect(node: TestNode): void {
    const peer = this.anyNode().id;
    if (peer === node.id) return;
    node.tell((engine) => engine.peerDisconnected(peer));
    node.tell((engine) => engine.peerConnected(peer));
  }

  private crash(node: TestNode): void {
    // What was being written may have reached the disk without anybody hearing of it.
    node.flush(this.random.below(node.pending.length + 1), false);
    for (let i = this.reads.length - 1; i >= 0; i--) {
      if (this.reads[i]!.node === node) this.reads.splice(i, 1);
    }
    this.lastCommitted.delete(node.id);
    // The newest snapshot is damaged; the log still leads on from the older one.
    const { snapshots, purgedIndex } = node.disk;
    const older = snapshots.at(-2)?.lastIncluded.index ?? -1;
    if (older >= purgedIndex && this.chance(3)) snapshots.pop();
    node.restart(this.cluster.nowMs);
    if (node.engine.isPristine) node.bootstrap(this.cluster.membership);
  }

  private check(node: TestNode, command: Command): void {
    const { engine, disk } = node;
    switch (command.type) {
      case 'LeadershipChanged':
        if (command.role === 'leader') this.checkElected(node, command.term);
        break;
      case 'Commit':
        this.checkCommit(node, command.index);
        break;
      case 'Apply':
        expect(command.lastIndex).toBeLessThanOrEqual(engine.committedIndex);
        expect(command.lastIndex, 'applies what is durable').toBeLessThanOrEqual(
          disk.entries.length,
        );
        break;
      case 'InstallSnapshot':
        this.snapshotsInstalled++;
        break;
      case 'ReadReady':
        for (const read of this.reads) {
          if (read.node === node && read.round <= command.round && read.atLeast >= 0) {
            expect(command.index, 'a read sees what was committed').toBeGreaterThanOrEqual(
              read.atLeast,
            );
          }
        }
        break;
      case 'Send': {
        const { message } = command;
        if (message.type === 'VoteRequest') {
          expect(disk.vote).toMatchObject({ term: message.term, nodeId: node.id });
        } else if (message.type === 'VoteResponse' && message.granted) {
          expect(disk.vote).toMatchObject({ term: message.term, nodeId: command.target });
        } else if (message.type === 'AppendResponse' || message.type === 'SnapshotResponse') {
          expect(disk.entries.length).toBeGreaterThanOrEqual(message.matchIndex);
        }
        if (message.type !== 'PreVoteRequest') {
          expect(disk.vote.term, `${message.type}: term is durable`).toBeGreaterThanOrEqual(
            message.term,
          );
        }
        break;
      }
      default:
        break;
    }
  }

  private checkElected(node: TestNode, term: number): void {
    expect(this.leaderOfTerm.get(term) ?? node.id, `one leader in term ${term}`).toBe(node.id);
    this.leaderOfTerm.set(term, node.id);
    this.committed.forEach((entry, i) => {
      if (entry.term < term) expect(node.log[i], `leader has committed ${i + 1}`).toEqual(entry);
    });
  }

  private checkCommit(node: TestNode, index: number): void {
    expect(index, 'commit only grows').toBeGreaterThan(this.lastCommitted.get(node.id) ?? 0);
    this.lastCommitted.set(node.id, index);
    for (let i = 0; i < index; i++) {
      const entry = node.log[i]!;
      if (this.committed[i] === undefined) this.committed.push(entry);
      else if (this.committed[i] !== entry)
        expect(entry, `committed ${i + 1}`).toEqual(this.committed[i]);
    }
  }

  private checkLogMatching(): void {
    const nodes = [...this.cluster.nodes.values()];
    for (const left of nodes) {
      for (const right of nodes) {
        if (left.id >= right.id) continue;
        let index = Math.min(left.log.length, right.log.length);
        while (index > 0 && left.log[index - 1]!.term !== right.log[index - 1]!.term) index--;
        for (let i = 0; i < index; i++) {
          if (left.log[i] !== right.log[i]) {
            expect(left.log[i], `logs of ${left.id} and ${right.id} at ${i + 1}`).toEqual(
              right.log[i],
            );
          }
        }
      }
      left.appliedContents.forEach((content, i) => {
        if (content !== this.committed[i]?.content) {
          expect(content, `node ${left.id} applied ${i + 1}`).toBe(this.committed[i]?.content);
        }
      });
      this.checkReads(left);
    }
  }

  private checkReads(node: TestNode): void {
    const ready = Math.max(0, ...node.readsReady.map((read) => read.round));
    const failed = Math.max(0, ...node.readsFailed);
    for (let i = this.reads.length - 1; i >= 0; i--) {
      const read = this.reads[i]!;
      if (read.node !== node || read.round > Math.max(ready, failed)) continue;
      if (read.round <= ready) this.readsAnswered++;
      this.reads.splice(i, 1);
    }
  }

  private anyNode(): TestNode {
    const nodes = [...this.cluster.nodes.values()];
    return nodes[this.random.below(nodes.length)]!;
  }

  private chance(oneIn: number): boolean {
    return this.random.below(oneIn) === 0;
  }
}
