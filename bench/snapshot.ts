import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { freePorts } from '../dist/cli/demo/ports.js';
import { KeyValueMachine, keyValueModule, Raft } from '../dist/index.js';
import { environment, printEnvironment } from './environment.js';
import { LatencySamples } from './latency.js';
import { integerOption, numberOption } from './options.js';
import { Progress } from './progress.js';
import { printTargets } from './target.js';
import { withWorkDirectory } from './work-directory.js';

/**
 * Suite `snapshot`: what writers see of it. One node on a real disk whose key-value machine holds many
 * keys; clients overwrite them one call after the other, first for a while without a snapshot, then
 * while one is built. Then the node starts again from it.
 */
const DEFAULTS = { keys: 1_000_000, valueSize: 100, clients: 64, seconds: 5, machine: 'worker' };

type Node = Awaited<ReturnType<typeof openNode>>;

export async function run(argv: string[]): Promise<void> {
  const { values } = parseArgs({
    args: argv,
    options: {
      keys: { type: 'string', default: String(DEFAULTS.keys) },
      'value-size': { type: 'string', default: String(DEFAULTS.valueSize) },
      clients: { type: 'string', default: String(DEFAULTS.clients) },
      seconds: { type: 'string', default: String(DEFAULTS.seconds) },
      machine: { type: 'string', default: DEFAULTS.machine },
      directory: { type: 'string', default: tmpdir() },
      json: { type: 'boolean', default: false },
    },
  });
  const { machine } = values;
  if (machine !== 'worker' && machine !== 'main') {
    throw new RangeError(`--machine must be worker or main, not ${machine}`);
  }
  const settings = {
    keys: integerOption('keys', values.keys, 1, 1e8),
    valueSize: integerOption('value-size', values['value-size'], 0, 65_536),
    clients: integerOption('clients', values.clients, 1, 65_536),
    seconds: numberOption('seconds', values.seconds, 0.1, 3600),
    machine,
  } as const;
  const found = environment(values.directory);
  printEnvironment(found);
  console.log(`snapshot: ${JSON.stringify(settings)}`);

  await withWorkDirectory(values.directory, async (directory) => {
    const node = await openNode(directory, machine);
    await fill(node, settings.keys, settings.valueSize);
    const before = await load(node, settings, later(settings.seconds * 1000));
    const startedAt = performance.now();
    const snapshot = node.snapshot();
    const during = await load(node, settings, snapshot);
    const { bytes } = await snapshot;
    const buildSeconds = (performance.now() - startedAt) / 1000;
    await node.close();

    const openedAt = performance.now();
    const again = await openNode(directory, machine);
    const restartSeconds = (performance.now() - openedAt) / 1000;
    await again.close();

    const result = { buildSeconds, bytes, restartSeconds, before, during };
    print(result);
    // On the main thread the collector alone takes longer, over so many objects.
    if (machine === 'worker') {
      const what = 'longest wait of a write beside the snapshot, ms';
      printTargets([{ what, value: during.latency.max / 1000, atMost: 100 }]);
    }
    if (values.json) {
      console.log(
        JSON.stringify({ suite: 'snapshot', environment: found, ...settings, ...result }),
      );
    }
  });
}

async function openNode(dataDir: string, machine: 'worker' | 'main') {
  const address = `127.0.0.1:${(await freePorts(1))[0]}`;
  const node = await Raft.open({
    nodeId: 1,
    clusterName: 'bench',
    dataDir,
    listen: address,
    bootstrap: { voters: { 1: address } },
    stateMachine: machine === 'main' ? new KeyValueMachine() : keyValueModule,
    // One snapshot, when it is asked for; and the log goes behind it.
    config: { snapshot: { everyEntries: 0, everyBytes: 0, keep: 1, keepEntries: 0 } },
  });
  await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 600_000 });
  return node;
}

async function fill(node: Node, keys: number, valueSize: number): Promise<void> {
  const value = new Uint8Array(valueSize);
  let written = 0;
  const progress = new Progress(() => `${written.toLocaleString('en')} keys`);
  while (written < keys) {
    const count = Math.min(2_000, keys - written);
    const first = written;
    await node.writeMany(
      Array.from({ length: count }, (_, i) => ({ op: 'put', key: keyOf(first + i), value })),
      { timeoutMs: 60_000 },
    );
    written += count;
  }
  progress.end();
}

interface Load {
  readonly writesPerSecond: number;
  readonly latency: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** Clients that overwrite keys, one call after the other, until `end`. */
async function load(
  node: Node,
  { keys, valueSize, clients }: { keys: number; valueSize: number; clients: number },
  end: Promise<unknown>,
): Promise<Load> {
  const value = new Uint8Array(valueSize).fill(1);
  const samples = new LatencySamples();
  const startedAt = performance.now();
  let over = false;
  let writes = 0;
  let longestMs = 0;
  const client = async (first: number): Promise<void> => {
    for (let key = first; !over; key = (key + 7_919) % keys) {
      const at = performance.now();
      await node.write({ op: 'put', key: keyOf(key), value });
      const tookMs = performance.now() - at;
      if (tookMs > longestMs) longestMs = tookMs;
      samples.add(tookMs * 1000);
      writes++;
    }
  };
  const loops = Array.from({ length: clients }, (_, i) => client((i * 104_729) % keys));
  try {
    await end;
  } finally {
    over = true;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  await Promise.all(loops);
  const { p50, p99 } = samples.summary();
  const latency = { p50, p99, max: Math.round(longestMs * 1000) };
  return { writesPerSecond: Math.round(writes / seconds), latency };
}

function print(result: {
  readonly buildSeconds: number;
  readonly bytes: number;
  readonly restartSeconds: number;
  readonly before: Load;
  readonly during: Load;
}): void {
  const line = (what: string, { writesPerSecond, latency }: Load): string =>
    `${what}: ${writesPerSecond.toLocaleString('en')} writes/s, p50 ${latency.p50} µs, ` +
    `p99 ${latency.p99} µs, max ${latency.max} µs`;
  console.log(line('without a snapshot', result.before));
  console.log(line('beside a snapshot', result.during));
  const mib = (result.bytes / 1024 / 1024).toFixed(1);
  console.log(
    `built in ${result.buildSeconds.toFixed(2)} s (${mib} MiB); ` +
      `started again from it in ${result.restartSeconds.toFixed(2)} s, the election included`,
  );
}

const keyOf = (key: number): string => `key-${String(key).padStart(9, '0')}`;

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
