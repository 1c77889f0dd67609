/**
 * `keelson demo`: a durable cluster of three processes loses its leader under load, and nothing
 * else. Every figure that is shown was measured in this run.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DemoCluster, DemoFailure } from './demo/cluster.js';
import { probeDisk } from './demo/disk-probe.js';
import { runLoad } from './demo/kill-under-load.js';
import { readBack } from './demo/read-back.js';
import { type DemoResult, report, resultOf } from './demo/report.js';
import { duration, Screen, whole } from './demo/screen.js';
import { Values } from './demo/values.js';
import { DEMO_FLAGS, type DemoOptions, readDemoOptions } from './demo-options.js';
import { asksForHelp, describeFlags } from './flags.js';
import { type Command, EXIT_DONE, EXIT_FAILED } from './usage.js';

const HELP = `Usage: keelson demo [options]

Measures this disk, starts three nodes as processes with durable directories, writes to them
over HTTP, kills the leader half-way with SIGKILL, restarts it, and reads back every write that
was acknowledged. Exits with 1 if one is lost.

${describeFlags(DEMO_FLAGS)}
  --help
      Shows this.
`;

export const demo: Command = async (args, environment) => {
  if (asksForHelp(args)) {
    process.stdout.write(HELP);
    return EXIT_DONE;
  }
  const options = readDemoOptions(args, environment);
  const screen = new Screen(process.stdout, environment);
  const directory = mkdtempSync(join(tmpdir(), 'keelson-demo-'));
  const scene = new Scene(directory, options.keep);
  let ending: Ending;
  try {
    ending = await play(options, screen, scene);
  } catch (error) {
    if (!(error instanceof DemoFailure)) throw error;
    screen.line(error.message, 'Failed');
    return EXIT_FAILED;
  } finally {
    scene.clear();
    if (scene.keep) screen.line(`kept ${directory}`);
  }
  // The last line, whatever else there was to say.
  if (options.json) process.stdout.write(`${JSON.stringify(ending.result)}\n`);
  return ending.code;
};

interface Ending {
  readonly code: number;
  readonly result: DemoResult;
}

async function play(options: DemoOptions, screen: Screen, scene: Scene): Promise<Ending> {
  screen.line(
    screen.style(
      'bold',
      'Keelson demo: a durable cluster of three loses its leader, and nothing else',
    ),
  );
  screen.line();
  const disk = probeDisk(scene.directory);
  screen.line(
    `write + fdatasync of 4 KiB: p50 ${duration(disk.p50Micros / 1_000)}, p99 ${duration(disk.p99Micros / 1_000)}`,
    'Disk',
  );
  const startMs = performance.now();
  const cluster = await DemoCluster.start(scene.directory, options.concurrency, (started) => {
    scene.cluster = started;
  });
  const leader = await cluster.agreedLeader();
  for (const node of cluster.nodes.values()) {
    const role =
      node.nodeId === leader.nodeId
        ? `leads since ${duration(performance.now() - startMs)} after the start`
        : '';
    screen.line(
      `node ${node.nodeId}   http://127.0.0.1:${node.httpPort}   pid ${node.pid}   ${role}`,
      node.nodeId === 1 ? 'Cluster' : '',
    );
  }
  const values = new Values(options.valueBytes, randomUUID());
  const outcome = await runLoad(cluster, values, leader, options, screen);
  const appliedIndex = await cluster.caughtUp();
  screen.line(`all three nodes have applied ${whole(appliedIndex)} log entries`, 'Check');
  const checkStartMs = performance.now();
  const { acknowledged } = outcome;
  const total = whole(outcome.acknowledgedCount);
  const found = await readBack(cluster.client, values, acknowledged, (read) => {
    screen.passing(`reading back ${whole(read)} of ${total}`);
  });
  screen.line(
    `read back ${whole(found.read)} of ${total} through all three nodes in ${duration(performance.now() - checkStartMs)}`,
  );
  const clean = await cluster.stop();
  screen.line(clean ? 'all three nodes closed cleanly' : 'not every node closed cleanly');
  if (found.lostKeys.length > 0) scene.keep = true;
  report(outcome, found, screen);
  const code = found.lostKeys.length === 0 && clean ? EXIT_DONE : EXIT_FAILED;
  return { code, result: resultOf(outcome, found) };
}

/** What must not stay behind, however the demo ends: processes and the directory. */
class Scene {
  readonly directory: string;
  keep: boolean;
  cluster: DemoCluster | undefined;

  constructor(directory: string, keep: boolean) {
    this.directory = directory;
    this.keep = keep;
    for (const signal of SIGNALS) process.once(signal, () => void this.interrupt());
    process.on('exit', () => this.clear());
  }

  /** The nodes are waited for, so that none is left when the demo has gone. */
  private async interrupt(): Promise<void> {
    await this.cluster?.kill();
    process.exit(EXIT_FAILED);
  }

  clear(): void {
    this.cluster?.killNow();
    if (this.keep) return;
    // A killed node may still be writing for a moment; hence the retries.
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
