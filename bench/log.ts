/**
 * Durable appends through the store, closed loop: `--concurrency` writers, each of which writes its
 * next entry when its last one is durable. Beside it, alternating in the same run, a bare
 * write + fdatasync loop over a zero-filled file in the same directory with the payload bytes that
 * one flush of the store carried, and another with 256 KiB.
 *
 * `--groups` logs in one store share the writers, and `--lanes` share the groups, one as many as the next.
 *
 * The log is purged as it grows, as behind snapshots, and measured once it uses its segments again: that
 * is how it goes on for ever, and the bare loop overwrites its file as well.
 */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { systemScheduler } from '../dist/base/system-scheduler.js';
import type { IoId } from '../dist/engine/types.js';
import { laneOfGroup } from '../dist/storage/lane-of-group.js';
import { WalLogStore, type WalLogStoreOptions } from '../dist/storage/wal-log-store.js';
import { MAX_LANES } from '../dist/storage/wal-memory.js';
import { ENTRY_KIND } from '../dist/wasm/layout.js';
import { SharedHeap } from '../dist/wasm/shared-heap.js';
import { environment, printEnvironment } from './environment.js';
import { LatencySamples } from './latency.js';
import { integerOption, numberOption } from './options.js';
import { openPeers, type PeerResult } from './peers.js';
import { Progress } from './progress.js';
import { RawLoop, type RawResult } from './raw-loop.js';
import { printTargets, type Target } from './target.js';
import { withWorkDirectory } from './work-directory.js';

const MIB = 1024 * 1024;
const RAW_FIXED_BYTES = 256 * 1024;
const SLICE_MS = 500;
const MAX_WRITERS = 65_536;
/** As many as the checkpoint of a segment has room for. */
const MAX_GROUPS = 1_000;
const MAX_WARM_UP_MS = 10_000;
/** What one turn brought goes to the store in blocks of at most so many entries. */
const MAX_BLOCK_ENTRIES = 512;
const TERM = 1;
const VOTE = { term: TERM, nodeId: 1, committed: true };

interface Options {
  readonly entrySize: number;
  readonly concurrency: number;
  readonly seconds: number;
  readonly directory: string;
  readonly json: boolean;
  /** Other stores beside this one. */
  readonly peers: boolean;
  /** Entries that purges leave in all logs together; 0: it is never purged. */
  readonly keepEntries: number;
  /** Among which the writers are divided. */
  readonly groups: number;
  readonly lanes: number;
  readonly store: Omit<WalLogStoreOptions, 'directory'>;
}

/** The log of one group: one promise per entry, payloads of one turn in one block. */
class GroupLoad {
  entries = 0;
  /** Entries that wait for the end of the turn. */
  waiting = 0;
  private readonly group: number;
  private readonly keepEntries: number;
  private purgedUpTo = 0;
  /** One slot for each writer: a larger ring would keep answered promises alive and out of the cache. */
  private readonly mask: number;
  private readonly resolvers: ((() => void) | undefined)[];
  private readonly startedAt: Float64Array;
  private nextIndex = 1;
  private stagedUpTo = 0;
  private flushedUpTo = 0;

  constructor(group: number, writers: number, keepEntries: number) {
    this.group = group;
    this.keepEntries = keepEntries;
    const slots = 2 ** Math.ceil(Math.log2(writers));
    this.mask = slots - 1;
    this.resolvers = new Array(slots).fill(undefined);
    this.startedAt = new Float64Array(slots);
  }

  /** Entries that are in the log. */
  get kept(): number {
    return this.stagedUpTo - this.purgedUpTo;
  }

  add(resolve: () => void): void {
    const slot = this.nextIndex++ & this.mask;
    this.resolvers[slot] = resolve;
    this.startedAt[slot] = performance.now();
    this.waiting++;
  }

  append(store: WalLogStore, payloads: readonly Uint8Array[], sequence: number): void {
    for (let at = sequence; this.waiting > 0; at++) {
      const count = Math.min(this.waiting, MAX_BLOCK_ENTRIES);
      const firstIndex = this.stagedUpTo + 1;
      const block = { firstIndex, term: TERM, time: 0, kind: ENTRY_KIND.application };
      const staged = store.stage(this.group, { ...block, payloads, count });
      this.waiting -= count;
      this.stagedUpTo += count;
      const logId = { term: TERM, index: this.stagedUpTo };
      store.append(this.group, staged, firstIndex, { sequence: at, vote: VOTE, logId });
    }
  }

  flushed(upTo: number, store: WalLogStore, latency: LatencySamples): void {
    const now = performance.now();
    for (let index = this.flushedUpTo + 1; index <= upTo; index++) {
      const slot = index & this.mask;
      const resolve = this.resolvers[slot]!;
      this.resolvers[slot] = undefined;
      latency.add((now - this.startedAt[slot]!) * 1000);
      resolve();
    }
    this.entries += upTo - this.flushedUpTo;
    this.flushedUpTo = upTo;
    // Half of what is kept at once.
    const { keepEntries, purgedUpTo } = this;
    if (keepEntries === 0 || upTo - purgedUpTo < keepEntries * 1.5) return;
    this.purgedUpTo = upTo - keepEntries;
    store.purge(this.group, { term: TERM, index: this.purgedUpTo });
  }
}

/** The writers, each of them with its group. */
class Load {
  store!: WalLogStore;
  running = false;
  latency = new LatencySamples();
  private readonly groups: readonly GroupLoad[];
  private readonly byId: Map<number, GroupLoad> = new Map();
  /** All are the same bytes, so any of them will do. */
  private readonly payloads: readonly Uint8Array[];
  private resolver: (() => void) | undefined;
  private readonly capture: (resolve: () => void) => void;
  private waiting: GroupLoad[] = [];
  private sequence = 0;
  private failure: Error | undefined;

  constructor({ entrySize, concurrency, keepEntries, groups, lanes }: Options) {
    const payload = new Uint8Array(entrySize).fill(0xa5);
    this.payloads = new Array(MAX_BLOCK_ENTRIES).fill(payload);
    const writers = Math.ceil(concurrency / groups);
    const keep = Math.ceil(keepEntries / groups);
    for (const id of spreadGroups(groups, lanes)) {
      this.byId.set(id, new GroupLoad(id, writers, keep));
    }
    this.groups = [...this.byId.values()];
    this.capture = (resolve) => {
      this.resolver = resolve;
    };
  }

  get entries(): number {
    return this.groups.reduce((sum, group) => sum + group.entries, 0);
  }

  get kept(): number {
    return this.groups.reduce((sum, group) => sum + group.kept, 0);
  }

  reset(): void {
    this.latency = new LatencySamples();
    for (const group of this.groups) group.entries = 0;
  }

  async run(writers: number, forMs: number): Promise<void> {
    this.running = true;
    const { groups } = this;
    const done = Array.from({ length: writers }, (_, at) =>
      this.writer(groups[at % groups.length]!),
    );
    setTimeout(() => {
      this.running = false;
    }, forMs);
    await Promise.all(done);
    if (this.failure !== undefined) throw this.failure;
  }

  flushed(group: number, io: IoId): void {
    this.byId.get(group)!.flushed(io.logId.index, this.store, this.latency);
  }

  failed(error: Error): void {
    this.failure = error;
    this.running = false;
    throw error;
  }

  /** Those that the log has refused go on. */
  writable(): void {
    if (this.waiting.length > 0) systemScheduler.enqueue(this.appendTurn);
  }

  private async writer(group: GroupLoad): Promise<void> {
    while (this.running) await this.write(group);
  }

  private write(group: GroupLoad): Promise<void> {
    const written = new Promise<void>(this.capture);
    if (this.waiting.length === 0) systemScheduler.enqueue(this.appendTurn);
    if (group.waiting === 0) this.waiting.push(group);
    group.add(this.resolver!);
    return written;
  }

  private readonly appendTurn = (): void => {
    const { waiting } = this;
    this.waiting = [];
    for (const group of waiting) {
      const sequence = this.sequence + 1;
      this.sequence += Math.ceil(group.waiting / MAX_BLOCK_ENTRIES);
      try {
        group.append(this.store, this.payloads, sequence);
      } catch (error) {
        if ((error as { code?: string }).code !== 'KEELSON_OVERLOADED') throw error;
        this.waiting.push(group);
      }
    }
  };
}

/** Ids of groups, for each lane in turn. */
function spreadGroups(groups: number, lanes: number): number[] {
  const ids: number[] = [];
  for (const next = new Array<number>(lanes).fill(0); ids.length < groups; ) {
    const lane = ids.length % lanes;
    while (laneOfGroup(next[lane]!, lanes) !== lane) next[lane]!++;
    ids.push(next[lane]!++);
  }
  return ids;
}

export async function run(argv: string[]): Promise<void> {
  const options = parse(argv);
  await withWorkDirectory(options.directory, (directory) => measure(options, directory));
}

/** Until segments are used again, if they will be soon. */
async function warmUp(load: Load, { concurrency, keepEntries }: Options): Promise<void> {
  const until = performance.now() + MAX_WARM_UP_MS;
  do await load.run(concurrency, SLICE_MS);
  while (
    keepEntries > 0 &&
    load.store.metrics().retiredSegments === 0 &&
    performance.now() < until
  );
}

async function measure(options: Options, directory: string): Promise<void> {
  const { entrySize, concurrency, seconds, json, keepEntries, groups, lanes } = options;
  const found = environment(directory);
  printEnvironment(found);
  console.log(
    `log: ${JSON.stringify({ entrySize, concurrency, seconds, keepEntries, groups, ...options.store })}`,
  );
  const peers = options.peers ? await openPeers(join(directory, 'peers')) : [];
  const payloads = new Array<Uint8Array>(concurrency).fill(new Uint8Array(entrySize).fill(0xa5));
  const load = new Load(options);
  const heap = SharedHeap.create({ maximumBytes: 1024 * MIB });
  load.store = await WalLogStore.open(
    { directory, ...options.store },
    {
      heap,
      scheduler: systemScheduler,
      events: load,
      decodeMembership: () => ({ configs: [], learners: [], addresses: {} }),
    },
  );
  const raw = new RawLoop(join(directory, 'raw'));
  const rawFixed = new RawLoop(join(directory, 'raw-fixed'));
  await warmUp(load, options);
  load.reset();
  const before = load.store.metrics();
  let elapsedMs = 0;
  const progress = new Progress(() => `${load.entries.toLocaleString('en')} entries durable`);
  while (elapsedMs < seconds * 1000) {
    const start = performance.now();
    await load.run(concurrency, SLICE_MS);
    elapsedMs += performance.now() - start;
    const flushes = load.store.metrics().flushes - before.flushes;
    raw.run(Math.max(1, Math.round((load.entries / flushes) * entrySize)), SLICE_MS / 2);
    rawFixed.run(RAW_FIXED_BYTES, SLICE_MS / 4);
    for (const peer of peers) await peer.run(payloads, SLICE_MS / 2);
  }
  progress.end();
  const metrics = load.store.metrics();
  const flushes = metrics.flushes - before.flushes;
  await load.store.close();
  raw.close();
  rawFixed.close();
  for (const peer of peers) await peer.close();
  const elapsed = elapsedMs / 1000;
  const bytesPerSecond = Math.round((load.entries * entrySize) / elapsed);
  const rawResult = raw.result();
  const { p50, p99 } = load.latency.summary();
  const latency = { p50, p99 };
  const peerResults = Object.fromEntries(peers.map((peer) => [peer.name, peer.result()]));
  const best = Math.max(...peers.map((peer) => peer.result().entriesPerSecond));
  const result = {
    suite: 'log',
    environment: found,
    entrySize,
    concurrency,
    seconds,
    keepEntries,
    groups,
    lanes,
    retiredSegments: metrics.retiredSegments,
    movedBytes: metrics.movedBytes - before.movedBytes,
    indexBytesPerEntry: Math.round((metrics.indexBytes / load.kept) * 10) / 10,
    entriesPerSecond: Math.round(load.entries / elapsed),
    bytesPerSecond,
    flushesPerSecond: Math.round(flushes / elapsed),
    entriesPerFlush: Math.round((load.entries / flushes) * 10) / 10,
    latency,
    raw: rawResult,
    raw256KiB: rawFixed.result(),
    ratioToRaw: Math.round((bytesPerSecond / rawResult.bytesPerSecond) * 1000) / 1000,
    latencyToRaw: Math.round((latency.p50 / rawResult.latency.p50) * 100) / 100,
    ...(peers.length > 0 && {
      peers: peerResults,
      ratioToBestPeer: Math.round((load.entries / elapsed / best) * 100) / 100,
    }),
  };
  print(result);
  printTargets(targetsOf(result));
  if (json) console.log(JSON.stringify(result));
}

/** Of an entry of the default size; the other sizes and concurrencies have none. */
function targetsOf(result: {
  readonly concurrency: number;
  readonly entrySize: number;
  readonly entriesPerSecond: number;
  readonly ratioToRaw: number;
  readonly latencyToRaw: number;
  readonly ratioToBestPeer?: number;
  readonly groups: number;
}): Target[] {
  if (result.groups !== 1) return [];
  const { concurrency, entrySize, entriesPerSecond, ratioToRaw, latencyToRaw } = result;
  if (entrySize !== 256) return [];
  if (concurrency === 1) return [{ what: 'p50 to raw', value: latencyToRaw, atMost: 3 }];
  const { ratioToBestPeer: value } = result;
  const toPeer = (atLeast: number): Target[] =>
    value === undefined ? [] : [{ what: 'entries/s to the best peer', value, atLeast }];
  if (concurrency === 16) return toPeer(1);
  if (concurrency !== 1024) return [];
  return [
    { what: 'durable entries/s', value: entriesPerSecond, atLeast: 500_000 },
    { what: 'ratio to raw', value: ratioToRaw, atLeast: 0.4 },
    ...toPeer(3),
  ];
}

function print(result: {
  readonly entriesPerSecond: number;
  readonly entriesPerFlush: number;
  readonly flushesPerSecond: number;
  readonly latency: { readonly p50: number; readonly p99: number };
  readonly raw: RawResult;
  readonly raw256KiB: RawResult;
  readonly ratioToRaw: number;
  readonly latencyToRaw: number;
  readonly peers?: Readonly<Record<string, PeerResult>>;
  readonly indexBytesPerEntry: number;
}): void {
  const { latency, raw, raw256KiB, peers = {} } = result;
  const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB/s`;
  console.log(
    `store  ${result.entriesPerSecond} entries/s, ${result.flushesPerSecond} flushes/s of ` +
      `${result.entriesPerFlush} entries, p50 ${latency.p50} µs, p99 ${latency.p99} µs`,
  );
  for (const [name, loop] of [
    ['raw', raw],
    ['raw of 256 KiB', raw256KiB],
  ] as const) {
    console.log(
      `${name}  ${loop.flushesPerSecond} writes/s of ${loop.bytesPerFlush} bytes, ` +
        `${mib(loop.bytesPerSecond)}, p50 ${loop.latency.p50} µs, p99 ${loop.latency.p99} µs`,
    );
  }
  for (const [name, peer] of Object.entries(peers)) {
    console.log(
      `${name} ${peer.version} ${peer.options}  ${peer.entriesPerSecond} entries/s, ` +
        `${peer.transactionsPerSecond} transactions/s, p50 ${peer.latency.p50} µs, p99 ${peer.latency.p99} µs`,
    );
  }
  console.log(`index  ${result.indexBytesPerEntry} bytes in memory for each entry kept`);
  console.log(`store to raw: ${result.ratioToRaw} of its bytes, ${result.latencyToRaw} × its p50`);
}

function parse(argv: string[]): Options {
  const { values } = parseArgs({
    args: argv,
    options: {
      'entry-size': { type: 'string', default: '256' },
      concurrency: { type: 'string', default: '1024' },
      seconds: { type: 'string', default: '5' },
      directory: { type: 'string', default: 'data' },
      'segment-bytes': { type: 'string', default: String(64 * MIB) },
      'max-queued-batches': { type: 'string', default: '2' },
      'max-batch-entries': { type: 'string', default: '65536' },
      'linger-micros': { type: 'string', default: '0' },
      'keep-entries': { type: 'string', default: '100000' },
      lanes: { type: 'string', default: '1' },
      groups: { type: 'string' },
      'direct-io': { type: 'string', default: 'auto' },
      peers: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const directIo = values['direct-io'];
  if (directIo !== 'auto' && directIo !== 'off') {
    throw new RangeError(`--direct-io must be auto or off, not ${directIo}`);
  }
  const lanes = integerOption('lanes', values.lanes, 1, MAX_LANES);
  const segmentBytes = integerOption('segment-bytes', values['segment-bytes'], MIB, 1024 * MIB);
  return {
    entrySize: integerOption('entry-size', values['entry-size'], 0, MIB),
    concurrency: integerOption('concurrency', values.concurrency, 1, MAX_WRITERS),
    seconds: numberOption('seconds', values.seconds, 0.1, 3600),
    directory: resolve(values.directory),
    json: values.json,
    peers: values.peers,
    // Fewer would leave a lane without any.
    groups: integerOption('groups', values.groups ?? String(lanes), lanes, MAX_GROUPS),
    lanes,
    keepEntries: integerOption('keep-entries', values['keep-entries'], 0, 1e9),
    store: {
      lanes,
      segmentBytes,
      ringBytes: 64 * MIB,
      maxBatchBytes: Math.min(4 * MIB, segmentBytes / 4),
      maxBatchEntries: integerOption('max-batch-entries', values['max-batch-entries'], 1, 1 << 20),
      maxQueuedBatches: integerOption('max-queued-batches', values['max-queued-batches'], 1, 16),
      lingerMicros: integerOption('linger-micros', values['linger-micros'], 0, 1e6),
      recovery: 'torn-tail',
      directIo,
    },
  };
}
