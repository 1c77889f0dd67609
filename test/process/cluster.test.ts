import { afterEach, describe, expect, it, vi } from 'vitest';
import { NoAnswer } from '../../dist/cli/demo/client.js';
import { json, TestCluster } from './test-cluster.js';

let cluster: TestCluster;
afterEach(() => cluster?.close());

/** Writes until told to end; resolves with the keys that were acknowledged. */
function writeOn(of: TestCluster, name: string): { end(): Promise<string[]>; count(): number } {
  const acknowledged: string[] = [];
  let ended = false;
  let target = 1;
  const run = async (): Promise<void> => {
    for (let sequence = 0; !ended; sequence += 1) {
      const key = `${name}-${sequence}`;
      try {
        const reply = await of.put(target, key, `value of ${key}`);
        if (reply.status === 200) acknowledged.push(key);
        else target = (target % 3) + 1;
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error;
        target = (target % 3) + 1;
      }
    }
  };
  const running = Promise.all(Array.from({ length: 1 }, run));
  return {
    count: () => acknowledged.length,
    async end() {
      ended = true;
      await running;
      return acknowledged;
    },
  };
}

async function missing(
  of: TestCluster,
  nodeId: number,
  keys: readonly string[],
): Promise<string[]> {
  const read = await Promise.all(
    keys.map(async (key) => ((await of.get(nodeId, key)) === `200 value of ${key}` ? '' : key)),
  );
  return read.filter((key) => key !== '');
}

describe('three processes', () => {
  it('serve writes and reads on any node: followers forward to the leader', async () => {
    cluster = await TestCluster.open();
    const follower = await cluster.follower();
    const leader = await cluster.leader();
    const put = await cluster.put(follower.nodeId, 'a', 'one');
    expect([put.status, put.leader]).toEqual([200, leader.nodeId]);
    expect(json(put)).toMatchObject({ version: expect.any(Number), term: expect.any(Number) });
    for (const node of cluster.nodes) expect(await cluster.get(node.nodeId, 'a')).toBe('200 one');
    const { version } = json(put);
    const path = `/v1/kv/a?ifVersion=${version + 1}`;
    const refused = await cluster.client.send(follower.nodeId, 'PUT', path, Buffer.from('two'));
    expect([refused.status, json(refused).error.version]).toEqual([412, version]);
    expect((await cluster.client.send(follower.nodeId, 'DELETE', '/v1/kv/a')).status).toBe(200);
    for (const node of cluster.nodes) {
      expect((await cluster.get(node.nodeId, 'a')).slice(0, 4)).toBe('404 ');
      expect((await cluster.client.send(node.nodeId, 'GET', '/readyz')).status).toBe(200);
    }
  });

  it('lose no acknowledged write when the leader is killed and comes back', async () => {
    cluster = await TestCluster.open();
    const writers = ['x', 'y', 'z'].map((name) => writeOn(cluster, name));
    const enough = (count: number): Promise<void> =>
      vi.waitFor(() => {
        for (const writer of writers) expect(writer.count()).toBeGreaterThan(count);
      }, 30_000);
    await enough(50);
    const leader = await cluster.leader();
    const before = Math.max(...writers.map((writer) => writer.count()));
    expect(await leader.end('SIGKILL')).toBe(null);
    await enough(before + 50);
    leader.start();
    await cluster.leader();
    await enough(before + 100);
    const acknowledged = (await Promise.all(writers.map((writer) => writer.end()))).flat();
    for (const { nodeId } of cluster.nodes) {
      expect(await missing(cluster, nodeId, acknowledged)).toEqual([]);
    }
  });

  it('lose no acknowledged write when all are killed at once', async () => {
    cluster = await TestCluster.open();
    const writer = writeOn(cluster, 'x');
    await vi.waitFor(() => expect(writer.count()).toBeGreaterThan(100), 20_000);
    const acknowledgement = writer.end();
    await Promise.all(cluster.nodes.map((node) => node.end('SIGKILL')));
    const acknowledged = await acknowledgement;
    const terms = cluster.nodes.map((node) => node.logged('leader.changed').at(-1)?.term);
    cluster.startAll();
    const leader = await cluster.leader();
    expect(await missing(cluster, leader.nodeId, acknowledged)).toEqual([]);
    const { term } = await cluster.status(leader.nodeId);
    expect(term).toBeGreaterThan(Math.max(...terms));
  });
});

describe('a minority', () => {
  it('is alive but not ready, refuses writes, and comes back with its quorum', async () => {
    cluster = await TestCluster.open({ KEELSON_LIMITS_CALL_TIMEOUT_MS: '1500' });
    const survivor = await cluster.leader();
    const others = cluster.nodes.filter((node) => node !== survivor);
    await cluster.put(survivor.nodeId, 'a', 'one');
    await Promise.all(others.map((node) => node.end('SIGKILL')));
    await vi.waitFor(async () => {
      expect((await cluster.client.send(survivor.nodeId, 'GET', '/readyz')).status).toBe(503);
    }, 10_000);
    expect((await cluster.client.send(survivor.nodeId, 'GET', '/livez')).status).toBe(200);
    const refused = await cluster.put(survivor.nodeId, 'b', 'two');
    expect([refused.status, json(refused).error.outcome]).toEqual([503, 'rejected']);
    expect((await cluster.get(survivor.nodeId, 'a')).slice(0, 4)).toBe('503 ');
    const local = await cluster.client.send(survivor.nodeId, 'GET', '/v1/kv/a?consistency=local');
    expect([local.status, local.body.toString()]).toEqual([200, 'one']);
    for (const node of others) node.start();
    await cluster.leader();
    expect(await cluster.get(survivor.nodeId, 'a')).toBe('200 one');
    expect((await cluster.get(survivor.nodeId, 'b')).slice(0, 4)).toBe('404 ');
  });
});
