/**
 * A log on disk that a suite writes once and then reads: `write` fills it in batches, as fast as the disk
 * takes them.
 */
import { systemScheduler } from '../dist/base/system-scheduler.js';
import type { IoId } from '../dist/engine/types.js';
import type { StorageExecutor } from '../dist/storage/storage-executor.js';
import { WalLogStore, type WalLogStoreOptions } from '../dist/storage/wal-log-store.js';
import { ENTRY_KIND } from '../dist/wasm/layout.js';
import { SharedHeap } from '../dist/wasm/shared-heap.js';
import { Progress } from './progress.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const BLOCK_ENTRIES = 512;
/** Bytes that are on their way to the disk while the log is written. */
const AHEAD_BYTES = 16 * MIB;
const VOTE = { term: 1, nodeId: 1, committed: true };

/** As a node has them by default, but for the room of the index. */
export const STORE_OPTIONS: Omit<WalLogStoreOptions, 'directory'> = {
  segmentBytes: 64 * MIB,
  ringBytes: 64 * MIB,
  maxBatchBytes: 4 * MIB,
  maxBatchEntries: 65_536,
  maxQueuedBatches: 2,
  lingerMicros: 0,
  maxIndexBytes: 2 * GIB,
  recovery: 'torn-tail',
  directIo: 'auto',
};

export class WrittenLog {
  store!: WalLogStore;
  private wake: () => void = () => {};
  private flushedUpTo = 0;

  /** `executor` makes one that a suite watches. */
  static async open(
    directory: string,
    executor?: (heap: SharedHeap) => StorageExecutor,
  ): Promise<WrittenLog> {
    const log = new WrittenLog();
    const heap = SharedHeap.create({ maximumBytes: 3 * GIB });
    log.store = await WalLogStore.open(
      { directory, ...STORE_OPTIONS },
      {
        heap,
        scheduler: systemScheduler,
        events: {
          flushed: (_group, io: IoId) => {
            log.flushedUpTo = io.logId.index;
            log.wake();
          },
          failed: (error) => {
            throw error;
          },
          writable: () => {},
        },
        decodeMembership: () => ({ configs: [], learners: [], addresses: {} }),
        ...(executor === undefined ? {} : { executor: executor(heap) }),
      },
    );
    return log;
  }

  /** Entries 1 to `entries`, all of one size. */
  async write(entries: number, entrySize: number): Promise<void> {
    const payload = new Uint8Array(entrySize).fill(0xa5);
    const payloads = new Array<Uint8Array>(BLOCK_ENTRIES).fill(payload);
    const ahead = Math.max(BLOCK_ENTRIES, Math.floor(AHEAD_BYTES / entrySize));
    const progress = new Progress(() => `${this.flushedUpTo.toLocaleString('en')} entries written`);
    let staged = 0;
    for (let sequence = 1; staged < entries; sequence++) {
      await this.flushed(staged - ahead);
      const count = Math.min(BLOCK_ENTRIES, entries - staged);
      const firstIndex = staged + 1;
      const block = { firstIndex, term: 1, time: 0, kind: ENTRY_KIND.application, payloads, count };
      const put = this.store.stage(0, block);
      staged += count;
      const io = { sequence, vote: VOTE, logId: { term: 1, index: staged } };
      this.store.append(0, put, firstIndex, io);
    }
    await this.flushed(entries);
    progress.end();
  }

  private async flushed(upTo: number): Promise<void> {
    while (this.flushedUpTo < upTo) {
      await new Promise<void>((resolved) => {
        this.wake = resolved;
      });
    }
  }
}
