import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { page, section } from '../docs/support/pages.js';
import { TestCluster, TestNode } from './test-cluster.js';

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.open({ KEELSON_HTTP_MAX_KEY_BYTES: '100' });
});
afterAll(() => cluster.close());

describe('keelson serve', () => {
  it('logs what it serves, under stable names', async () => {
    for (const node of cluster.nodes) {
      const { nodeId, raftPort, httpPort } = node.options;
      const started = { nodeId, raft: `127.0.0.1:${raftPort}`, http: `127.0.0.1:${httpPort}` };
      expect(node.logged('server.started')).toMatchObject([{ level: 'info', ...started }]);
      expect(node.logged('membership.changed')).toMatchObject([
        { voters: [1, 2, 3], learners: [] },
      ]);
      await vi.waitFor(() => expect(node.logged('leader.changed')).not.toEqual([]));
    }
  });

  it('logs who leads when that changes, and says nothing twice', () => {
    for (const node of cluster.nodes) {
      const told = node
        .logged('leader.changed')
        .map(({ leader, role, term }) => ({ leader, role, term }));
      for (const [at, change] of told.slice(1).entries()) expect(change).not.toEqual(told[at]);
    }
  });

  it('tells in its status what the page on the HTTP API lists', async () => {
    const [listed = ''] = section(page('docs/http-api.md'), 'Status and probes').split(
      '\n\n`GET /readyz`',
    );
    const names = [...listed.matchAll(/`(\w+)`/g)].map(([, name]) => name);
    const fields = Object.keys(await cluster.status(1));
    expect(fields.filter((field) => !names.includes(field))).toEqual([]);
  });

  it('takes the limits of its HTTP server from the configuration', async () => {
    expect((await cluster.put(1, 'k'.repeat(100), 'x')).status).toBe(200);
    expect((await cluster.put(1, 'k'.repeat(101), 'x')).status).toBe(400);
  });

  it('warns when anybody can reach its HTTP', async () => {
    const dataDir = join(cluster.directory, 'exposed');
    const place = { nodeId: 1, dataDir, initialCluster: '1=127.0.0.1:1', variables: {} };
    const httpHost = '0.0.0.0';
    const node = new TestNode({ ...place, raftPort: 0, httpPort: 0, httpHost });
    try {
      node.start();
      await vi.waitFor(() => expect(node.logged('server.started')).toHaveLength(1), 10_000);
      const warning = { level: 'warn', host: httpHost };
      expect(node.logged('server.exposed')).toMatchObject([warning]);
      expect(await node.end('SIGTERM')).toBe(0);
    } finally {
      await node.end('SIGKILL');
    }
  });

  it('warns of nothing when it is bound to loopback', () => {
    for (const node of cluster.nodes) {
      expect(node.logged('server.exposed')).toEqual([]);
      expect(node.logged('network.plaintext')).toEqual([]);
    }
  });

  it.each(['SIGTERM', 'SIGINT'] as const)(
    '%s closes it cleanly, and it recovers',
    async (signal) => {
      const { nodeId } = await cluster.follower();
      const node = cluster.node(nodeId);
      expect((await cluster.put(nodeId, 'kept', signal)).status).toBe(200);
      const before = node.log.length;
      expect(await node.end(signal)).toBe(0);
      const closing = node.log.slice(before);
      expect(closing.filter(({ level }) => level !== 'info')).toEqual([]);
      expect(closing.find(({ event }) => event === 'server.stopping')).toMatchObject({ signal });
      expect(closing.at(-1)).toMatchObject({ event: 'server.stopped' });
      node.start();
      await cluster.leader();
      await vi.waitFor(async () => expect(await cluster.get(nodeId, 'kept')).toBe(`200 ${signal}`));
    },
  );

  it('all of them stopped and started again still hold what was written', async () => {
    expect((await cluster.put(1, 'all', 'stopped')).status).toBe(200);
    const codes = await Promise.all(cluster.nodes.map((node) => node.end('SIGTERM')));
    expect(codes).toEqual([0, 0, 0]);
    cluster.startAll();
    await cluster.leader();
    for (const { nodeId } of cluster.nodes) {
      expect(await cluster.get(nodeId, 'all')).toBe('200 stopped');
    }
  });

  it('exits with 1 when its directory is in use', async () => {
    await expectFailure({ ...cluster.node(1).options, raftPort: 0, httpPort: 0 }, 'STORAGE_LOCKED');
  });

  it('exits with 1 when its directory belongs to another node', async () => {
    const { options } = await cluster.follower();
    await cluster.node(options.nodeId).end('SIGTERM');
    const nodeId = (options.nodeId % 3) + 1;
    const wrong = { ...options, nodeId, raftPort: 0, httpPort: 0 };
    await expectFailure(wrong, 'STORAGE_MISMATCH');
    cluster.node(options.nodeId).start();
    await cluster.leader();
  });

  it('exits with 1 when its HTTP port is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const { options } = await cluster.follower();
    await cluster.node(options.nodeId).end('SIGTERM');
    const failing = new TestNode({ ...options, httpPort: port });
    failing.start();
    expect(await failing.exit()).toBe(1);
    expect(failing.logged('server.failed')[0]?.msg).toMatch(/EADDRINUSE/);
    taken.close();
    cluster.node(options.nodeId).start();
    await cluster.leader();
  });
});

async function expectFailure(options: TestNode['options'], code: string): Promise<void> {
  const node = new TestNode(options);
  node.start();
  expect(await node.exit()).toBe(1);
  expect(node.logged('server.failed')).toMatchObject([{ level: 'fatal', code: `KEELSON_${code}` }]);
}
