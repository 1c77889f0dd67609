import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { NodeClient } from '../../dist/cli/demo/client.js';
import { freePorts } from '../../dist/cli/demo/ports.js';
import { json, TestNode } from './test-cluster.js';

let directory: string;
let node: TestNode;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-damaged-log-'));
});
afterEach(async () => {
  await node.end('SIGKILL');
  rmSync(directory, { recursive: true });
});

/** Overwrites the first copy that the log holds of a value. */
function damage(value: string): void {
  const folder = join(directory, 'wal');
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(join(folder, name));
    const at = bytes.indexOf(value);
    if (at < 0) continue;
    bytes.fill(0, at, at + value.length);
    writeFileSync(join(folder, name), bytes);
    return;
  }
  throw new Error(`${value} stands nowhere`);
}

it('keelson serve on a damaged log: refused, and with repair open for local reads alone', async () => {
  const [raftPort = 0, httpPort = 0] = await freePorts(2);
  const initialCluster = `1=127.0.0.1:${raftPort}`;
  const place = { nodeId: 1, dataDir: directory, raftPort, httpPort, initialCluster };
  node = new TestNode({ ...place, variables: {} });
  node.start();
  const client = new NodeClient(new Map([[1, httpPort]]), 1);
  const put = (key: string) => client.send(1, 'PUT', `/v1/kv/${key}`, Buffer.from(`value ${key}`));
  await vi.waitFor(async () => expect((await put('first')).status).toBe(200), 20_000);
  for (const key of ['second', 'third', 'fourth']) expect((await put(key)).status).toBe(200);
  await node.end('SIGTERM');
  damage('value third');
  node.start();
  expect(await node.exit()).toBe(1);
  expect(node.logged('server.failed')).toMatchObject([{ code: 'KEELSON_STORAGE_CORRUPT' }]);

  node = new TestNode({ ...place, variables: { KEELSON_STORAGE_RECOVERY: 'repair' } });
  node.start();
  await vi.waitFor(async () => {
    const read = await client.send(1, 'GET', '/v1/kv/first?consistency=local');
    expect([read.status, read.body.toString()]).toEqual([200, 'value first']);
  }, 20_000);
  const refused = { code: 'KEELSON_STORAGE_CORRUPT', outcome: 'rejected' };
  const reply = await put('fifth');
  expect([reply.status, json(reply).error]).toMatchObject([503, refused]);
  const read = await client.send(1, 'GET', '/v1/kv/first');
  expect([read.status, json(read).error]).toMatchObject([503, refused]);
  expect((await client.send(1, 'GET', '/livez')).status).toBe(200);
  const ready = await client.send(1, 'GET', '/readyz?verbose');
  expect(ready.status).toBe(503);
  expect(json(ready).error.checks).toContainEqual({
    name: 'log',
    ok: false,
    message: expect.stringContaining(join(directory, 'wal')),
  });
  const status = json(await client.send(1, 'GET', '/v1/status'));
  expect(status).toMatchObject({ state: 'damaged', damage: { group: 0, voteInDoubt: false } });
  expect(status.damage.ranges).toMatchObject([{ lastIndex: expect.any(Number) }]);
  expect(node.logged('storage.read-only')).toHaveLength(1);
  client.close();
  expect(await node.end('SIGTERM')).toBe(0);
});
