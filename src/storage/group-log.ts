/**
 * What the main thread knows of the log of one group: promised vote, last index, the blocks that are
 * in memory, and the index of what stands in segment files.
 *
 * The log as the engine sees it ends at `lastIndex`. The index follows with every batch that became
 * durable, so it may lag behind; whatever it lags by is in memory.
 */
import { invariant } from '../base/assert.js';
import type { LogId, LogIndex, Vote } from '../engine/types.js';
import type { LogIndex as SegmentIndex } from '../wasm/log-index.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { entriesOfBlock, sliceBlock } from './block-slice.js';
import type { CachedBlock } from './cached-block.js';
import { CountedLease, isWhole } from './cached-block.js';
import type { RingBatch } from './entry-ring.js';
import type { LaneBatch } from './lane-batch.js';
import { TermRunList } from './term-run-list.js';

const COMPACT_AT = 1024;

export interface StagedCount {
  readonly lastIndex: LogIndex;
  readonly termRuns: number;
}

const NOTHING_STAGED: StagedCount = { lastIndex: 0, termRuns: 0 };

export class GroupLog {
  readonly id: number;
  readonly index: SegmentIndex;
  vote: Vote;
  committed: LogIndex;
  lastIndex: LogIndex;
  /** The entry before the first one kept. */
  purged: LogId;
  readonly termRuns: TermRunList = new TermRunList();
  /** The last batch that took something off the log, at either end. */
  private lastCut: LaneBatch | undefined;
  /** The last batch that ended the log sooner, or let it begin anew. */
  private lastTruncation: LaneBatch | undefined;
  /** The batch with the last record of a purge. */
  purgeBatch: LaneBatch | undefined;
  /** There is a purge behind that one which no record tells yet. */
  purgeWaits = false;
  /** Where the log began anew last. */
  private resetIndex: LogIndex = 0;
  /** What is staged to be appended: the last entry, and how many runs of one term it brings. */
  staged: StagedCount = NOTHING_STAGED;
  /** What the budget of the indexes counts for this log. */
  admittedIndexBytes = 0;
  /** Counts truncations and overwrites: an asynchronous read that one overtook is done again. */
  generation = 0;
  /** The last batch that touched the group. */
  lastBatch: LaneBatch | undefined;
  /** Ascending by index, without gaps; those before `firstBlock` are evicted. */
  private blocks: CachedBlock[] = [];
  private firstBlock = 0;

  constructor(id: number, index: SegmentIndex, vote: Vote, committed: LogIndex, purged: LogId) {
    this.id = id;
    this.index = index;
    this.vote = vote;
    this.committed = committed;
    this.purged = purged;
    this.lastIndex = index.lastIndex;
    this.termRuns.append(index.firstIndex, index.termRuns());
  }

  /** Bytes of the index if the log went on to `lastIndex` with so many more runs of one term. */
  indexBytesWith(lastIndex: LogIndex, termRuns: number): number {
    const last = Math.max(lastIndex, this.lastIndex);
    const bytes = this.index.bytesWith(last, this.termRuns.count + termRuns, this.resetIndex + 1);
    // What was cut off the log the index may still have to go through.
    const cutPending = this.lastCut?.completed === false;
    return cutPending ? Math.max(bytes, this.admittedIndexBytes) : bytes;
  }

  /** What was staged is in the log. */
  forgetStaged(): void {
    this.staged = NOTHING_STAGED;
  }

  /** The index may still have entries that were cut off, under the indexes of others. */
  get truncationPending(): boolean {
    return this.lastTruncation?.completed === false;
  }

  addBlock(block: CachedBlock): void {
    invariant(block.firstIndex === this.lastIndex + 1, 'appended entries continue the log');
    this.blocks.push(block);
    this.lastIndex = block.lastIndex;
  }

  /** The log ends at `lastIndex` from now on; `batch` says so. */
  truncateAfter(lastIndex: LogIndex, batch: LaneBatch): void {
    if (lastIndex >= this.lastIndex) return;
    this.lastCut = batch;
    this.lastTruncation = batch;
    this.generation++;
    this.lastIndex = lastIndex;
    this.termRuns.truncateAfter(lastIndex);
    for (let last = this.blocks.length - 1; last >= this.firstBlock; last--) {
      const block = this.blocks[last]!;
      if (block.firstIndex <= lastIndex) {
        block.lastIndex = Math.min(block.lastIndex, lastIndex);
        break;
      }
      this.blocks.pop();
    }
  }

  /** The entries up to `upTo` are gone. */
  purge(upTo: LogId): void {
    this.purged = upTo;
    this.termRuns.purge(upTo.index);
    while ((this.blocks[this.firstBlock]?.lastIndex ?? Infinity) <= upTo.index) this.firstBlock++;
  }

  /** `batch` says what is purged. */
  recordPurge(batch: LaneBatch): void {
    this.lastCut = batch;
    this.purgeBatch = batch;
    this.purgeWaits = false;
  }

  /** The log begins anew behind `lastIncluded`; `batch` says so, and all that is purged. */
  reset(lastIncluded: LogId, batch: LaneBatch): void {
    this.truncateAfter(0, batch);
    this.lastCut = batch;
    this.lastTruncation = batch;
    this.purgeWaits = false;
    this.purged = lastIncluded;
    this.lastIndex = lastIncluded.index;
    this.resetIndex = lastIncluded.index;
  }

  /** First index that is in memory; `lastIndex + 1` when none is. */
  firstCached(): LogIndex {
    this.dropEvicted();
    return this.blocks[this.firstBlock]?.firstIndex ?? this.lastIndex + 1;
  }

  /** A lease on blocks in memory; undefined when `firstIndex` is not there. */
  lease(
    heap: SharedHeap,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
    unpinned: () => void,
  ): CountedLease | undefined {
    if (firstIndex < this.firstCached()) return undefined;
    const parts: Uint8Array[] = [];
    const batches: RingBatch[] = [];
    let bytes = 0;
    let next = firstIndex;
    let runPointer = 0;
    let runEnd = 0;
    for (let at = this.find(firstIndex); next <= lastIndex; at++) {
      const block = this.blocks[at]!;
      const whole = isWhole(block) && block.firstIndex === next && block.lastIndex <= lastIndex;
      const fits = bytes + block.length <= maxBytes;
      // A control slot is used again whoever reads from it: what stands there is copied.
      if (whole && fits && !block.batch.controlSlot) {
        if (block.pointer !== runEnd || batches[batches.length - 1] !== block.batch) {
          if (runEnd > runPointer) parts.push(heap.slice(runPointer, runEnd - runPointer));
          runPointer = block.pointer;
          if (batches[batches.length - 1] !== block.batch) batches.push(block.batch);
        }
        runEnd = block.pointer + block.length;
        bytes += block.length;
        next = block.lastIndex + 1;
        continue;
      }
      // A whole block waits for the next read, unless it alone is more than was asked for.
      if (whole && !fits && next > firstIndex) break;
      const until = Math.min(lastIndex, block.lastIndex);
      const part = sliceBlock(heap.bytes, block.pointer, next, until, maxBytes - bytes);
      // It is never empty, so that one entry passes whatever its size; but only the first.
      if (next > firstIndex && bytes + part.length > maxBytes) break;
      if (runEnd > runPointer) parts.push(heap.slice(runPointer, runEnd - runPointer));
      runPointer = 0;
      runEnd = 0;
      parts.push(part);
      bytes += part.length;
      next += entriesOfBlock(part);
      if (next <= until) break;
    }
    if (runEnd > runPointer) parts.push(heap.slice(runPointer, runEnd - runPointer));
    return new CountedLease(firstIndex, next - 1, parts, bytes, batches, unpinned);
  }

  /**
   * A block in a control slot goes as soon as it is durable, before older ones in the ring: these are
   * not lent any more either, for a lease may lead across it. All of them are durable as well.
   */
  dropThroughEvicted(): void {
    let last = this.blocks.length - 1;
    while (last >= this.firstBlock && !this.blocks[last]!.evicted) last--;
    this.firstBlock = Math.max(this.firstBlock, last + 1);
  }

  /** Position in `blocks` of the block that holds `index`. */
  private find(index: LogIndex): number {
    let low = this.firstBlock;
    let high = this.blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.blocks[middle]!.firstIndex <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  private dropEvicted(): void {
    while (this.blocks[this.firstBlock]?.evicted === true) this.firstBlock++;
    if (this.firstBlock < COMPACT_AT || this.firstBlock * 2 < this.blocks.length) return;
    this.blocks = this.blocks.slice(this.firstBlock);
    this.firstBlock = 0;
  }
}
