/**
 * How long a log takes to open: `--bytes` of entries are written and closed in order, then the store is opened
 * again and again. Beside each opening, in turn, a bare sequential read of the same files.
 *
 * Warm: the files are in the page cache. Cold: the cache is dropped before, which only root may do, on Linux;
 * elsewhere that part is left out. What opening costs beside the reading, to start threads and to make the
 * first segment of the new run, is told apart.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, fstatSync, openSync, readdirSync, readSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { systemScheduler } from '../dist/base/system-scheduler.js';
import type {
  BatchPlace,
  LaneStart,
  LaneWriterOptions,
  SealCommand,
} from '../dist/storage/lane-writer.js';
import { PiscinaExecutor } from '../dist/storage/piscina-executor.js';
import type { LaneEvents, StorageExecutor } from '../dist/storage/storage-executor.js';
import type { StorageTask, StorageTaskResult } from '../dist/storage/storage-tasks.js';
import type { SharedHeap } from '../dist/wasm/shared-heap.js';
import { environment, printEnvironment } from './environment.js';
import { bytesOption, integerOption } from './options.js';
import { printTargets } from './target.js';
import { withWorkDirectory } from './work-directory.js';
import { STORE_OPTIONS, WrittenLog } from './written-log.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const READ_BYTES = MIB;
const DROP_CACHES = '/proc/sys/vm/drop_caches';

interface Options {
  readonly bytes: number;
  readonly entrySize: number;
  readonly rounds: number;
  readonly directory: string;
  readonly json: boolean;
}

/** The threads of a store, and the time that goes into what is no reading. */
class TimedExecutor implements StorageExecutor {
  threadsMs = 0;
  firstSegmentMs = 0;
  private readonly executor: PiscinaExecutor;

  constructor(heap: SharedHeap) {
    this.executor = new PiscinaExecutor(heap, systemScheduler);
  }

  async open(lanes: number): Promise<void> {
    const start = performance.now();
    await this.executor.open(lanes);
    this.threadsMs = performance.now() - start;
  }

  run<T extends StorageTask>(task: T): Promise<StorageTaskResult<T>> {
    return this.executor.run(task);
  }

  async startLane(
    options: LaneWriterOptions,
    start: LaneStart,
    events: LaneEvents,
  ): Promise<BatchPlace | undefined> {
    const before = performance.now();
    const place = await this.executor.startLane(options, start, events);
    this.firstSegmentMs = performance.now() - before;
    return place;
  }

  submit(lane: number, command: SealCommand): void {
    this.executor.submit(lane, command);
  }

  stopLanes(): Promise<void> {
    return this.executor.stopLanes();
  }

  close(untilMs: number): Promise<void> {
    return this.executor.close(untilMs);
  }
}

interface Opening {
  readonly openMs: number;
  readonly threadsMs: number;
  readonly firstSegmentMs: number;
  /** What is left: reading, verifying and indexing. */
  readonly recoveryMs: number;
}

class Log {
  private readonly options: Options;
  private readonly directory: string;

  constructor(options: Options, directory: string) {
    this.options = options;
    this.directory = directory;
  }

  /** Returns how many entries were written. */
  async write(): Promise<number> {
    const { bytes, entrySize } = this.options;
    const entries = Math.ceil(bytes / entrySize);
    const log = await WrittenLog.open(this.directory);
    await log.write(entries, entrySize);
    await log.store.close();
    return entries;
  }

  async openAndClose(entries: number): Promise<Opening> {
    const start = performance.now();
    let executor: TimedExecutor | undefined;
    const { store } = await WrittenLog.open(this.directory, (heap) => {
      executor = new TimedExecutor(heap);
      return executor;
    });
    const openMs = performance.now() - start;
    const { lastIndex } = store.recovered(0);
    await store.close();
    if (lastIndex !== entries) throw new Error(`${lastIndex} of ${entries} entries were found`);
    const { threadsMs, firstSegmentMs } = executor!;
    return { openMs, threadsMs, firstSegmentMs, recoveryMs: openMs - threadsMs - firstSegmentMs };
  }
}

/** The segments, front to back. */
function readFiles(folder: string): { readonly ms: number; readonly bytes: number } {
  const buffer = new Uint8Array(READ_BYTES);
  const start = performance.now();
  let bytes = 0;
  for (const name of readdirSync(folder).filter((each) => each.endsWith('.wal'))) {
    const file = openSync(join(folder, name), 'r');
    const { size } = fstatSync(file);
    for (let at = 0; at < size; ) at += readSync(file, buffer, 0, READ_BYTES, at);
    closeSync(file);
    bytes += size;
  }
  return { ms: performance.now() - start, bytes };
}

/** False where that is not allowed. */
function dropCache(): boolean {
  try {
    execFileSync('sync');
    writeFileSync(DROP_CACHES, '3');
    return true;
  } catch {
    return false;
  }
}

interface Side {
  readonly open: Opening;
  readonly read: { readonly ms: number; readonly bytesPerSecond: number };
  readonly bytesPerSecond: number;
  readonly ratioToRead: number;
}

/** The fastest of several rounds, on both sides. */
async function measureSide(
  log: Log,
  folder: string,
  { rounds }: Options,
  entries: number,
  before: () => void,
): Promise<Side> {
  let open: Opening | undefined;
  let readMs = Number.POSITIVE_INFINITY;
  let bytes = 0;
  for (let round = 0; round < rounds; round++) {
    before();
    const read = readFiles(folder);
    readMs = Math.min(readMs, read.ms);
    bytes = read.bytes;
    before();
    const found = await log.openAndClose(entries);
    if (open === undefined || found.recoveryMs < open.recoveryMs) open = found;
  }
  const perSecond = (ms: number): number => Math.round((bytes / ms) * 1000);
  return {
    open: rounded(open!),
    read: { ms: Math.round(readMs), bytesPerSecond: perSecond(readMs) },
    bytesPerSecond: perSecond(open!.recoveryMs),
    ratioToRead: Math.round((readMs / open!.recoveryMs) * 1000) / 1000,
  };
}

function rounded(opening: Opening): Opening {
  const { openMs, threadsMs, firstSegmentMs, recoveryMs } = opening;
  return {
    openMs: Math.round(openMs),
    threadsMs: Math.round(threadsMs),
    firstSegmentMs: Math.round(firstSegmentMs),
    recoveryMs: Math.round(recoveryMs),
  };
}

export async function run(argv: string[]): Promise<void> {
  const options = parse(argv);
  await withWorkDirectory(options.directory, (directory) => measure(options, directory));
}

async function measure(options: Options, directory: string): Promise<void> {
  const { bytes, entrySize, rounds, json } = options;
  const found = environment(directory);
  printEnvironment(found);
  console.log(`recovery: ${JSON.stringify({ bytes, entrySize, rounds, ...STORE_OPTIONS })}`);
  const log = new Log(options, directory);
  const folder = join(directory, 'wal');
  const entries = await log.write();
  readFiles(folder);
  const warm = await measureSide(log, folder, options, entries, () => {});
  print('warm', warm);
  const cold = dropCache()
    ? await measureSide(log, folder, options, entries, () => void dropCache())
    : undefined;
  if (cold === undefined) console.log('cold  not measured: the page cache cannot be dropped here');
  else print('cold', cold);
  const result = { suite: 'recovery', environment: found, bytes, entrySize, entries, warm, cold };
  const target = { what: 'warm, to a bare read', value: warm.ratioToRead, atLeast: 0.5 };
  printTargets(bytes >= GIB && entrySize === 256 ? [target] : []);
  if (json) console.log(JSON.stringify(result));
}

function print(name: string, { open, read, bytesPerSecond, ratioToRead }: Side): void {
  const gb = (perSecond: number): string => `${(perSecond / 1e9).toFixed(2)} GB/s`;
  console.log(
    `${name}  open ${open.openMs} ms: threads ${open.threadsMs}, recovery ${open.recoveryMs}, ` +
      `first segment ${open.firstSegmentMs}; recovery ${gb(bytesPerSecond)}, ` +
      `bare read ${read.ms} ms, ${gb(read.bytesPerSecond)}; ratio ${ratioToRead}`,
  );
}

function parse(argv: string[]): Options {
  const { values } = parseArgs({
    args: argv,
    options: {
      bytes: { type: 'string', default: '1g' },
      'entry-size': { type: 'string', default: '256' },
      rounds: { type: 'string', default: '3' },
      directory: { type: 'string', default: 'data' },
      json: { type: 'boolean', default: false },
    },
  });
  return {
    bytes: bytesOption('bytes', values.bytes, MIB, 64 * GIB),
    entrySize: integerOption('entry-size', values['entry-size'], 1, MIB),
    rounds: integerOption('rounds', values.rounds, 1, 100),
    directory: resolve(values.directory),
    json: values.json,
  };
}
