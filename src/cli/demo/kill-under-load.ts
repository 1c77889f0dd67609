/**
 * The plot: load for some seconds; half-way the leader dies by SIGKILL; when writes go on it is
 * started again from its directory. A time line of what is acknowledged runs along.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { type DemoCluster, DemoFailure, type NodeStatus } from './cluster.js';
import { Load } from './load.js';
import { duration, type Screen, sparkline, whole } from './screen.js';
import type { Values } from './values.js';

export interface LoadOptions {
  readonly seconds: number;
  readonly concurrency: number;
  readonly valueBytes: number;
}

export interface LoadOutcome {
  readonly acknowledged: readonly (readonly number[])[];
  readonly acknowledgedCount: number;
  readonly unknownCount: number;
  /** Time during which writers wrote, the outage included. */
  readonly elapsedMs: number;
  readonly leaderKills: number;
  /** From the kill to the acknowledgement of a write that was sent after it. */
  readonly failoverMs: number;
  readonly writesBySecond: readonly number[];
}

const FAILOVER_PATIENCE_MS = 30_000;

export async function runLoad(
  cluster: DemoCluster,
  values: Values,
  leader: NodeStatus,
  options: LoadOptions,
  screen: Screen,
): Promise<LoadOutcome> {
  const { seconds, concurrency, valueBytes } = options;
  const load = new Load(cluster.client, values, concurrency, leader.nodeId);
  screen.line(`${concurrency} clients, ${seconds} s, values of ${whole(valueBytes)} B`, 'Load');
  const startMs = performance.now();
  const timeline = new Timeline(load, screen, startMs);
  const writing = load.run();
  const ended = new AbortController();
  const ticking = timeline.run(ended.signal);
  const failed = writing.then(() => new Promise<never>(() => {}));
  try {
    const failoverMs = await Promise.race([failed, killHalfWay(cluster, load, options, timeline)]);
    load.stop();
    await writing;
    const elapsedMs = performance.now() - startMs;
    const { acknowledged, acknowledgedCount, unknownCount } = load;
    const counts = { acknowledged, acknowledgedCount, unknownCount };
    ended.abort();
    await ticking;
    return { ...counts, elapsedMs, leaderKills: 1, failoverMs, writesBySecond: timeline.writes };
  } finally {
    load.stop();
    ended.abort();
  }
}

/** Resolves with the time of failover, when the load has had its seconds and all nodes run again. */
async function killHalfWay(
  cluster: DemoCluster,
  load: Load,
  options: LoadOptions,
  timeline: Timeline,
): Promise<number> {
  const allTime = delay(options.seconds * 1_000);
  await delay(options.seconds * 500);
  const leader = await cluster.agreedLeader();
  const victim = cluster.node(leader.nodeId);
  timeline.event(`SIGKILL to node ${leader.nodeId}, the leader (pid ${victim.pid})`, 'red');
  const killedMs = performance.now();
  const next = load.nextAcknowledged();
  await victim.kill();
  const acknowledgedMs = await Promise.race([next, delay(FAILOVER_PATIENCE_MS, undefined)]);
  if (acknowledgedMs === undefined) {
    throw new DemoFailure(`no write was acknowledged within ${duration(FAILOVER_PATIENCE_MS)}`);
  }
  const failoverMs = acknowledgedMs - killedMs;
  timeline.event(`writes go on, ${duration(failoverMs)} after the kill`, 'green');
  victim.start();
  timeline.event(`node ${victim.nodeId} started again from its directory (pid ${victim.pid})`);
  const successor = await cluster.agreedLeader();
  const role = successor.nodeId === victim.nodeId ? 'leads' : `follows node ${successor.nodeId}`;
  timeline.event(`node ${victim.nodeId} is back and ${role}`);
  await allTime;
  return failoverMs;
}

class Timeline {
  /** Acknowledged writes of each whole second. */
  readonly writes: number[] = [];
  private readonly load: Load;
  private readonly screen: Screen;
  private readonly startMs: number;

  constructor(load: Load, screen: Screen, startMs: number) {
    this.load = load;
    this.screen = screen;
    this.startMs = startMs;
  }

  async run(ended: AbortSignal): Promise<void> {
    for (let second = 1; !ended.aborted; second += 1) {
      const untilMs = this.startMs + second * 1_000 - performance.now();
      await delay(Math.max(untilMs, 0), undefined, { signal: ended }).catch((error: Error) => {
        if (error.name !== 'AbortError') throw error;
      });
      if (!ended.aborted) this.tick(second);
    }
  }

  event(text: string, style?: 'red' | 'green'): void {
    const at = `${((performance.now() - this.startMs) / 1_000).toFixed(1)} s`.padStart(7);
    this.screen.line(`${at}   ${style === undefined ? text : this.screen.style(style, text)}`);
  }

  private tick(second: number): void {
    const { writes, p50Ms, p99Ms } = this.load.takeWindow();
    this.writes.push(writes);
    const latency =
      writes === 0
        ? ''.padEnd(30)
        : `p50 ${duration(p50Ms).padStart(7)}   p99 ${duration(p99Ms).padStart(7)}   `.padEnd(30);
    const total = `${whole(this.load.acknowledgedCount)} acknowledged`;
    const rate = `${whole(writes).padStart(8)} writes/s`;
    this.screen.live(
      `${`${second.toFixed(1)} s`.padStart(7)}   ${rate}   ${latency}${total}   ${sparkline(this.writes.slice(-30))}`,
    );
  }
}
