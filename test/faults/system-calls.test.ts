/**
 * Real system calls of a running `keelson serve` fail: strace attaches to the process and lets the
 * kernel's answer be an error. By hand, with the process id of a node:
 *
 *     strace -f -qq -p PID -e trace=fdatasync -e inject=fdatasync:error=EIO
 *
 * Wants strace (Debian package strace) and leave to trace; skipped where it has not.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { NodeClient } from '../../dist/cli/demo/client.js';
import { freePorts } from '../../dist/cli/demo/ports.js';
import { json, TestNode } from '../process/test-cluster.js';

const INJECT = ['-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO'];
const canTrace = spawnSync('strace', ['-f', '-qq', ...INJECT, 'true']).status === 0;
if (!canTrace) console.warn('strace cannot trace here: no system call is made to fail');

let directory: string;
let node: TestNode;
let tracer: ChildProcess | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-system-calls-'));
});
afterEach(async () => {
  tracer?.kill('SIGKILL');
  tracer = undefined;
  await node.end('SIGKILL');
  rmSync(directory, { recursive: true });
});

/** From now on the calls of that name fail in all threads of the process. */
async function failCalls(processId: number, call: string, error: string): Promise<void> {
  const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:error=${error}`];
  tracer = spawn('strace', ['-f', '-p', String(processId), '-o', '/dev/null', ...inject]);
  let told = '';
  tracer.stderr?.on('data', (chunk: Buffer) => {
    told += chunk.toString();
  });
  await vi.waitFor(() => expect(told).toContain('attached'), 10_000);
}

it.skipIf(!canTrace).each([
  ['fdatasync', 'EIO', 'KEELSON_STORAGE_FAILED', 'off'],
  ['pwrite64', 'EIO', 'KEELSON_STORAGE_FAILED', 'auto'],
  ['pwrite64', 'ENOSPC', 'KEELSON_STORAGE_FULL', 'auto'],
  ['openat', 'EIO', 'KEELSON_STORAGE_FAILED', 'auto'],
])(
  '%s answers %s: %s is final, and what was acknowledged is there after a restart',
  async (call, error, code, directIo) => {
    const [raftPort = 0, httpPort = 0] = await freePorts(2);
    const MIB = 1024 * 1024;
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
    const client = new NodeClient(new Map([[1, httpPort]]), 1);
    const value = (key: string): Buffer => Buffer.alloc(300_000, key);
    const put = (key: string) => client.send(1, 'PUT', `/v1/kv/${key}`, value(key));
    await vi.waitFor(async () => expect((await put('k0')).status).toBe(200), 20_000);

    await failCalls(node.processId!, call, error);
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
      expect(json(await put('later')).error).toMatchObject({ code, outcome: 'rejected' });
      expect((await client.send(1, 'GET', '/livez')).status).toBe(200);
      tracer!.kill('SIGINT');
      await once(tracer!, 'close');
    }
    expect(await (staysUp ? node.end('SIGTERM') : node.exit())).toBe(staysUp ? 0 : 1);
    node.start();
    await vi.waitFor(async () => {
      for (const key of acknowledged) {
        const { status, body } = await client.send(1, 'GET', `/v1/kv/${key}`);
        expect([status, value(key).equals(body)]).toEqual([200, true]);
      }
    }, 20_000);
    client.close();
  },
);
