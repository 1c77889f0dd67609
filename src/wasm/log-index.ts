/**
 * Where each entry of one group stands in the segment files, in shared memory: 16 bytes for an entry,
 * a run for each change of term. All questions cost one crossing into WASM, however many entries they
 * are about.
 *
 * The index grows by an eighth at a time, in chunks of 512 bytes, and gives chunks that truncation or
 * purge emptied back to the heap: at most 20 bytes for an entry, and 704 for a log that has one. One
 * thread owns it: the one that created the heap.
 */
import { invariant } from '../base/assert.js';
import {
  EXTENT,
  INDEX_CHUNK_ENTRIES,
  INDEX_DESCRIPTOR,
  INDEX_ENTRY,
  type KeelsonExports,
  TERM_RUN,
} from './abi.js';
import { BLOCK } from './layout.js';
import { type SegmentRun, SegmentRuns } from './segment-runs.js';
import { SegmentUsage } from './segment-usage.js';
import type { SharedHeap } from './shared-heap.js';
import { fillTerms, type TermRun } from './term-runs.js';

const CHUNK_BYTES = INDEX_CHUNK_ENTRIES * INDEX_ENTRY.bytes;
const POINTER_BYTES = 4;
const MIN_TABLE_BYTES = 64;
/** The most extents one scan returns; who wants more goes on behind the last. */
const MAX_EXTENTS = 64;
const EXTENTS_BYTES = MAX_EXTENTS * EXTENT.bytes;
/** What an index has ahead of its entries: a share of them, and at most so many chunks. */
const GROWTH_SHARE = 1 / 8;
const MAX_GROWTH_CHUNKS = 128;

/** Entries of one segment that stand side by side: their items, and their payloads. */
export interface IndexExtent {
  readonly segment: number;
  readonly firstIndex: number;
  /** How many entries. */
  readonly items: number;
  /** File position of the first item; the others follow at a stride of `ITEM.bytes`. */
  readonly itemPosition: number;
  /** File position of the first payload; the others follow without a gap. */
  readonly payloadPosition: number;
  /** Bytes of all payloads. */
  readonly payloadLength: number;
}

/** Where a block begins. */
export interface EntriesPlace {
  readonly segment: number;
  /** In the file. */
  readonly position: number;
}

export interface RecoveredBlocks {
  readonly lastIndex: number;
  /** Ascending; the first starts with the blocks. */
  readonly termRuns: readonly TermRun[];
}

export class LogIndex {
  private readonly heap: SharedHeap;
  private readonly exports: KeelsonExports;
  private readonly descriptor: number;
  private chunks: number[] = [];
  private directory: number;
  private directoryBytes: number = MIN_TABLE_BYTES;
  private runs: number;
  private runsBytes: number = MIN_TABLE_BYTES;
  private readonly segments: SegmentRuns;
  /** The entry of the first slot; those from there to `first` are purged. */
  private base: number;
  private first: number;
  private last: number;

  /** An empty index whose first entry will have `firstIndex`; `usage` is told what segments hold of it. */
  constructor(heap: SharedHeap, firstIndex = 1, usage: SegmentUsage = new SegmentUsage()) {
    this.heap = heap;
    this.exports = heap.exports;
    this.descriptor = heap.allocate(INDEX_DESCRIPTOR.bytes);
    this.directory = heap.allocate(this.directoryBytes);
    this.runs = heap.allocate(this.runsBytes);
    heap.bytes.fill(0, this.descriptor, this.descriptor + INDEX_DESCRIPTOR.bytes);
    this.base = firstIndex;
    this.first = firstIndex;
    this.last = firstIndex - 1;
    this.segments = new SegmentRuns(usage, (first, last) =>
      this.exports.indexBytes(this.descriptor, first, last),
    );
    this.begin(firstIndex);
  }

  /** The first entry that is, or will be, in the index. */
  get firstIndex(): number {
    return this.first;
  }

  /** `firstIndex - 1` when the index is empty. */
  get lastIndex(): number {
    return this.last;
  }

  /** The lowest segment that an entry stands in; Infinity when the index is empty. */
  get oldestSegment(): number {
    return this.segments.oldest;
  }

  /** The first entries that stand side by side in the lowest segment. */
  get oldestRun(): SegmentRun | undefined {
    return this.segments.oldestRun(this.last);
  }

  /** The entries around `index` that stand side by side in one segment. */
  runOf(index: number): SegmentRun | undefined {
    return this.segments.runOf(index, this.last);
  }

  /** Bytes of the heap that the index holds. */
  get bytes(): number {
    const tables = this.directoryBytes + this.runsBytes;
    return INDEX_DESCRIPTOR.bytes + tables + this.chunks.length * CHUNK_BYTES;
  }

  /** How many runs of one term the index has. */
  get runCount(): number {
    return this.heap.view.getUint32(this.descriptor + INDEX_DESCRIPTOR.offset.runCount, true);
  }

  /**
   * Bytes of the heap that the index would have taken once it held entries up to `lastIndex` and so
   * many runs, the tables that it outgrows on the way included; its first entry would be `firstIndex`,
   * unless it has come further.
   */
  bytesWith(lastIndex: number, runs: number, firstIndex: number): number {
    const base = Math.max(this.base, firstIndex);
    const wanted = Math.ceil(Math.max(0, lastIndex + 1 - base) / INDEX_CHUNK_ENTRIES);
    const chunks = Math.max(this.chunks.length, withGrowth(wanted));
    const directory = Math.max(this.directoryBytes, tableBytes(chunks * POINTER_BYTES));
    const table = Math.max(this.runsBytes, tableBytes(runs * TERM_RUN.bytes));
    // All that were outgrown are together smaller than the one that is in use.
    return INDEX_DESCRIPTOR.bytes + 2 * directory + 2 * table + chunks * CHUNK_BYTES;
  }

  /**
   * Adds the entries of verified, consecutive blocks which stand at `pointer` in the shared memory
   * and from `position` on in the file of `segment`. Entries that the index has from their first
   * index on are replaced; all behind are forgotten. What is purged is left out. Returns the new last
   * index.
   * @throws KeelsonError KEELSON_OVERLOADED when the heap has no room; nothing is changed then.
   */
  appendBlocks(pointer: number, length: number, segment: number, position: number): number {
    let last = this.callAppend(pointer, length, segment, position);
    if (last < 0) {
      this.makeRoom();
      last = this.callAppend(pointer, length, segment, position);
    }
    invariant(last > 0, 'blocks for the index are whole, consecutive and leave no gap');
    const { view } = this.heap;
    const first = Math.max(this.firstOf(pointer), this.first);
    if (first <= this.last) this.segments.truncateAfter(first - 1);
    if (last >= first) {
      const added = view.getFloat64(this.descriptor + INDEX_DESCRIPTOR.offset.addedBytes, true);
      this.segments.append(first, segment, added);
    }
    this.last = last;
    return last;
  }

  /**
   * The log has entries up to `index` of which nothing is known yet: segment 0, term 0.
   * @throws KeelsonError KEELSON_OVERLOADED when the heap has no room; nothing is changed then.
   */
  skip(index: number): void {
    if (index <= this.last) return;
    if (this.exports.indexSkip(this.descriptor, index) < 0) {
      this.makeRoom();
      const skipped = this.exports.indexSkip(this.descriptor, index);
      invariant(skipped > 0, 'the index has the room that it asked for');
    }
    this.segments.append(this.last + 1, 0, 0);
    this.last = index;
  }

  /**
   * The blocks at `pointer` stood in one place and stand in another now: moves those of their entries
   * that the index has at the old place.
   */
  moveBlocks(pointer: number, length: number, from: EntriesPlace, to: EntriesPlace): void {
    const last = this.exports.indexMoveBlocks(
      this.descriptor,
      pointer,
      length,
      from.segment,
      from.position,
      to.segment,
      to.position,
    );
    if (last === 0) return;
    this.segments.move(Math.max(this.firstOf(pointer), this.first), last, to.segment, this.last);
  }

  /**
   * The entries of the verified blocks at `pointer`, which are in the log, stand at that place too, and
   * are found there from now on; false, and nothing is changed, where the index has another term for one
   * of them, or none of them.
   */
  placeBlocks(pointer: number, length: number, segment: number, position: number): boolean {
    const last = this.exports.indexPlaceBlocks(this.descriptor, pointer, length, segment, position);
    if (last === 0) return false;
    this.segments.move(Math.max(this.firstOf(pointer), this.first), last, segment, this.last);
    return true;
  }

  /**
   * The same for blocks whose entries the log may have without the index knowing more of them than `skip`
   * told, or not even that; `termRuns` are those of the blocks. False, and nothing is changed, where the
   * index has another term for one of them.
   * @throws KeelsonError KEELSON_OVERLOADED when the heap has no room.
   */
  recoverBlocks(
    pointer: number,
    length: number,
    segment: number,
    position: number,
    { lastIndex, termRuns }: RecoveredBlocks,
  ): boolean {
    this.skip(lastIndex);
    if (lastIndex < this.first) return true;
    if (!this.placeBlocks(pointer, length, segment, position)) return false;
    const first = Math.max(this.firstOf(pointer), this.first);
    this.writeTermRuns(fillTerms(this.termRuns(), this.last, first, lastIndex, termRuns));
    return true;
  }

  /** Forgets all entries behind `index`. */
  truncateAfter(index: number): void {
    if (index >= this.last) return;
    const last = Math.max(index, this.first - 1);
    this.exports.indexTruncateAfter(this.descriptor, last);
    this.last = last;
    this.segments.truncateAfter(last);
    const needed = Math.ceil((last + 1 - this.base) / INDEX_CHUNK_ENTRIES);
    while (this.chunks.length > needed) this.heap.release(this.chunks.pop()!, CHUNK_BYTES);
    this.publishTables();
  }

  /** Forgets all entries up to `index`; what comes next has `index + 1` when none is left. */
  purge(index: number): void {
    if (index < this.first) return;
    if (index >= this.last) {
      this.reset(index);
      return;
    }
    this.segments.purge(index);
    this.exports.indexPurge(this.descriptor, index);
    this.first = index + 1;
    const emptied = Math.floor((this.first - this.base) / INDEX_CHUNK_ENTRIES);
    if (emptied === 0) return;
    for (const chunk of this.chunks.splice(0, emptied)) this.heap.release(chunk, CHUNK_BYTES);
    const end = this.directory + (emptied + this.chunks.length) * POINTER_BYTES;
    this.heap.bytes.copyWithin(this.directory, this.directory + emptied * POINTER_BYTES, end);
    this.base += emptied * INDEX_CHUNK_ENTRIES;
    this.publishTables();
  }

  /** Forgets all entries; what comes next has `index + 1`. */
  reset(index: number): void {
    for (const chunk of this.chunks.splice(0)) this.heap.release(chunk, CHUNK_BYTES);
    this.segments.clear();
    this.base = index + 1;
    this.first = index + 1;
    this.last = index;
    this.begin(this.first);
  }

  /** Term of an entry; 0 when the index does not have it. */
  term(index: number): number {
    return this.exports.indexTerm(this.descriptor, index);
  }

  /**
   * The first entry of the verified blocks at `pointer` that the index has under another term; 0
   * when there is none. Entries that the index does not have are no conflict.
   */
  conflict(pointer: number, length: number): number {
    return this.exports.indexConflict(this.descriptor, pointer, length);
  }

  /**
   * Extents of the entries from `firstIndex` up to `lastIndex`, as many as `maxBytes` allow (48 and
   * the payload for an entry, 32 for an extent) but at least one entry, and at most 64 extents.
   * Empty when the index does not have `firstIndex`.
   */
  scan(firstIndex: number, lastIndex: number, maxBytes: number): IndexExtent[] {
    const found = this.heap.allocate(EXTENTS_BYTES);
    const count = this.exports.indexScan(
      this.descriptor,
      firstIndex,
      lastIndex,
      maxBytes,
      found,
      MAX_EXTENTS,
    );
    const view = this.heap.view;
    const offset = EXTENT.offset;
    const extents: IndexExtent[] = [];
    for (let i = 0; i < count; i++) {
      const at = found + i * EXTENT.bytes;
      extents.push({
        segment: view.getUint32(at + offset.segment, true),
        firstIndex: view.getFloat64(at + offset.firstIndex, true),
        items: view.getUint32(at + offset.items, true),
        itemPosition: view.getUint32(at + offset.itemPosition, true),
        payloadPosition: view.getUint32(at + offset.payloadPosition, true),
        payloadLength: view.getUint32(at + offset.payloadLength, true),
      });
    }
    this.heap.release(found, EXTENTS_BYTES);
    return extents;
  }

  /** Ascending; all entries from `firstIndex` up to the next run carry `term`. */
  termRuns(): TermRun[] {
    const view = this.heap.view;
    const runs: TermRun[] = [];
    const { runCount } = this;
    for (let i = 0; i < runCount; i++) {
      const run = this.runs + i * TERM_RUN.bytes;
      runs.push({
        firstIndex: Number(view.getBigUint64(run + TERM_RUN.offset.firstIndex, true)),
        term: Number(view.getBigUint64(run + TERM_RUN.offset.term, true)),
      });
    }
    return runs;
  }

  /** Gives all memory back to the heap. The index must not be used any more. */
  dispose(): void {
    for (const chunk of this.chunks) this.heap.release(chunk, CHUNK_BYTES);
    this.chunks = [];
    this.heap.release(this.directory, this.directoryBytes);
    this.heap.release(this.runs, this.runsBytes);
    this.heap.release(this.descriptor, INDEX_DESCRIPTOR.bytes);
  }

  private begin(firstIndex: number): void {
    const { offset } = INDEX_DESCRIPTOR;
    const { view } = this.heap;
    view.setBigUint64(this.descriptor + offset.firstIndex, BigInt(firstIndex), true);
    view.setBigUint64(this.descriptor + offset.nextIndex, BigInt(firstIndex), true);
    view.setUint32(this.descriptor + offset.runCount, 0, true);
    this.publishTables();
  }

  private firstOf(pointer: number): number {
    return Number(this.heap.view.getBigUint64(pointer + BLOCK.offset.firstIndex, true));
  }

  private writeTermRuns(runs: readonly TermRun[]): void {
    this.makeRunsRoom(runs.length * TERM_RUN.bytes);
    const { view } = this.heap;
    runs.forEach(({ firstIndex, term }, at) => {
      const run = this.runs + at * TERM_RUN.bytes;
      view.setBigUint64(run + TERM_RUN.offset.firstIndex, BigInt(firstIndex), true);
      view.setBigUint64(run + TERM_RUN.offset.term, BigInt(term), true);
    });
    view.setUint32(this.descriptor + INDEX_DESCRIPTOR.offset.runCount, runs.length, true);
    this.publishTables();
  }

  private callAppend(pointer: number, length: number, segment: number, position: number): number {
    return this.exports.indexAppendBlocks(this.descriptor, pointer, length, segment, position);
  }

  private makeRoom(): void {
    const offset = INDEX_DESCRIPTOR.offset;
    const entries = this.heap.view.getUint32(this.descriptor + offset.wantedEntries, true);
    const runs = this.heap.view.getUint32(this.descriptor + offset.wantedRuns, true);
    const chunks = withGrowth(Math.ceil(entries / INDEX_CHUNK_ENTRIES));
    try {
      this.makeDirectoryRoom(chunks * POINTER_BYTES);
      this.makeRunsRoom(runs * TERM_RUN.bytes);
      while (this.chunks.length < chunks) {
        const chunk = this.heap.allocate(CHUNK_BYTES);
        const slot = this.directory + this.chunks.length * POINTER_BYTES;
        this.heap.view.setUint32(slot, chunk, true);
        this.chunks.push(chunk);
      }
    } finally {
      this.publishTables();
    }
  }

  private makeDirectoryRoom(bytes: number): void {
    if (bytes <= this.directoryBytes) return;
    const grown = tableBytes(bytes);
    this.directory = this.moveTable(this.directory, this.directoryBytes, grown);
    this.directoryBytes = grown;
  }

  private makeRunsRoom(bytes: number): void {
    if (bytes <= this.runsBytes) return;
    const grown = tableBytes(bytes);
    this.runs = this.moveTable(this.runs, this.runsBytes, grown);
    this.runsBytes = grown;
  }

  private moveTable(from: number, bytes: number, grownBytes: number): number {
    const to = this.heap.allocate(grownBytes);
    this.heap.bytes.copyWithin(to, from, from + bytes);
    this.heap.release(from, bytes);
    return to;
  }

  /** Tells the WASM side where the tables are now. */
  private publishTables(): void {
    const offset = INDEX_DESCRIPTOR.offset;
    const view = this.heap.view;
    view.setBigUint64(this.descriptor + offset.base, BigInt(this.base), true);
    view.setUint32(this.descriptor + offset.directory, this.directory, true);
    view.setUint32(this.descriptor + offset.chunks, this.chunks.length, true);
    view.setUint32(this.descriptor + offset.runs, this.runs, true);
    view.setUint32(
      this.descriptor + offset.runCapacity,
      Math.floor(this.runsBytes / TERM_RUN.bytes),
      true,
    );
  }
}

/** How many chunks an index takes that needs so many. */
function withGrowth(chunks: number): number {
  return chunks + Math.min(MAX_GROWTH_CHUNKS, Math.floor(chunks * GROWTH_SHARE));
}

/** Tables grow by doubling. */
function tableBytes(bytes: number): number {
  return bytes <= MIN_TABLE_BYTES ? MIN_TABLE_BYTES : 2 ** Math.ceil(Math.log2(bytes));
}
