/**
 * Real system calls of a running `keelson serve` fail: strace attaches to the process and lets the
 * kernel's answer be an error. By hand, with the process id of a node, until strace is interrupted:
 *
 *     strace -f -qq -p PID -e trace=fdatasync -e inject=fdatasync:error=EIO
 *     strace -f -qq -p PID -e trace=openat -e inject=openat:error=ENOSPC
 *     strace -f -qq -p PID -e trace=pwrite64 -e inject=pwrite64:error=ENOSPC
 *
 * A disk that says that nothing is free (strace 5.17 or later; the bytes are the first 40 of `struct statfs`):
 *
 *     strace -f -qq -p PID -e trace=statfs -e inject=statfs:poke_exit=@arg2=53ef…
 *
 * Wants strace (Debian package strace) and leave to trace; skipped where it has not.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { NodeClient, type NodeReply } from '../../dist/cli/demo/client.js';
import { freePorts } from '../../dist/cli/demo/ports.js';
import { json, TestNode } from '../process/test-cluster.js';

const MIB = 1024 * 1024;

/** f_type, f_bsize, f_blocks, f_bfree and f_bavail: a disk of 4 GiB on which nothing is free. */
function fullDisk(): string {
  const fields = new BigInt64Array([0xef53n, 4_096n, 1_048_576n, 0n, 0n]);
  return `poke_exit=@arg2=${Buffer.from(fields.buffer).toString('hex')}`;
}

const canInject = (call: string, fault: string): boolean => {
  const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}`];
  return spawnSync('strace', ['-f', '-qq', ...inject, 'true']).status === 0;
};
const canTrace = canInject('fdatasync', 'error=EIO');
const canPoke = canInject('statfs', fullDisk());
if (!canTrace) console.warn('strace cannot trace here: no system call is made to fail');
else if (!canPoke) console.warn('this strace cannot change answers: no disk is made to seem full');

let directory: string;
let node: TestNode;
let client: NodeClient;
let tracer: ChildProcess | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-system-calls-'));
});
afterEach(async () => {
  client.close();
  tracer?.kill('SIGKILL');
  tracer = undefined;
  await node.end('SIGKILL');
  rmSync(directory, { recursive: true });
});

const value = (key: string): Buffer => Buffer.alloc(300_000, key);
const put = (key: string): Promise<NodeReply> => client.send(1, 'PUT', `/v1/kv/${key}`, value(key));

/** One node that has taken its first write. */
async function startNode(directIo: string): Promise<void> {
  const [raftPort = 0, httpPort = 0] = await freePorts(2);
  node = new TestNode({
    nodeId: 1,
    dataDir: join(directory, 'node-1'),
    raftPort,
    httpPort,
    initialCluster: `1=127.0.0.1:${raftPort}`,
    variables: {
      KEELSON_STORAGE_SEGMENT_BYTES: String(4 * MIB),
      KEELSON_STORAGE_MAX_BATCH_BYTES: String(MIB),
      KEELSON_NETWORK_MAX_FRAME_BYTES: String(MIB),
      KEELSON_RAFT_MAX_APPEND_BYTES: String(MIB / 2),
      KEELSON_LIMITS_MAX_ENTRY_BYTES: String(MIB / 2),
      KEELSON_STORAGE_DIRECT_IO: directIo,
    },
  });
  node.start();
  client = new NodeClient(new Map([[1, httpPort]]), 1);
  await vi.waitFor(async () => expect((await put('k0')).status).toBe(200), 20_000);
}

/** From now on the calls of that name fail in all threads of the process. */
async function failCalls(call: string, fault: string): Promise<void> {
  const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}`];
  tracer = spawn('strace', ['-f', '-p', String(node.processId), '-o', '/dev/null', ...inject]);
  let told = '';
  tracer.stderr?.on('data', (chunk: Buffer) => {
    told += chunk.toString();
  });
  await vi.waitFor(() => expect(told).toContain('attached'), 10_000);
}

/** Until now: the process goes on without the tracer. */
async function failNoMore(): Promise<void> {
  tracer!.kill('SIGINT');
  await once(tracer!, 'close');
  tracer = undefined;
}

async function expectAll(keys: readonly string[], query = ''): Promise<void> {
  for (const key of keys) {
    const { status, body } = await client.send(1, 'GET', `/v1/kv/${key}${query}`);
    expect([key, status, value(key).equals(body)]).toEqual([key, 200, true]);
  }
}

it.skipIf(!canTrace).each([
  ['fdatasync', 'EIO', 'KEELSON_STORAGE_FAILED', 'off'],
  ['pwrite64', 'EIO', 'KEELSON_STORAGE_FAILED', 'auto'],
  ['pwrite64', 'ENOSPC', 'KEELSON_STORAGE_FULL', 'auto'],
  ['openat', 'EIO', 'KEELSON_STORAGE_FAILED', 'auto'],
  ['openat', 'ENOSPC', 'KEELSON_STORAGE_FULL', 'auto'],
  ['ftruncate', 'ENOSPC', 'KEELSON_STORAGE_FULL', 'auto'],
])(
  '%s answers %s: %s is final, and what was acknowledged is there after a restart',
  async (call, error, code, directIo) => {
    await startNode(directIo);
    await failCalls(call, `error=${error}`);
    const acknowledged = ['k0'];
    const isDone = (key: string): Promise<boolean> =>
      put(key).then(
        ({ status }) => status === 200,
        () => false,
      );
    for (let writes = 1; writes < 60 && (await isDone(`k${writes}`)); writes++) {
      acknowledged.push(`k${writes}`);
    }
    await vi.waitFor(() => expect(node.logged('node.failed')).toMatchObject([{ code }]), 10_000);
    const staysUp = code === 'KEELSON_STORAGE_FULL';
    if (staysUp) {
      const reply = await put('later');
      expect([reply.status, json(reply).error]).toMatchObject([507, { code, outcome: 'rejected' }]);
      expect((await client.send(1, 'GET', '/livez')).status).toBe(200);
      expect((await client.send(1, 'GET', '/readyz')).status).toBe(503);
      await expectAll(acknowledged, '?consistency=local');
      await failNoMore();
    }
    expect(await (staysUp ? node.end('SIGTERM') : node.exit())).toBe(staysUp ? 0 : 1);
    node.start();
    await vi.waitFor(() => expectAll(acknowledged), 20_000);
    expect((await put('later')).status).toBe(200);
  },
);

it.skipIf(!canTrace)(
  'openat answers ENOSPC for a while: the log goes on in the file that it has, and then in others',
  async () => {
    await startNode('auto');
    await failCalls('openat', 'error=ENOSPC');
    const keys = Array.from({ length: 40 }, (_, at) => `k${at}`);
    for (const key of keys.slice(1, 9)) expect((await put(key)).status).toBe(200);
    await vi.waitFor(() => expect(node.logged('storage.prefill-failed')).toHaveLength(1), 10_000);
    await failNoMore();
    for (const key of keys.slice(9)) expect((await put(key)).status).toBe(200);
    await expectAll(keys);
    expect(node.logged('node.failed')).toEqual([]);
    expect(await node.end('SIGTERM')).toBe(0);
  },
);

it.skipIf(!canPoke)(
  'statfs says that nothing is free: writes get 507, all else goes on, and they are taken again when there is room',
  async () => {
    await startNode('auto');
    await failCalls('statfs', fullDisk());
    const acknowledged = ['k0'];
    let reply = await put('k1');
    for (let writes = 1; reply.status === 200 && writes < 60; writes++) {
      acknowledged.push(`k${writes}`);
      reply = await put(`k${writes + 1}`);
    }
    const refused = { code: 'KEELSON_STORAGE_FULL', outcome: 'rejected' };
    expect([reply.status, json(reply).error]).toMatchObject([507, refused]);
    expect((await client.send(1, 'GET', '/readyz')).status).toBe(200);
    await expectAll(acknowledged);
    await failNoMore();
    await vi.waitFor(async () => expect((await put('later')).status).toBe(200), 20_000);
    await expectAll([...acknowledged, 'later']);
    expect(node.logged('storage.full')).toHaveLength(1);
    expect(node.logged('storage.roomy')).toHaveLength(1);
    expect(node.logged('node.failed')).toEqual([]);
    expect(await node.end('SIGTERM')).toBe(0);
  },
);
