import { describe, expect, it } from 'vitest';
import {
  type StoreKind,
  TracedCluster,
  type TracedNode,
  type TraceEvent,
  type What,
} from './support/traced-cluster.js';

/** What must have happened before what, for one entry; see docs/architecture.md. */
class WritePath {
  private readonly trace: readonly TraceEvent[];
  private readonly index: number;

  constructor(trace: readonly TraceEvent[], index: number) {
    this.trace = trace;
    this.index = index;
  }

  /** Place in the trace at which this first happened to the entry; absent: after everything. */
  at(node: number, what: What, peer?: number): number {
    const { index } = this;
    const place = this.trace.findIndex(
      (event) =>
        event.node === node &&
        event.what === what &&
        event.firstIndex <= index &&
        event.lastIndex >= index &&
        (peer === undefined || event.peer === peer),
    );
    return place < 0 ? Number.POSITIVE_INFINITY : place;
  }

  expectOrder(...places: readonly (readonly [name: string, place: number])[]): void {
    for (let at = 1; at < places.length; at++) {
      const [before, first] = places[at - 1]!;
      const [after, second] = places[at]!;
      expect(first, `entry ${this.index}: ${before} comes before ${after}`).toBeLessThan(second);
    }
  }

  expectOnLeader(leader: number, followers: readonly number[]): void {
    const staged = ['staged', this.at(leader, 'stage')] as const;
    const flushed = ['flushed', this.at(leader, 'flushed')] as const;
    const committed = ['committed', this.at(leader, 'commit')] as const;
    const applying = ['apply', this.at(leader, 'apply')] as const;
    this.expectOrder(staged, ['append', this.at(leader, 'append')], flushed, applying);
    for (const follower of followers) {
      this.expectOrder(staged, [
        `replicate to ${follower}`,
        this.at(leader, 'replicate', follower),
      ]);
    }
    const votes = [
      flushed[1],
      ...followers.map((follower) => this.at(leader, 'acknowledged', follower)),
    ].sort((left, right) => left - right);
    this.expectOrder(['durable on a quorum', votes[1]!], committed);
    this.expectOrder(
      committed,
      applying,
      ['applied', this.at(leader, 'applied')],
      ['answered', this.at(leader, 'answered')],
      ['the end', this.trace.length],
    );
  }

  expectOnFollower(leader: number, follower: number): void {
    const flushed = ['flushed', this.at(follower, 'flushed')] as const;
    const applying = ['apply', this.at(follower, 'apply')] as const;
    this.expectOrder(
      ['replicate', this.at(leader, 'replicate', follower)],
      ['receive', this.at(follower, 'receive')],
      ['append', this.at(follower, 'append')],
      flushed,
      ['acknowledge', this.at(follower, 'acknowledge', leader)],
      ['acknowledged', this.at(leader, 'acknowledged', follower)],
      ['the end', this.trace.length],
    );
    this.expectOrder(
      ['committed by the leader', this.at(leader, 'commit')],
      ['committed', this.at(follower, 'commit')],
      applying,
      ['applied', this.at(follower, 'applied')],
      ['the end', this.trace.length],
    );
    this.expectOrder(flushed, applying);
  }
}

async function writeAndTrace(cluster: TracedCluster, node: TracedNode): Promise<number> {
  const { logId } = await node.write(1);
  cluster.record(node.status().nodeId, 'answered', logId.index, logId.index);
  return logId.index;
}

async function allApplied(cluster: TracedCluster, index: number): Promise<void> {
  const applied = (node: TracedNode) => node.waitFor(({ appliedIndex }) => appliedIndex >= index);
  await Promise.all(cluster.nodes.map(applied));
}

const idOf = (node: TracedNode): number => node.status().nodeId;

describe.each<StoreKind>(['memory', 'disk'])('a write with its log in %s', (kind) => {
  it('passes through the parts in the order of the diagram, alone and among many', async () => {
    await using cluster = await TracedCluster.start(kind);
    const leader = await cluster.leader();
    const indexes = [await writeAndTrace(cluster, leader)];
    for (let round = 0; round < 5; round++) {
      const many = Array.from({ length: 100 }, () => writeAndTrace(cluster, leader));
      indexes.push(...(await Promise.all(many)));
    }
    await allApplied(cluster, Math.max(...indexes));
    const followers = cluster.nodes.filter((node) => node !== leader).map(idOf);
    for (const index of indexes) {
      const path = new WritePath(cluster.trace, index);
      path.expectOnLeader(idOf(leader), followers);
      for (const follower of followers) path.expectOnFollower(idOf(leader), follower);
    }
  });

  it('is committed by two followers before the leader has flushed, and answered only after', async () => {
    await using cluster = await TracedCluster.start(kind);
    const leader = await cluster.leader();
    const nodeId = idOf(leader);
    await allApplied(cluster, await writeAndTrace(cluster, leader));

    cluster.holdFlushes(nodeId);
    const next = leader.status().lastLogIndex + 1;
    const committed = cluster.next(nodeId, 'commit', next);
    const answer = writeAndTrace(cluster, leader);
    await committed;
    const path = new WritePath(cluster.trace, next);
    for (const what of ['flushed', 'apply', 'answered'] as const) {
      expect(path.at(nodeId, what), `${what} on the leader`).toBe(Number.POSITIVE_INFINITY);
    }

    cluster.releaseFlushes(nodeId);
    expect(await answer).toBe(next);
    await allApplied(cluster, next);
    const followers = cluster.nodes.filter((node) => node !== leader).map(idOf);
    path.expectOnLeader(nodeId, followers);
    for (const follower of followers) path.expectOnFollower(nodeId, follower);
  });
});
