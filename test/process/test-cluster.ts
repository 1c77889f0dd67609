/** Three real `keelson serve` processes on loopback, each with its own directory. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { NodeClient, type NodeReply } from '../../dist/cli/demo/client.js';
import { freePorts } from '../../dist/cli/demo/ports.js';
import { cliEnvironment, MAIN } from '../cli/run-cli.js';

export interface TestNodeOptions {
  readonly nodeId: number;
  readonly dataDir: string;
  readonly raftPort: number;
  readonly httpPort: number;
  /** Default: 127.0.0.1. */
  readonly httpHost?: string;
  readonly initialCluster: string;
  readonly variables: Readonly<Record<string, string>>;
  /** Command that runs the one that follows it; none by default. */
  readonly launcher?: readonly string[];
}

// biome-ignore lint/suspicious/noExplicitAny: fields differ from event to event
export type LogLine = { readonly event: string; readonly level: string } & Record<string, any>;

export class TestNode {
  readonly options: TestNodeOptions;
  private child: ChildProcess | undefined;
  private text = '';
  private exited: Promise<number | null> = Promise.resolve(null);

  constructor(options: TestNodeOptions) {
    this.options = options;
  }

  get nodeId(): number {
    return this.options.nodeId;
  }

  get processId(): number | undefined {
    return this.child?.pid;
  }

  get running(): boolean {
    return this.child?.exitCode === null && this.child.signalCode === null;
  }

  /** Every line that the process ever logged; each must be JSON. */
  get log(): LogLine[] {
    return this.text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  }

  start(): void {
    const { nodeId, dataDir, raftPort, httpPort, initialCluster, variables } = this.options;
    const { launcher = [], httpHost = '127.0.0.1' } = this.options;
    const args = ['serve', '--node-id', String(nodeId), '--data-dir', dataDir];
    args.push('--listen', `127.0.0.1:${raftPort}`, '--http', `${httpHost}:${httpPort}`);
    args.push('--initial-cluster', initialCluster);
    const [program = '', ...rest] = [...launcher, process.execPath, MAIN, ...args];
    const child = spawn(program, rest, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: cliEnvironment(variables),
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      this.text += chunk.toString();
    });
    this.child = child;
    this.exited = once(child, 'close').then(([code]) => code as number | null);
  }

  /** Resolves with the exit code, null after SIGKILL. */
  async end(signal: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): Promise<number | null> {
    this.child?.kill(signal);
    return await this.exited;
  }

  async exit(): Promise<number | null> {
    return await this.exited;
  }

  logged(event: string): LogLine[] {
    return this.log.filter((line) => line.event === event);
  }
}

export class TestCluster {
  readonly directory: string;
  readonly nodes: readonly TestNode[];
  readonly client: NodeClient;

  private constructor(directory: string, nodes: readonly TestNode[]) {
    this.directory = directory;
    this.nodes = nodes;
    const ports = new Map(nodes.map(({ options }) => [options.nodeId, options.httpPort]));
    this.client = new NodeClient(ports, 64);
  }

  static async open(variables: Readonly<Record<string, string>> = {}): Promise<TestCluster> {
    const directory = mkdtempSync(join(tmpdir(), 'keelson-process-'));
    const nodeIds = [1, 2, 3];
    const ports = await freePorts(6);
    const initialCluster = nodeIds.map((id, at) => `${id}=127.0.0.1:${ports[at]}`).join(',');
    const nodes = nodeIds.map((nodeId, at) => {
      const dataDir = join(directory, `node-${nodeId}`);
      const [raftPort, httpPort] = [ports[at]!, ports[at + 3]!];
      return new TestNode({ nodeId, dataDir, raftPort, httpPort, initialCluster, variables });
    });
    const cluster = new TestCluster(directory, nodes);
    cluster.startAll();
    await cluster.leader();
    return cluster;
  }

  startAll(): void {
    for (const node of this.nodes) node.start();
  }

  node(nodeId: number): TestNode {
    return this.nodes.find((node) => node.nodeId === nodeId)!;
  }

  /** Waits until all nodes that run agree on a leader. */
  async leader(): Promise<TestNode> {
    return await vi.waitFor(
      async () => {
        const running = this.nodes.filter((node) => node.running);
        const statuses = await Promise.all(running.map((node) => this.status(node.nodeId)));
        const leader = statuses.find((status) => status.state === 'leader');
        expect(statuses.map((status) => status.leader)).toEqual(running.map(() => leader?.nodeId));
        expect(leader).toBeDefined();
        return this.node(leader.nodeId);
      },
      { timeout: 20_000, interval: 20 },
    );
  }

  async follower(): Promise<TestNode> {
    const leader = await this.leader();
    return this.nodes.find((node) => node.running && node !== leader)!;
  }

  // biome-ignore lint/suspicious/noExplicitAny: the status as JSON
  async status(nodeId: number): Promise<any> {
    return json(await this.client.send(nodeId, 'GET', '/v1/status'));
  }

  async put(nodeId: number, key: string, value: string): Promise<NodeReply> {
    return await this.client.send(nodeId, 'PUT', `/v1/kv/${key}`, Buffer.from(value));
  }

  async get(nodeId: number, key: string): Promise<string> {
    const reply = await this.client.send(nodeId, 'GET', `/v1/kv/${key}`);
    return `${reply.status} ${reply.body.toString()}`;
  }

  async close(): Promise<void> {
    this.client.close();
    await Promise.all(this.nodes.map((node) => node.end('SIGKILL')));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

// biome-ignore lint/suspicious/noExplicitAny: bodies of every shape
export function json(reply: NodeReply): any {
  return JSON.parse(reply.body.toString());
}
