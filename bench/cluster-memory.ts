import { parseArgs } from 'node:util';
import { type Raft, rawCodec, type StateMachine } from '../dist/index.js';
import { testCluster } from '../dist/testing/index.js';
import { environment, printEnvironment } from './environment.js';
import { LatencySamples } from './latency.js';

/**
 * Suite `cluster-memory`: what consensus itself costs. All members in one process and one thread, log
 * in memory, network in process, empty payload, closed loop, one promise per write (or per batch).
 * The workload of openraft's `benchmarks/minimal`.
 */
const DEFAULTS = { clients: 4096, operations: 2_000_000, members: 3, batch: 1 };

export async function run(argv: string[]): Promise<void> {
  const { values } = parseArgs({
    args: argv,
    options: {
      clients: { type: 'string', default: String(DEFAULTS.clients) },
      operations: { type: 'string', default: String(DEFAULTS.operations) },
      members: { type: 'string', default: String(DEFAULTS.members) },
      batch: { type: 'string', default: String(DEFAULTS.batch) },
      json: { type: 'boolean', default: false },
    },
  });
  const settings = {
    clients: Number(values.clients),
    operations: Number(values.operations),
    members: Number(values.members),
    batch: Number(values.batch),
  };
  const found = environment();
  printEnvironment(found);
  console.log(`cluster-memory: ${JSON.stringify(settings)}`);

  await using cluster = await testCluster({
    nodes: settings.members,
    stateMachine: () => new Counter(),
    config: {
      limits: { maxPendingWrites: Math.max(65_536, settings.clients * settings.batch * 2) },
    },
  });
  const leader = await cluster.leader();
  const operations = Math.ceil(settings.operations / settings.batch) * settings.batch;

  await closedLoop(leader, settings, Math.min(operations, 200_000), new LatencySamples());
  const before = leader.status().appliedIndex;
  const latency = new LatencySamples();
  const startedAt = performance.now();
  await closedLoop(leader, settings, operations, latency);
  const seconds = (performance.now() - startedAt) / 1000;

  const applied = leader.status().appliedIndex;
  const done = applied - before;
  if (done !== operations) throw new Error(`${done} operations applied, ${operations} written`);
  await cluster.waitForApplied(applied);
  const digests = await Promise.all(cluster.nodes.map((node) => node.read('digest', LOCAL)));
  if (new Set(digests).size !== 1) throw new Error(`members differ: ${digests.join(', ')}`);

  const { p50, p99, max } = latency.summary();
  const writesPerSecond = Math.round(operations / seconds);
  console.log(
    `${writesPerSecond.toLocaleString('en')} writes/s, p50 ${p50} µs, p99 ${p99} µs; ` +
      `${digests.length} members applied ${operations} operations each and are equal`,
  );
  const result = {
    suite: 'cluster-memory',
    environment: found,
    ...settings,
    operations,
    seconds,
    writesPerSecond,
    latency: { p50, p99, max },
    membersEqual: digests.length,
  };
  if (values.json) console.log(JSON.stringify(result));
}

const LOCAL = { consistency: 'local' } as const;

interface Load {
  readonly clients: number;
  readonly batch: number;
}

/** `clients` loops, each with one call under way; every 64th latency is recorded. */
async function closedLoop(
  leader: Raft<Uint8Array, undefined, 'digest', string>,
  load: Load,
  operations: number,
  latency: LatencySamples,
): Promise<void> {
  const commands = new Array<Uint8Array>(load.batch).fill(EMPTY);
  let started = 0;
  const client = async (): Promise<void> => {
    while (started < operations) {
      started += load.batch;
      const timed = (started & 63) < load.batch;
      const at = timed ? performance.now() : 0;
      if (load.batch === 1) await leader.write(EMPTY);
      else await leader.writeMany(commands);
      if (timed) latency.add((performance.now() - at) * 1000);
    }
  };
  await Promise.all(Array.from({ length: load.clients }, client));
}

const EMPTY = new Uint8Array(0);

/** Counts, and mixes the indexes it saw into a digest. */
class Counter implements StateMachine<Uint8Array, undefined, 'digest', string> {
  readonly codec = rawCodec;
  private count = 0;
  private mixed = 0;

  apply(entries: Parameters<StateMachine<Uint8Array>['apply']>[0]): undefined[] {
    for (const entry of entries) {
      this.count++;
      this.mixed = (Math.imul(this.mixed, 31) + entry.logId.index) | 0;
    }
    return new Array(entries.length);
  }

  query(): string {
    return `${this.count}:${this.mixed}`;
  }

  *snapshot(): Iterable<Uint8Array> {}

  restore(): void {}
}
