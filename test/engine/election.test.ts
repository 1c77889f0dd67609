import { describe, expect, it } from 'vitest';
import { TestCluster } from './support/cluster.js';

describe('election', () => {
  it('elects one leader, which all know', () => {
    const cluster = new TestCluster();
    cluster.run(3_000);
    expect(cluster.leaders()).toHaveLength(1);
    const leader = cluster.leaders()[0]!;
    expect(leader.engine.isReadyToLead).toBe(true);
    for (const node of cluster.nodes.values()) {
      expect(node.engine.leader).toBe(leader.id);
      expect(node.engine.vote).toEqual({ term: 2, nodeId: leader.id, committed: true });
    }
  });

  it('commits and applies a write on every node', () => {
    const cluster = new TestCluster();
    const leader = cluster.elect(1);
    expect(leader.write(3)).toBe(3);
    cluster.settle();
    cluster.run(200);
    for (const node of cluster.nodes.values()) {
      expect(node.engine.committedIndex).toBe(5);
      expect(node.appliedContents).toEqual(leader.appliedContents);
      expect(node.appliedContents).toHaveLength(5);
    }
  });
});
