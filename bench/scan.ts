/**
 * Reading a log in ranges, as a leader does for a follower: from the cache in memory, for one that is close
 * behind, and from segments, for one that is far behind. What comes out are verified bytes, and copied
 * once, as a socket does. With `--peers` the same entries are read from other stores, in ranges of as many.
 *
 * All stores read in turn in the same run, one range after the other, and from the page cache.
 */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { EntriesLease } from '../dist/storage/log-store.js';
import { ITEM } from '../dist/wasm/layout.js';
import { environment, printEnvironment } from './environment.js';
import { bytesOption, integerOption, numberOption } from './options.js';
import { openPeers, type Peer } from './peers.js';
import { Progress } from './progress.js';
import { printTargets } from './target.js';
import { withWorkDirectory } from './work-directory.js';
import { STORE_OPTIONS, WrittenLog } from './written-log.js';

const MIB = 1024 * 1024;
const SLICE_MS = 250;
const FILL_ENTRIES = 4096;

interface Options {
  readonly entries: number;
  readonly entrySize: number;
  readonly rangeBytes: number;
  readonly seconds: number;
  readonly peers: boolean;
  readonly directory: string;
  readonly json: boolean;
}

interface Rate {
  readonly entriesPerSecond: number;
  /** Of payloads. */
  readonly bytesPerSecond: number;
}

/** Ranges that follow one another, and begin again when all was read. */
class Ranges {
  entries = 0;
  private bytes = 0;
  private elapsedMs = 0;
  private next: number;
  private readonly first: number;
  private readonly last: number;
  private readonly entrySize: number;
  /** Reads a range; answers how many entries it has got. */
  private readonly read: (first: number, last: number) => number | Promise<number>;

  constructor(
    first: number,
    last: number,
    entrySize: number,
    read: (first: number, last: number) => number | Promise<number>,
  ) {
    this.first = first;
    this.last = last;
    this.entrySize = entrySize;
    this.next = first;
    this.read = read;
  }

  async run(forMs: number): Promise<void> {
    const start = performance.now();
    let elapsed = 0;
    while (elapsed < forMs) {
      const read = this.read(this.next, this.last);
      const entries = typeof read === 'number' ? read : await read;
      this.entries += entries;
      this.bytes += entries * this.entrySize;
      this.next += entries;
      if (this.next > this.last) this.next = this.first;
      elapsed = performance.now() - start;
    }
    this.elapsedMs += elapsed;
  }

  rate(): Rate {
    const perSecond = (count: number): number => Math.round((count / this.elapsedMs) * 1000);
    return { entriesPerSecond: perSecond(this.entries), bytesPerSecond: perSecond(this.bytes) };
  }
}

export async function run(argv: string[]): Promise<void> {
  const options = parse(argv);
  await withWorkDirectory(options.directory, (directory) => measure(options, directory));
}

async function measure(options: Options, directory: string): Promise<void> {
  const { entries, entrySize, rangeBytes, seconds, json } = options;
  const found = environment(directory);
  printEnvironment(found);
  console.log(
    `scan: ${JSON.stringify({ entries, entrySize, rangeBytes, seconds, ...STORE_OPTIONS })}`,
  );
  const log = await WrittenLog.open(join(directory, 'log'));
  await log.write(entries, entrySize);
  const peers = options.peers ? await filledPeers(options, join(directory, 'peers')) : [];
  const { store } = log;
  const target = new Uint8Array(rangeBytes + MIB);
  const take = (lease: EntriesLease): number => {
    let at = 0;
    for (const part of lease.parts) {
      target.set(part, at);
      at += part.length;
    }
    const count = lease.lastIndex - lease.firstIndex + 1;
    lease.release();
    return count;
  };
  const read = (first: number, last: number): number | Promise<number> => {
    const lease = store.read(0, first, last, rangeBytes);
    return lease instanceof Promise ? lease.then(take) : take(lease);
  };
  const rangeEntries = Math.max(1, entriesOf(rangeBytes, entrySize));
  const cached = entriesOf(STORE_OPTIONS.ringBytes / 4, entrySize);
  const beyond = entriesOf(2 * STORE_OPTIONS.ringBytes, entrySize);
  const cache = new Ranges(entries - cached, entries, entrySize, read);
  const segments = new Ranges(1, entries - beyond, entrySize, read);
  const ofPeers = peers.map((peer) => {
    const readPeer = (first: number): number | Promise<number> => {
      const bytes = peer.log.read(first - 1, Math.min(rangeEntries, entries - first + 1));
      return typeof bytes === 'number' ? bytes / entrySize : bytes.then((all) => all / entrySize);
    };
    return { peer, ranges: new Ranges(1, entries, entrySize, readPeer) };
  });
  const all = [cache, segments, ...ofPeers.map(({ ranges }) => ranges)];
  const progress = new Progress(
    () => `${segments.entries.toLocaleString('en')} entries read from segments`,
  );
  const misses: number[] = [];
  for (let measured = 0; measured < seconds * 1000; measured += SLICE_MS) {
    for (const ranges of all) {
      const before = store.metrics().cacheMisses;
      await ranges.run(SLICE_MS);
      if (ranges === cache) misses.push(store.metrics().cacheMisses - before);
    }
  }
  progress.end();
  await store.close();
  for (const { peer } of ofPeers) await peer.close();
  if (misses.some((count) => count > 0)) throw new Error('entries that were to be cached were not');
  const fromSegments = segments.rate();
  const peerRates = ofPeers.map(({ peer, ranges }) => {
    return [
      peer.name,
      { version: peer.version, options: peer.log.options, ...ranges.rate() },
    ] as const;
  });
  const best = Math.max(...peerRates.map(([, rate]) => rate.entriesPerSecond));
  const ratio = Math.round((fromSegments.entriesPerSecond / best) * 100) / 100;
  const result = {
    suite: 'scan',
    environment: found,
    ...{ entries, entrySize, rangeBytes, rangeEntries, seconds },
    cache: cache.rate(),
    segments: fromSegments,
    ...(peers.length > 0 && { peers: Object.fromEntries(peerRates), ratioToBestPeer: ratio }),
  };
  print('from the cache', result.cache);
  print('from segments', result.segments);
  for (const [name, rate] of peerRates) print(`${name} ${rate.version} ${rate.options}`, rate);
  const wanted = { what: 'entries/s from segments to the best peer', value: ratio, atLeast: 3 };
  printTargets(peers.length > 0 && entrySize === 256 ? [wanted] : []);
  if (json) console.log(JSON.stringify(result));
}

function entriesOf(bytes: number, entrySize: number): number {
  return Math.floor(bytes / (ITEM.bytes + entrySize));
}

async function filledPeers({ entries, entrySize }: Options, directory: string): Promise<Peer[]> {
  const peers = await openPeers(directory);
  const payloads = new Array<Uint8Array>(FILL_ENTRIES).fill(new Uint8Array(entrySize).fill(0xa5));
  let written = 0;
  const progress = new Progress(
    () => `${written.toLocaleString('en')} entries in the other stores`,
  );
  for (; written < entries; written += FILL_ENTRIES) {
    const some = payloads.slice(0, Math.min(FILL_ENTRIES, entries - written));
    for (const peer of peers) await peer.log.append(written, some);
  }
  progress.end();
  return peers;
}

function print(name: string, { entriesPerSecond, bytesPerSecond }: Rate): void {
  const perSecond = entriesPerSecond.toLocaleString('en');
  console.log(
    `${name}  ${perSecond} entries/s, ${(bytesPerSecond / 1e9).toFixed(2)} GB/s of payloads`,
  );
}

function parse(argv: string[]): Options {
  const { values } = parseArgs({
    args: argv,
    options: {
      entries: { type: 'string', default: '2000000' },
      'entry-size': { type: 'string', default: '256' },
      'range-bytes': { type: 'string', default: '1m' },
      seconds: { type: 'string', default: '3' },
      peers: { type: 'boolean', default: false },
      directory: { type: 'string', default: 'data' },
      json: { type: 'boolean', default: false },
    },
  });
  const entrySize = integerOption('entry-size', values['entry-size'], 1, MIB);
  // As many beyond the cache as in it, and some that are neither.
  const least = entriesOf(4 * STORE_OPTIONS.ringBytes, entrySize);
  return {
    entries: integerOption('entries', values.entries, least, 1e8),
    entrySize,
    rangeBytes: bytesOption('range-bytes', values['range-bytes'], 1024, 16 * MIB),
    seconds: numberOption('seconds', values.seconds, 0.1, 3600),
    peers: values.peers,
    directory: resolve(values.directory),
    json: values.json,
  };
}
