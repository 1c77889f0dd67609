/**
 * Reads of entries that have left memory, as the main thread sees them: finds their extents in the
 * index, lends the reading thread a part of the scratch memory, and checks what came back against the
 * log as it is by then.
 *
 * The scratch memory holds the largest entry that there can be, and a read takes no more than fits: so
 * it never fails for want of memory. Parts are lent in order, and a read that finds no room behind the
 * last one waits until all are given back.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import { BLOCK, ITEM } from '../wasm/layout.js';
import { CountedLease } from './cached-block.js';
import type { GroupLog } from './group-log.js';
import type { EntriesLease } from './log-store.js';
import type { ReadTaskResult, SegmentExtent } from './segment-reader.js';
import type { StorageExecutor } from './storage-executor.js';

export interface SegmentReadsOptions {
  readonly directory: string;
  readonly lane: number;
  readonly scratch: number;
  readonly scratchBytes: number;
  readonly summary: number;
}

/** Entries of a log that are in its index. */
export interface LogRange {
  readonly log: GroupLog;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
}

export class SegmentReads {
  private readonly options: SegmentReadsOptions;
  private readonly executor: StorageExecutor;
  /** Throws when the store has failed or is closed. */
  private readonly checkUsable: () => void;
  private readonly scratch: LentMemory;
  /** The oldest segment of each read that is under way. */
  private readonly inUse: Set<{ readonly segment: number }> = new Set();

  constructor(options: SegmentReadsOptions, executor: StorageExecutor, checkUsable: () => void) {
    this.options = options;
    this.executor = executor;
    this.checkUsable = checkUsable;
    this.scratch = new LentMemory(options.scratch, options.scratchBytes);
  }

  /** The oldest segment that a read needs; Infinity when none is under way. */
  get oldestSegment(): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const { segment } of this.inUse) oldest = Math.min(oldest, segment);
    return oldest;
  }

  /** Undefined when a truncation has overtaken the read: what it found may not be the log any more. */
  async read(
    log: GroupLog,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): Promise<EntriesLease | undefined> {
    const { generation } = log;
    const { directory, lane, summary } = this.options;
    const budget = Math.min(maxBytes, this.options.scratchBytes);
    const extents = log.index.scan(firstIndex, lastIndex, budget);
    invariant(extents.length > 0, 'what is not in memory is in the index');
    const range = { group: log.id, firstIndex, extents };
    return this.inScratch([range], async (scratch, scratchBytes) => {
      const task = { directory, lane, ...range, scratch, scratchBytes, summary };
      const { block, lastIndex: readLast } = await this.executor.run({ type: 'read', ...task });
      this.checkUsable();
      if (log.generation !== generation) return undefined;
      return new CountedLease(firstIndex, readLast, [block], block.length, [], () => {});
    });
  }

  /** Reads ranges of many logs in one task. An answer may end before its range, with as much as fits. */
  async gather(ranges: readonly LogRange[], maxBytes: number): Promise<readonly ReadTaskResult[]> {
    const { directory, lane, summary } = this.options;
    const budget = Math.min(maxBytes, this.options.scratchBytes);
    const found = ranges.map(({ log, firstIndex, lastIndex }) => ({
      group: log.id,
      firstIndex,
      extents: log.index.scan(firstIndex, lastIndex, budget),
    }));
    return this.inScratch(found, (scratch, scratchBytes) => {
      const task = { directory, lane, ranges: found, scratch, scratchBytes, summary };
      return this.executor.run({ type: 'gather', ...task });
    });
  }

  /** Lends memory for the largest of the ranges, and keeps their segments for as long. */
  private async inScratch<T>(
    ranges: readonly { readonly extents: readonly SegmentExtent[] }[],
    work: (scratch: number, scratchBytes: number) => Promise<T>,
  ): Promise<T> {
    let largest = 0;
    let segment = Number.POSITIVE_INFINITY;
    for (const { extents } of ranges) {
      let bytes: number = BLOCK.bytes;
      for (const extent of extents) {
        bytes += extent.items * ITEM.bytes + extent.payloadLength;
        segment = Math.min(segment, extent.segment);
      }
      largest = Math.max(largest, bytes);
    }
    const use = { segment };
    this.inUse.add(use);
    const scratch = await this.scratch.lend(largest);
    try {
      this.checkUsable();
      return await work(scratch, largest);
    } finally {
      this.scratch.giveBack();
      this.inUse.delete(use);
    }
  }
}

class LentMemory {
  private readonly start: number;
  private readonly end: number;
  private next: number;
  private lent = 0;
  private readonly waiting: { readonly bytes: number; readonly resolve: (at: number) => void }[] =
    [];

  constructor(start: number, bytes: number) {
    this.start = start;
    this.end = start + bytes;
    this.next = start;
  }

  async lend(bytes: number): Promise<number> {
    invariant(bytes <= this.end - this.start, 'a read fits into the scratch memory');
    if (this.waiting.length === 0 && this.fits(bytes)) return this.take(bytes);
    return new Promise((resolve) => this.waiting.push({ bytes, resolve }));
  }

  giveBack(): void {
    this.lent--;
    if (this.lent > 0) return;
    this.next = this.start;
    for (let first = this.waiting[0]; first !== undefined && this.fits(first.bytes); ) {
      this.waiting.shift();
      first.resolve(this.take(first.bytes));
      first = this.waiting[0];
    }
  }

  private fits(bytes: number): boolean {
    return this.next + bytes <= this.end;
  }

  private take(bytes: number): number {
    const at = this.next;
    this.next += bytes;
    this.lent++;
    return at;
  }
}
