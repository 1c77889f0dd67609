import { afterEach, describe, expect, it, vi } from 'vitest';
import { NodeClient, type NodeReply } from '../../dist/cli/demo/client.js';
import { HttpServer, type KeyValueRaft } from '../../dist/http/index.js';
import { KeyValueMachine } from '../../dist/index.js';
import { MainThreadHost } from '../../dist/state-machine/main-thread-host.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { SeamCluster } from '../runtime/support/seam-cluster.js';

const MIB = 1024 * 1024;
const VALUE = Buffer.alloc(100_000, 'v');

/** One node whose log has room for three segments of 1 MiB, or a disk that fails, behind a real server. */
class FullDisk {
  readonly cluster: SeamCluster;
  readonly server: HttpServer;
  readonly client: NodeClient;
  readonly disk: MemoryDisk;

  private constructor(
    disk: MemoryDisk,
    cluster: SeamCluster,
    server: HttpServer,
    client: NodeClient,
  ) {
    this.disk = disk;
    this.cluster = cluster;
    this.server = server;
    this.client = client;
  }

  static async open(capacityBytes = Number.POSITIVE_INFINITY): Promise<FullDisk> {
    const disk = new MemoryDisk({ capacityBytes });
    const cluster = await SeamCluster.start({
      voters: [1],
      config: {
        storage: { segmentBytes: MIB, maxBatchBytes: 256 * 1024 },
        network: { maxFrameBytes: 256 * 1024 },
        raft: { maxAppendBytes: 128 * 1024 },
        snapshot: { chunkBytes: 128 * 1024 },
        limits: { maxEntryBytes: 128 * 1024 },
      },
      openStore: (_nodeId, parts, { storage }) =>
        WalLogStore.open(
          { directory: '/data', ...storage },
          { ...parts, executor: new InlineExecutor(parts.heap, disk, parts.scheduler) },
        ),
      createMachine: (_nodeId, events, scheduler, { stateMachine: limits }) =>
        new MainThreadHost(new KeyValueMachine(), { group: 0, events, scheduler, limits }),
    });
    const leader = await cluster.leader();
    const server = new HttpServer(leader as unknown as KeyValueRaft);
    const address = await server.listen({ host: '127.0.0.1', port: 0 });
    return new FullDisk(disk, cluster, server, new NodeClient(new Map([[1, portOf(address)]]), 4));
  }

  send(method: string, path: string, body?: Uint8Array): Promise<NodeReply> {
    return this.client.send(1, method, path, body);
  }

  /** Writes until a write is not acknowledged; resolves with its answer and the last key before it. */
  async fill(): Promise<{ readonly unanswered: NodeReply; readonly lastKey: string }> {
    const sticky = { operation: 'write', nth: 30, code: 'ENOSPC', sticky: true } as const;
    if (this.disk.capacityBytes === Number.POSITIVE_INFINITY) this.disk.fail(sticky);
    for (let sequence = 0; sequence < 100; sequence++) {
      const reply = await this.send('PUT', `/v1/kv/key-${sequence}`, VALUE);
      if (reply.status !== 200) return { unanswered: reply, lastKey: `key-${sequence - 1}` };
    }
    throw new Error('the disk did not fill');
  }

  async close(): Promise<void> {
    this.client.close();
    await this.server.close(AbortSignal.abort());
    await this.cluster[Symbol.asyncDispose]();
  }
}

const portOf = (address: string): number => Number(address.split(':')[1]);
const errorOf = ({ status, body }: NodeReply): unknown[] => {
  const { code, outcome } = JSON.parse(body.toString()).error;
  return [status, code, outcome];
};

let node: FullDisk;
afterEach(() => node.close());

describe('a node whose disk is full', () => {
  it('refuses writes with 507, and goes on to lead, to read and to be ready', async () => {
    node = await FullDisk.open(3 * MIB);
    const { unanswered, lastKey } = await node.fill();
    const refused = [507, 'KEELSON_STORAGE_FULL', 'rejected'];
    expect(errorOf(unanswered)).toEqual(refused);
    expect(errorOf(await node.send('DELETE', '/v1/kv/key-0'))).toEqual(refused);
    for (const consistency of ['local', 'linearizable']) {
      const read = await node.send('GET', `/v1/kv/${lastKey}?consistency=${consistency}`);
      expect([read.status, read.body.equals(VALUE)]).toEqual([200, true]);
    }
    expect((await node.send('GET', '/readyz')).status).toBe(200);
    const status = JSON.parse((await node.send('GET', '/v1/status')).body.toString());
    expect(status).toMatchObject({ state: 'leader', failure: null });
  });

  it('takes writes again by itself when there is room', async () => {
    node = await FullDisk.open(3 * MIB);
    await node.fill();
    node.disk.capacityBytes = 6 * MIB;
    await vi.waitFor(async () => {
      expect((await node.send('PUT', '/v1/kv/a', VALUE)).status).toBe(200);
    }, 10_000);
  });
});

describe('a node whose disk fails for want of room, although it told of some', () => {
  it('leaves the write under way open, and refuses all later ones with 507', async () => {
    node = await FullDisk.open();
    const { unanswered } = await node.fill();
    expect(errorOf(unanswered)).toEqual([504, 'KEELSON_STORAGE_FULL', 'unknown']);
    const refused = [507, 'KEELSON_STORAGE_FULL', 'rejected'];
    expect(errorOf(await node.send('PUT', '/v1/kv/a', VALUE))).toEqual(refused);
    expect(errorOf(await node.send('DELETE', '/v1/kv/a'))).toEqual(refused);
  });

  it('answers local reads, and refuses those that would need its cluster', async () => {
    node = await FullDisk.open();
    const { lastKey } = await node.fill();
    const local = await node.send('GET', `/v1/kv/${lastKey}?consistency=local`);
    expect([local.status, local.body.equals(VALUE)]).toEqual([200, true]);
    const page = await node.send('GET', '/v1/kv?limit=1&consistency=local');
    expect(JSON.parse(page.body.toString()).entries).toHaveLength(1);
    const linearizable = await node.send('GET', `/v1/kv/${lastKey}`);
    expect(errorOf(linearizable)).toEqual([507, 'KEELSON_STORAGE_FULL', 'rejected']);
  });

  it('is alive and not ready, and says why', async () => {
    node = await FullDisk.open();
    await node.fill();
    expect((await node.send('GET', '/livez')).status).toBe(200);
    expect(errorOf(await node.send('GET', '/readyz'))).toEqual([
      503,
      'KEELSON_NOT_READY',
      'rejected',
    ]);
    const status = JSON.parse((await node.send('GET', '/v1/status')).body.toString());
    expect(status).toMatchObject({
      state: 'stopped',
      leader: null,
      failure: { code: 'KEELSON_STORAGE_FULL' },
    });
  });

  it('answers no local read once it is closed', async () => {
    node = await FullDisk.open();
    await node.fill();
    await node.cluster.node(1).close();
    const local = await node.send('GET', '/v1/kv/key-0?consistency=local');
    expect(errorOf(local)).toEqual([507, 'KEELSON_STORAGE_FULL', 'rejected']);
  });
});
