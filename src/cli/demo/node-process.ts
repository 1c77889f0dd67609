/**
 * One `keelson serve` as a child process. Its directory holds its data and its log file:
 *
 *     node-N/data/…  node-N/serve.log
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export interface NodeProcessOptions {
  readonly nodeId: number;
  readonly directory: string;
  readonly raftPort: number;
  readonly httpPort: number;
  readonly initialCluster: string;
}

const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));
const STOP_TIME_LIMIT_MS = 15_000;

export class NodeProcess {
  readonly nodeId: number;
  readonly httpPort: number;
  private readonly options: NodeProcessOptions;
  private readonly logFile: string;
  private child: ChildProcess | undefined;
  private exited: Promise<unknown> = Promise.resolve();

  constructor(options: NodeProcessOptions) {
    this.options = options;
    this.nodeId = options.nodeId;
    this.httpPort = options.httpPort;
    this.logFile = join(options.directory, 'serve.log');
    mkdirSync(options.directory, { recursive: true });
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  get running(): boolean {
    return (
      this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null
    );
  }

  /** Undefined while it runs, and after a kill. */
  get exitCode(): number | undefined {
    return this.child?.exitCode ?? undefined;
  }

  start(): void {
    const { nodeId, directory, raftPort, httpPort, initialCluster } = this.options;
    const args = ['serve', '--node-id', String(nodeId), '--data-dir', join(directory, 'data')];
    args.push('--listen', `127.0.0.1:${raftPort}`, '--http', `127.0.0.1:${httpPort}`);
    args.push('--initial-cluster', initialCluster, '--cluster-name', 'demo');
    const log = openSync(this.logFile, 'a');
    try {
      const stdio = ['ignore', log, log] as const;
      this.child = spawn(process.execPath, [MAIN, ...args], {
        stdio: [...stdio],
        env: environment(),
      });
      this.exited = once(this.child, 'exit');
    } finally {
      closeSync(log);
    }
  }

  /** No warning, no flush, no goodbye: what the node had not synced, it never had. */
  async kill(): Promise<void> {
    if (this.running) this.child?.kill('SIGKILL');
    await this.exited;
  }

  /** For an exit that cannot wait. */
  killNow(): void {
    if (this.running) this.child?.kill('SIGKILL');
  }

  /** Asks for a clean close; resolves with whether it was one. */
  async stop(): Promise<boolean> {
    if (!this.running) return false;
    this.child?.kill('SIGTERM');
    const timeUp = new AbortController();
    const late = delay(STOP_TIME_LIMIT_MS, 'late', { signal: timeUp.signal }).catch(() => 'done');
    const first = await Promise.race([this.exited, late]);
    timeUp.abort();
    if (first === 'late') await this.kill();
    return this.child?.exitCode === 0;
  }

  /** The end of its log, for people. */
  logTail(): string {
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-5).join('\n');
  }
}

/** The nodes take their settings from the demo alone, not from variables meant for another node. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('KEELSON_')),
  );
}
