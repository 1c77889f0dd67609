import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { freePorts } from '../../dist/cli/demo/ports.js';
import { ROOT } from '../docs/support/pages.js';

let directory: string;
let ports: number[];
let nodes: ExampleNode[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-bank-'));
  ports = await freePorts(3);
});

afterEach(async () => {
  for (const node of nodes) await node.stop();
  nodes = [];
  rmSync(directory, { recursive: true });
});

class ExampleNode {
  output = '';
  private readonly child: ChildProcess;
  private readonly exited: Promise<unknown[]>;

  constructor(nodeId: number) {
    const args = ['--import', 'tsx', 'examples/bank/main.ts', String(nodeId)];
    const env = { ...process.env, BANK_PORTS: ports.join(','), BANK_DIRECTORY: directory };
    this.child = spawn(process.execPath, args, {
      cwd: ROOT,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exited = once(this.child, 'exit');
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.output += chunk.toString();
      });
    }
  }

  /** Its exit code. */
  async stop(): Promise<number | null> {
    this.child.kill('SIGTERM');
    const [code] = await this.exited;
    return code as number | null;
  }

  async balance(): Promise<number> {
    const found = await vi.waitFor(
      () => {
        const match = /^bob has (\d+)$/m.exec(this.output);
        expect(match, this.output).not.toBeNull();
        return match?.[1];
      },
      { timeout: 40_000 },
    );
    return Number(found);
  }
}

describe('the bank of the examples', () => {
  it('runs as three processes that agree on every balance, again after a restart', async () => {
    const balances = async (): Promise<number[]> => {
      nodes = [1, 2, 3].map((nodeId) => new ExampleNode(nodeId));
      const found = await Promise.all(nodes.map((node) => node.balance()));
      for (const node of nodes) expect(node.output).toMatch(/moved at index \d+: \{ ok: true \}/);
      return found.sort((left, right) => left - right);
    };
    const expectCleanEnd = async (): Promise<void> => {
      for (const node of nodes) expect(await node.stop(), node.output).toBe(0);
    };
    const first = await balances();
    // Each node moves 5 to bob and reads what the log holds up to its own move, or more.
    expect(first.every((balance) => [5, 10, 15].includes(balance))).toBe(true);
    expect(first.at(-1)).toBe(15);
    await expectCleanEnd();
    const second = await balances();
    expect(second.every((balance) => [20, 25, 30].includes(balance))).toBe(true);
    expect(second.at(-1)).toBe(30);
    await expectCleanEnd();
  });
});
