import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { NodeClient } from '../../dist/cli/demo/client.js';
import { cliEnvironment, MAIN, runCli } from '../cli/run-cli.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-demo-test-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const pidsIn = (text: string): number[] =>
  [...text.matchAll(/\(?pid (\d+)/g)].map((match) => Number(match[1]));

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

describe('keelson demo', () => {
  it('kills the leader, loses nothing, says so in its last line, and leaves nothing behind', async () => {
    const args = ['demo', '--seconds', '2', '--concurrency', '16', '--json'];
    const { code, stdout, stderr } = await runCli(args, { TMPDIR: directory });
    expect([code, stderr]).toEqual([0, '']);
    const result = JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
    expect(Object.keys(result)).toEqual([
      'writesAcknowledged',
      'writesLost',
      'writesPerSecond',
      'leaderKills',
      'failoverMs',
    ]);
    expect(result).toMatchObject({ writesLost: 0, leaderKills: 1 });
    expect(result.writesAcknowledged).toBeGreaterThan(100);
    expect(result.writesPerSecond).toBeGreaterThan(0);
    expect(result.failoverMs).toBeGreaterThan(0);
    expect(stdout).toMatch(/fdatasync of 4 KiB: p50 .*, p99 /);
    expect(readdirSync(directory)).toEqual([]);
    const pids = pidsIn(stdout);
    expect(pids.length).toBeGreaterThanOrEqual(4);
    expect(pids.filter(isAlive)).toEqual([]);
  });

  it('exits with 1 when a write is lost, says so in its last line, and keeps the directories', async () => {
    const args = ['demo', '--seconds', '3', '--concurrency', '4', '--json'];
    const child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: cliEnvironment({ TMPDIR: directory }),
    });
    let stdout = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    await vi.waitFor(() => expect(stdout).toMatch(/writes\/s/), 30_000);
    const [, port] = /http:\/\/127\.0\.0\.1:(\d+)/.exec(stdout) ?? [];
    const client = new NodeClient(new Map([[1, Number(port)]]), 1);
    const page = await client.send(1, 'GET', '/v1/kv?limit=1');
    const [{ key }] = JSON.parse(page.body.toString()).entries;
    expect((await client.send(1, 'DELETE', `/v1/kv/${key}`)).status).toBe(200);
    client.close();
    const [code] = await once(child, 'close');
    expect(code).toBe(1);
    const lines = stdout.trimEnd().split('\n');
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ writesLost: 1 });
    expect(stdout).toContain(`lost: ${key}`);
    const [kept = ''] = readdirSync(directory);
    expect(stdout).toContain(`kept ${join(directory, kept)}`);
  });

  it('interrupted, it ends its nodes and removes their directories', async () => {
    const child = spawn(process.execPath, [MAIN, 'demo', '--seconds', '60'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: cliEnvironment({ TMPDIR: directory }),
    });
    let stdout = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    await vi.waitFor(() => expect(stdout).toMatch(/writes\/s/), 30_000);
    const pids = pidsIn(stdout);
    expect(pids.filter(isAlive).length).toBe(3);
    child.kill('SIGINT');
    const [code] = await once(child, 'exit');
    expect(code).toBe(1);
    await vi.waitFor(() => expect(pids.filter(isAlive)).toEqual([]));
    expect(readdirSync(directory)).toEqual([]);
  });
});
