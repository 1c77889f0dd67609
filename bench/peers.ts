/**
 * Other stores as a log, for the suites `log` and `scan`: ordered key-value stores of npm that make a transaction durable.
 * Each appends entries under ascending keys, one transaction for all writers that wait, and syncs it before
 * any of them goes on. They are never purged, which is in their favour.
 *
 * They are no dependencies of the project: the suite asks for them when they are not installed.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { LatencySamples } from './latency.js';

/** What is known to work together with Node 20. */
const VERSIONS = { lmdb: '3.4.4', 'classic-level': '3.0.0', 'better-sqlite3': '12.11.1' } as const;

export interface PeerResult {
  readonly version: string;
  /** How it was opened. */
  readonly options: string;
  readonly entriesPerSecond: number;
  readonly transactionsPerSecond: number;
  readonly latency: { readonly p50: number; readonly p99: number };
}

/** One of the stores, open. */
export interface PeerLog {
  /** How it was opened. */
  readonly options: string;
  /** Durable on return. */
  append(firstKey: number, payloads: readonly Uint8Array[]): void | Promise<void>;
  /** The payloads of so many entries, one after the other; answers how many bytes they have. */
  read(firstKey: number, count: number): number | Promise<number>;
  close(): void | Promise<void>;
}

export class Peer {
  readonly name: string;
  readonly version: string;
  readonly log: PeerLog;
  private readonly latency = new LatencySamples();
  private entries = 0;
  private transactions = 0;
  private elapsedMs = 0;

  constructor(name: string, version: string, log: PeerLog) {
    this.name = name;
    this.version = version;
    this.log = log;
  }

  /** `payloads`: one for each writer; all of them wait for the same transaction. */
  async run(payloads: readonly Uint8Array[], forMs: number): Promise<void> {
    const start = performance.now();
    let before = start;
    while (before - start < forMs) {
      await this.log.append(this.entries, payloads);
      const after = performance.now();
      this.latency.add((after - before) * 1000);
      this.entries += payloads.length;
      this.transactions++;
      before = after;
    }
    this.elapsedMs += before - start;
  }

  result(): PeerResult {
    const seconds = this.elapsedMs / 1000;
    const { p50, p99 } = this.latency.summary();
    return {
      version: this.version,
      options: this.log.options,
      entriesPerSecond: Math.round(this.entries / seconds),
      transactionsPerSecond: Math.round(this.transactions / seconds),
      latency: { p50, p99 },
    };
  }

  close(): void | Promise<void> {
    return this.log.close();
  }
}

/** @throws RangeError when one is not installed */
export async function openPeers(directory: string): Promise<Peer[]> {
  const openers = { lmdb: openLmdb, 'classic-level': openLevel, 'better-sqlite3': openSqlite };
  const peers: Peer[] = [];
  for (const [name, open] of Object.entries(openers)) {
    const folder = join(directory, name);
    mkdirSync(folder, { recursive: true });
    try {
      const { module, version } = await load(name);
      peers.push(new Peer(name, version, await open(module, folder)));
    } catch (error) {
      for (const peer of peers) await peer.close();
      throw notInstalled(name, error);
    }
  }
  return peers;
}

async function load(name: string): Promise<{ module: Module; version: string }> {
  const module = (await import(name)) as Module;
  let folder = dirname(createRequire(import.meta.url).resolve(name));
  for (;;) {
    try {
      const found = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      if (found.name === name) return { module, version: found.version };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    folder = dirname(folder);
  }
}

function notInstalled(name: string, cause: unknown): RangeError {
  const wanted = Object.entries(VERSIONS).map(([peer, version]) => `${peer}@${version}`);
  const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
  return new RangeError(
    `--peers wants stores that are no dependencies of this project, and ${name} cannot be loaded: ` +
      `${reason}\ninstall them with: npm install --no-save ${wanted.join(' ')}`,
    { cause },
  );
}

/** What is used of the modules, which are not there to be compiled against. */
// biome-ignore lint/suspicious/noExplicitAny: the types are those of packages that may not be installed
type Module = any;

function openLmdb(module: Module, path: string): PeerLog {
  const options = { noSync: false, noMetaSync: false, overlappingSync: false };
  const db = module.open({ path, ...options, encoding: 'binary', keyEncoding: 'uint32' });
  return {
    options: JSON.stringify(options),
    append(firstKey, payloads) {
      db.transactionSync(() => {
        for (let at = 0; at < payloads.length; at++) db.putSync(firstKey + at, payloads[at]);
      });
    },
    read(firstKey, count) {
      let bytes = 0;
      for (const { value } of db.getRange({ start: firstKey, limit: count })) bytes += value.length;
      return bytes;
    },
    close: () => db.close(),
  };
}

async function openLevel(module: Module, path: string): Promise<PeerLog> {
  const db = new module.ClassicLevel(path, { keyEncoding: 'view', valueEncoding: 'view' });
  await db.open();
  const keyOf = (key: number): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(key));
    return bytes;
  };
  return {
    options: '{"sync":true}',
    append(firstKey, payloads) {
      const operations = payloads.map((value, at) => {
        return { type: 'put', key: keyOf(firstKey + at), value };
      });
      return db.batch(operations, { sync: true });
    },
    async read(firstKey, count) {
      let bytes = 0;
      for (const value of await db.values({ gte: keyOf(firstKey), limit: count }).all()) {
        bytes += value.length;
      }
      return bytes;
    },
    close: () => db.close(),
  };
}

function openSqlite(module: Module, path: string): PeerLog {
  const db = new module.default(join(path, 'log.sqlite'));
  const journal = db.pragma('journal_mode = WAL', { simple: true });
  db.pragma('synchronous = FULL');
  const synchronous = db.pragma('synchronous', { simple: true });
  db.exec('create table log (id integer primary key, payload blob not null)');
  const insert = db.prepare('insert into log (id, payload) values (?, ?)');
  const select = db.prepare('select payload from log where id >= ? order by id limit ?').pluck();
  const append = db.transaction((firstKey: number, payloads: readonly Uint8Array[]) => {
    for (let at = 0; at < payloads.length; at++) insert.run(firstKey + at, payloads[at]);
  });
  return {
    options: JSON.stringify({ journal_mode: journal, synchronous }),
    append: (firstKey, payloads) => append(firstKey, payloads),
    read(firstKey, count) {
      let bytes = 0;
      for (const payload of select.iterate(firstKey, count)) bytes += payload.length;
      return bytes;
    },
    close: () => db.close(),
  };
}
