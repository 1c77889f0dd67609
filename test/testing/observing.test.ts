import { afterEach, describe, expect, it } from 'vitest';
import type { KeelsonError, Status } from '../../dist/index.js';
import {
  type Counter,
  type CounterCluster,
  machines,
  type Node,
  startCounters,
} from './counter.js';

let cluster: CounterCluster;

async function start(nodes = 3, config = {}): Promise<Node> {
  cluster = await startCounters(nodes, config);
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

/** Waits for the event that tells of the index; who listened before has then heard of it too. */
function told(node: Node, index: number): Promise<void> {
  return new Promise((resolve) => {
    node.on('status', ({ appliedIndex }) => {
      if (appliedIndex >= index) resolve();
    });
  });
}

describe('events', () => {
  it('`status` brings the status as it is now, to who listens still', async () => {
    const leader = await start();
    const heard: Status[] = [];
    const listener = (status: Status): void => void heard.push(status);
    leader.on('status', listener);
    const last = leader.status().lastLogIndex + 3;
    const toldOfLast = told(leader, last);
    await Promise.all([leader.write(1), leader.write(2), leader.write(3)]);
    await toldOfLast;
    expect(heard.at(-1)).toMatchObject({ state: 'leader', appliedIndex: last, pendingWrites: 0 });
    const indexes = heard.map(({ appliedIndex }) => appliedIndex);
    expect(indexes).toEqual([...indexes].sort((a, b) => a - b));
    expect(heard.flatMap((status) => changeable(status, 'status'))).toEqual([]);

    leader.off('status', listener);
    const before = heard.length;
    const toldOfNext = told(leader, last + 1);
    await leader.write(4);
    await toldOfNext;
    expect(heard).toHaveLength(before);
  });

  it('`leader` comes when another leads or another term begins, and for nothing else', async () => {
    const leader = await start();
    const followers = cluster.nodes.filter((node) => node !== leader);
    const heard = followers.map((node) => {
      const news = [`${idOf(leader)} leads in term ${leader.status().term}`];
      node.on('leader', ({ nodeId, term }) => news.push(`${nodeId} leads in term ${term}`));
      return news;
    });
    await cluster.crash(idOf(leader));
    const next = await cluster.leader();
    const { term } = next.status();
    for (const [place, node] of followers.entries()) {
      await node.waitFor((status) => status.leader === idOf(next) && status.term === term);
      const news = heard[place] as string[];
      expect(news.at(-1)).toBe(`${idOf(next)} leads in term ${term}`);
      expect(news.filter((each, at) => each === news[at - 1])).toEqual([]);
    }
  });

  it('`error` brings why a node has stopped, to who listens still', async () => {
    const leader = await start();
    const [one, other] = cluster.nodes.filter((node) => node !== leader) as [Node, Node];
    const errors: KeelsonError[] = [];
    const listener = (error: KeelsonError): void => void errors.push(error);
    one.on('error', listener);
    other.on('error', listener).off('error', listener);
    await stop(other);
    expect(errors).toEqual([]);
    await stop(one);
    expect(errors).toEqual([one.status().failure]);
  });

  it('a listener that throws keeps no other from hearing', async () => {
    const leader = await start();
    const heard: number[] = [];
    leader.on('status', () => {
      throw new Error('a bug of the application');
    });
    leader.on('status', ({ appliedIndex }) => heard.push(appliedIndex));
    const next = leader.status().lastLogIndex + 1;
    const toldOfNext = told(leader, next);
    await leader.write(1);
    await toldOfNext;
    expect(heard.at(-1)).toBe(next);
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
