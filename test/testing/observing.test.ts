import { afterEach, describe, expect, it } from 'vitest';
import type { Raft } from '../../dist/index.js';
import { type TestCluster, testCluster } from '../../dist/testing/index.js';
import { Counter } from './counter.js';

type Node = Raft<number, number, 'sum', number>;
let cluster: TestCluster<number, number, 'sum', number>;

const machines = new Map<number, Counter>();

async function start(nodes = 3, config = {}): Promise<Node> {
  machines.clear();
  cluster = await testCluster({
    nodes,
    config,
    stateMachine: (nodeId) => {
      const machine = new Counter();
      machines.set(nodeId, machine);
      return machine;
    },
  });
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

/** A node that has stopped, because its machine threw. */
async function stop(node: Node): Promise<void> {
  const machine = machines.get(idOf(node)) as Counter;
  machine.apply = () => {
    throw new Error('a bug of the application');
  };
  await node.write(1).catch(() => undefined);
  await node.waitFor(({ state }) => state === 'stopped');
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

describe('waiting for room', () => {
  const refusal = { code: 'KEELSON_STATE_MACHINE_FAILED', outcome: 'rejected' };

  it('ends at once on a node that has stopped, with the reason', async () => {
    const leader = await start();
    await stop(leader);
    await expect(leader.writable()).rejects.toMatchObject(refusal);
    await leader.close();
    await expect(leader.writable()).rejects.toMatchObject({ code: 'KEELSON_CLOSED' });
  });

  it('ends when the node stops meanwhile', async () => {
    const leader = await start(3, { limits: { maxPendingWrites: 1 } });
    const stopped = stop(leader);
    await expect(leader.writable()).rejects.toMatchObject(refusal);
    await stopped;
  });

  it('ends when the node is closed meanwhile', async () => {
    const leader = await start(3, { limits: { maxPendingWrites: 1 } });
    cluster.partition([1], [2], [3]);
    const closed = { code: 'KEELSON_CLOSED', outcome: 'rejected' };
    const write = leader.write(1).catch((error: unknown) => error);
    const waiting = expect(leader.writable()).rejects.toMatchObject(closed);
    await leader.close();
    await waiting;
    expect(await write).toMatchObject({ code: 'KEELSON_CLOSED' });
    await expect(leader.writable()).rejects.toMatchObject(closed);
  });
});
