/** What the tests of the write-ahead log share: a store, its I/O ids, and a wait for durability. */
import type { KeelsonError } from '../../dist/base/errors.js';
import type { Logger } from '../../dist/base/logger.js';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { type IoId, type LogId, NO_LOG_ID, type Vote } from '../../dist/engine/types.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import type { SealCommand } from '../../dist/storage/lane-writer.js';
import type { EntriesLease } from '../../dist/storage/log-store.js';
import type { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { StorageExecutor } from '../../dist/storage/storage-executor.js';
import type { StorageTask } from '../../dist/storage/storage-tasks.js';
import { WalLogStore, type WalLogStoreOptions } from '../../dist/storage/wal-log-store.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';

export const MIB = 1024 * 1024;
export const DIRECTORY = '/data';
export const FIRST_SEGMENT = '/data/wal/lane-0-0000000001.wal';

export function segmentFile(sequence: number, lane = 0): string {
  return `/data/wal/lane-${lane}-${String(sequence).padStart(10, '0')}.wal`;
}

export function vote(term: number, nodeId = 1, committed = true): Vote {
  return { term, nodeId, committed };
}

export interface Opened {
  readonly store: WalLogStore;
  readonly log: TestLog;
}

export interface OpenOptions extends Partial<WalLogStoreOptions> {
  readonly heap?: SharedHeap;
  readonly logger?: Logger;
  readonly executor?: (heap: SharedHeap, scheduler: SystemScheduler) => StorageExecutor;
}

/** Opens a store inline over `disk`, or with the executor that the options make. */
export async function openLog(disk: MemoryDisk, options: OpenOptions = {}): Promise<TestLog> {
  const { heap: given, executor, logger, ...rest } = options;
  const heap = given ?? SharedHeap.create({ maximumBytes: 256 * MIB });
  const scheduler = new SystemScheduler();
  const log = new TestLog();
  log.store = await WalLogStore.open(
    {
      directory: DIRECTORY,
      segmentBytes: MIB,
      ringBytes: MIB,
      maxBatchBytes: 256 * 1024,
      maxBatchEntries: 1024,
      maxQueuedBatches: 2,
      lingerMicros: 0,
      recovery: 'torn-tail',
      directIo: 'auto',
      ...rest,
    },
    {
      heap,
      scheduler,
      events: log,
      decodeMembership: (payload) => JSON.parse(new TextDecoder().decode(payload)),
      executor: executor?.(heap, scheduler) ?? new InlineExecutor(heap, disk, scheduler),
      ...(logger === undefined ? {} : { logger }),
    },
  );
  log.lastIndex = log.store.recovered(0).lastIndex;
  log.purged = log.store.recovered(0).purged;
  return log;
}

export type Intercept = (task: StorageTask, proceed: () => Promise<unknown>) => Promise<unknown>;

/** An inline executor whose tasks pass through `intercept`. */
export function intercepted(disk: MemoryDisk, intercept: Intercept): OpenOptions['executor'] {
  return (heap, scheduler) => {
    const executor = new InlineExecutor(heap, disk, scheduler);
    const run = executor.run.bind(executor);
    const through = (task: StorageTask): Promise<unknown> => intercept(task, () => run(task));
    return Object.assign(executor, { run: through as typeof executor.run });
  };
}

/** An executor that reads and writes when the test says so, and what it holds back. */
export interface GatedExecutor {
  readonly executor: OpenOptions['executor'];
  holdReads: boolean;
  holdWrites: boolean;
  readonly reads: (() => void)[];
  readonly writes: (() => void)[];
}

export function gated(disk: MemoryDisk): GatedExecutor {
  const gate: GatedExecutor = {
    holdReads: false,
    holdWrites: false,
    reads: [],
    writes: [],
    executor: (heap, scheduler) => {
      const executor = new InlineExecutor(heap, disk, scheduler);
      const run = executor.run.bind(executor);
      const submit = executor.submit.bind(executor);
      const held = async (task: StorageTask): Promise<unknown> => {
        if (gate.holdReads && isRead(task)) {
          await new Promise<void>((resolve) => gate.reads.push(resolve));
        }
        return run(task);
      };
      return Object.assign(executor, {
        run: held as typeof executor.run,
        submit: (lane: number, command: SealCommand): void => {
          if (gate.holdWrites) gate.writes.push(() => submit(lane, command));
          else submit(lane, command);
        },
      });
    },
  };
  return gate;
}

function isRead({ type }: StorageTask): boolean {
  return type === 'read' || type === 'gather';
}

/** A store with the bookkeeping that a runtime would do, for several groups. */
export class TestLog {
  store!: WalLogStore;
  lastIndex = 0;
  /** Of the entry before the first one kept in group 0. */
  purged: LogId = NO_LOG_ID;
  failure: KeelsonError | undefined;
  writableCalls = 0;
  readonly flushedIos: { group: number; io: IoId }[] = [];
  private sequence = 0;
  private readonly waiters: { group: number; sequence: number; resolve: () => void }[] = [];
  private readonly writableWaiters: (() => void)[] = [];
  private readonly failureWaiters: ((error: KeelsonError) => void)[] = [];

  flushed(group: number, io: IoId): void {
    this.flushedIos.push({ group, io });
    for (const waiter of [...this.waiters]) {
      if (waiter.group !== group || waiter.sequence > io.sequence) continue;
      this.waiters.splice(this.waiters.indexOf(waiter), 1);
      waiter.resolve();
    }
  }

  failed(error: KeelsonError): void {
    this.failure = error;
    for (const resolve of this.failureWaiters) resolve(error);
  }

  writable(): void {
    this.writableCalls++;
    for (const resolve of this.writableWaiters.splice(0)) resolve();
  }

  nextIo(term: number, index: number, by: Vote = vote(term)): IoId {
    this.sequence++;
    return { sequence: this.sequence, vote: by, logId: { term, index } };
  }

  /** Stages and appends; returns the I/O. */
  append(
    payloads: readonly Uint8Array[],
    term = 1,
    group = 0,
    firstIndex = this.lastIndex + 1,
    kind: number = ENTRY_KIND.application,
  ): IoId {
    const staged = this.store.stage(group, {
      firstIndex,
      term,
      time: 1_000 + firstIndex,
      kind,
      payloads,
      count: payloads.length,
    });
    this.lastIndex = firstIndex + payloads.length - 1;
    const io = this.nextIo(term, this.lastIndex);
    this.store.append(group, staged, firstIndex, io);
    return io;
  }

  /** Appends as soon as the store takes it. */
  async appendInTime(
    payloads: readonly Uint8Array[],
    term = 1,
    group = 0,
    firstIndex: number = this.lastIndex + 1,
  ): Promise<IoId> {
    for (;;) {
      const before = this.writableCalls;
      try {
        return this.append(payloads, term, group, firstIndex);
      } catch (error) {
        if ((error as KeelsonError).code !== 'KEELSON_OVERLOADED') throw error;
      }
      await this.writableAfter(before);
    }
  }

  /** The same, and waits until it is durable. */
  async write(
    payloads: readonly Uint8Array[],
    term: number,
    group: number,
    firstIndex: number,
  ): Promise<void> {
    await this.durable(await this.appendInTime(payloads, term, group, firstIndex), group);
  }

  /** The same behind the end of group 0. */
  writeNext(payloads: readonly Uint8Array[]): Promise<void> {
    return this.write(payloads, 1, 0, this.lastIndex + 1);
  }

  writableAfter(calls: number): Promise<void> {
    if (this.writableCalls > calls) return Promise.resolve();
    return new Promise((resolve) => this.writableWaiters.push(resolve));
  }

  saveVote(by: Vote, group = 0): IoId {
    const io = this.nextIo(by.term, this.lastIndex, by);
    this.store.saveVote(group, io);
    return io;
  }

  truncateAfter(index: number, by: Vote = vote(1), group = 0): IoId {
    const io = this.nextIo(by.term, index, by);
    this.store.truncateAfter(group, index, io);
    this.lastIndex = index;
    return io;
  }

  purge(index: number, term = 1): void {
    this.purged = { index, term };
    this.store.purge(0, this.purged);
  }

  durable(io: IoId, group = 0): Promise<void> {
    if (this.flushedIos.some((done) => done.group === group && done.io.sequence >= io.sequence)) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.waiters.push({ group, sequence: io.sequence, resolve });
    });
  }

  nextFailure(): Promise<KeelsonError> {
    if (this.failure !== undefined) return Promise.resolve(this.failure);
    return new Promise((resolve) => this.failureWaiters.push(resolve));
  }

  /** All payloads from `firstIndex` to the end, as text. */
  async contents(group = 0, firstIndex = 1, maxBytes = 64 * 1024): Promise<string[]> {
    const found: string[] = [];
    const last = group === 0 ? this.lastIndex : this.store.recovered(group).lastIndex;
    for (let next = firstIndex; next <= last; ) {
      const lease = await this.store.read(group, next, last, maxBytes);
      for (const entry of entriesOf(lease)) found.push(new TextDecoder().decode(entry.payload));
      next = lease.lastIndex + 1;
      lease.release();
    }
    return found;
  }
}

export interface FoundEntry {
  readonly index: number;
  readonly term: number;
  readonly payload: Uint8Array;
}

/** Walks the blocks of a lease; every part must be whole blocks. */
export function entriesOf(lease: EntriesLease): FoundEntry[] {
  const entries: FoundEntry[] = [];
  for (const part of lease.parts) {
    const bytes = new Uint8Array(part);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < bytes.length; ) {
      const items = view.getUint32(at + BLOCK.offset.items, true);
      let payload = at + BLOCK.bytes + items * ITEM.bytes;
      for (let item = 0; item < items; item++) {
        const pointer = at + BLOCK.bytes + item * ITEM.bytes;
        const length = view.getUint32(pointer + ITEM.offset.length, true);
        entries.push({
          index: Number(view.getBigUint64(pointer + ITEM.offset.index, true)),
          term: Number(view.getBigUint64(pointer + ITEM.offset.term, true)),
          payload: bytes.subarray(payload, payload + length),
        });
        payload += length;
      }
      at = payload;
    }
  }
  return entries;
}

export function texts(count: number, prefix = 'entry', from = 1): Uint8Array[] {
  const encoder = new TextEncoder();
  return Array.from({ length: count }, (_, at) => encoder.encode(`${prefix}-${from + at}`));
}
