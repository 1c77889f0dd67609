import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { NodeClient } from '../../dist/cli/demo/client.js';
import { freePorts } from '../../dist/cli/demo/ports.js';
import { json, TestNode } from './test-cluster.js';

/** A mount of its own, which goes with the process: 14 MiB on `$0`, then the command. */
const SMALL_DISK = [
  'unshare',
  '-rm',
  'sh',
  '-c',
  'mount -t tmpfs -o size=14m none "$0" && exec "$@"',
];

const canMount = spawnSync(SMALL_DISK[0]!, [...SMALL_DISK.slice(1), tmpdir(), 'true']).status === 0;

let directory: string;
let node: TestNode;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-full-disk-'));
});
afterEach(async () => {
  await node.end('SIGKILL');
  rmSync(directory, { recursive: true });
});

it.skipIf(!canMount)(
  'keelson serve on a full disk: writes get 507, reads go on, SIGTERM exit 0',
  async () => {
    const [raftPort = 0, httpPort = 0] = await freePorts(2);
    node = new TestNode({
      nodeId: 1,
      dataDir: join(directory, 'node-1'),
      raftPort,
      httpPort,
      initialCluster: `1=127.0.0.1:${raftPort}`,
      variables: {
        KEELSON_STORAGE_SEGMENT_BYTES: String(4 * 1024 * 1024),
        KEELSON_STORAGE_MAX_BATCH_BYTES: String(1024 * 1024),
        KEELSON_NETWORK_MAX_FRAME_BYTES: String(1024 * 1024),
        KEELSON_RAFT_MAX_APPEND_BYTES: String(512 * 1024),
        KEELSON_LIMITS_MAX_ENTRY_BYTES: String(512 * 1024),
      },
      launcher: [...SMALL_DISK, directory],
    });
    node.start();
    const client = new NodeClient(new Map([[1, httpPort]]), 1);
    const put = (key: string) => client.send(1, 'PUT', `/v1/kv/${key}`, Buffer.alloc(400_000, key));
    await vi.waitFor(async () => expect((await put('first')).status).toBe(200), 20_000);
    let reply = await put('x');
    for (let writes = 0; reply.status === 200 && writes < 100; writes++) reply = await put('x');
    expect(reply.status).toBe(507);
    expect(json(reply).error).toMatchObject({
      code: 'KEELSON_STORAGE_FULL',
      outcome: 'rejected',
    });
    for (const consistency of ['local', 'linearizable']) {
      const read = await client.send(1, 'GET', `/v1/kv/first?consistency=${consistency}`);
      expect([read.status, read.body.length]).toEqual([200, 400_000]);
    }
    expect((await client.send(1, 'GET', '/readyz')).status).toBe(200);
    expect(node.logged('storage.full')).toHaveLength(1);
    expect(node.logged('node.failed')).toEqual([]);
    client.close();
    expect(await node.end('SIGTERM')).toBe(0);
  },
);
