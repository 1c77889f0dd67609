import { afterEach, describe, expect, it } from 'vitest';
import type { Raft } from '../../dist/index.js';
import { type TestCluster, testCluster } from '../../dist/testing/index.js';
import { Counter } from './counter.js';

type Node = Raft<number, number, 'sum', number>;
let cluster: TestCluster<number, number, 'sum', number>;

async function start(nodes = 3, config = {}): Promise<Node> {
  cluster = await testCluster({ nodes, config, stateMachine: () => new Counter() });
  return cluster.leader();
}

afterEach(() => cluster.close());

const idOf = (node: Node): number => node.status().nodeId;

/** Names of the objects within `value` that somebody could change. */
function changeable(value: unknown, name: string): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const within = Object.entries(value).flatMap(([key, each]) => changeable(each, `${name}.${key}`));
  return Object.isFrozen(value) ? within : [name, ...within];
}

describe('the status of a node', () => {
  it('cannot be changed by who holds it, and so not for others either', async () => {
    const leader = await start();
    for (const node of cluster.nodes) expect(changeable(node.status(), 'status')).toEqual([]);
    expect(Object.keys(leader.status().matchIndexes)).toHaveLength(2);
    // A restarted node has its membership from the log.
    const restarted = await cluster.restart(idOf(leader));
    const { addresses } = restarted.status();
    expect(changeable(restarted.status(), 'status')).toEqual([]);
    expect(() => Object.assign(addresses, { 99: 'nowhere:1' })).toThrow(TypeError);
    expect(restarted.status().addresses).toEqual({
      1: 'in-process:1',
      2: 'in-process:2',
      3: 'in-process:3',
    });
  });
});
