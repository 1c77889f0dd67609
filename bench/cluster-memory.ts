import { parseArgs } from 'node:util';
import { type Raft, rawCodec, type StateMachine } from '../dist/index.js';
import { testCluster } from '../dist/testing/index.js';
import { environment, printEnvironment } from './environment.js';
import { LatencySamples } from './latency.js';
import { integerOption } from './options.js';
import { Progress } from './progress.js';
import { printTargets, type Target } from './target.js';

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
  const clients = integerOption('clients', values.clients, 1, 1 << 20);
  const batch = integerOption('batch', values.batch, 1, 65_536);
  const settings = {
    clients,
    operations: integerOption('operations', values.operations, 1, 1e12),
    members: integerOption('members', values.members, 1, 7),
    batch,
    // The default is for fewer clients than may be asked for here.
    'limits.maxPendingWrites': Math.max(65_536, clients * batch * 2),
  };
  const found = environment();
  printEnvironment(found);
  console.log(`cluster-memory: ${JSON.stringify(settings)}`);

  await using cluster = await testCluster({
    nodes: settings.members,
    stateMachine: () => new Counter(),
    config: { limits: { maxPendingWrites: settings['limits.maxPendingWrites'] } },
  });
  const leader = await cluster.leader();
  const operations = Math.ceil(settings.operations / settings.batch) * settings.batch;

  await closedLoop(leader, settings, Math.min(operations, 200_000), new LatencySamples());
  const before = leader.status().appliedIndex;
  const latency = new LatencySamples();
  const progress = new Progress(() => {
    const written = leader.status().appliedIndex - before;
    return `${written.toLocaleString('en')} of ${operations.toLocaleString('en')} writes`;
  });
  const startedAt = performance.now();
  await closedLoop(leader, settings, operations, latency);
  const seconds = (performance.now() - startedAt) / 1000;
  progress.end();

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
  printTargets(targetsOf(settings, writesPerSecond));
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

/** Of three members; other loads have none. */
function targetsOf(load: Load & { readonly members: number }, writesPerSecond: number): Target[] {
  const { clients, batch, members } = load;
  if (members !== 3) return [];
  const target = { what: 'writes/s', value: writesPerSecond };
  if (batch === 64 && clients >= 64) return [{ ...target, atLeast: 3_000_000 }];
  if (batch !== 1) return [];
  if (clients === 1) return [{ ...target, atLeast: 100_000 }];
  return clients >= 64 && clients <= 4096 ? [{ ...target, atLeast: 1_000_000 }] : [];
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
