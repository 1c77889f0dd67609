/**
 * The blocks of one group's log in memory, in parallel arrays: the first index of each, its bytes when
 * encoded, and its place. The first `archived` blocks are in the archive, all others in the window,
 * where their order is the order of their places. Blocks in the list are always whole; a cut makes a
 * new one at the end of the window.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import { entriesOfBlock, sliceBlock } from './block-slice.js';
import { MemoryLogArchive } from './memory-log-archive.js';
import type { MemoryLogStaging } from './memory-log-staging.js';
import { MemoryLease, MemoryLogWindow, WindowChunk, WindowSpan } from './memory-log-window.js';

/** A place in the window is the sequence of the chunk times this, and the offset in it. */
const PLACES_OF_CHUNK = 2 ** 32;
/** In place of the sequence of a chunk that is not in the window. */
const LOOSE = -1;

/** One block in memory of its own. */
export interface LooseBlock {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly bytes: Uint8Array;
}

export class MemoryLogBlocks {
  lastIndex: LogIndex = 0;
  /** Of all blocks, encoded. */
  encodedBytes = 0;
  private readonly group: number;
  private readonly firsts: LogIndex[] = [];
  private readonly lengths: number[] = [];
  private readonly places: number[] = [];
  private archived = 0;
  private readonly archive: MemoryLogArchive = new MemoryLogArchive();
  private readonly window: MemoryLogWindow = new MemoryLogWindow((chunk) => this.leaves(chunk));
  private staging: MemoryLogStaging;
  /** Where a reader that goes on would read next. */
  private cursor = 0;
  private lastRead: MemoryLease | undefined;

  constructor(group: number, staging: MemoryLogStaging) {
    this.group = group;
    this.staging = staging;
  }

  get count(): number {
    return this.firsts.length;
  }

  /** Of the first block; `lastIndex + 1` when there is none. */
  get firstIndex(): LogIndex {
    return this.firsts[0] ?? this.lastIndex + 1;
  }

  /** Memory that holds the blocks, in use or not. */
  get memoryBytes(): number {
    return this.window.bytes + this.archive.bytes;
  }

  /** The blocks are those of another store now. */
  attach(staging: MemoryLogStaging): void {
    this.staging = staging;
  }

  /** Copies bytes behind the last block, where they stay until the next call. */
  place(source: DataView, from: number, length: number): void {
    this.window.place(source, from, length);
  }

  /** A view of what was placed last. */
  placedBytes(offset: number, length: number): Uint8Array {
    const start = this.window.end + offset;
    return this.window.openChunk.bytes.subarray(start, start + length);
  }

  /** The bytes that were placed last are the next block. */
  keepPlaced(first: LogIndex, last: LogIndex, length: number): void {
    invariant(first === this.lastIndex + 1, 'the log has no gap');
    const { window } = this;
    this.firsts.push(first);
    this.lengths.push(length);
    this.places.push(window.openChunk.sequence * PLACES_OF_CHUNK + window.end);
    window.keep(length);
    this.encodedBytes += length;
    this.lastIndex = last;
  }

  push(block: LooseBlock): void {
    const { bytes, firstIndex, lastIndex } = block;
    this.place(new DataView(bytes.buffer, bytes.byteOffset), 0, bytes.length);
    this.keepPlaced(firstIndex, lastIndex, bytes.length);
  }

  /** The block in memory of its own. */
  loose(block: number): LooseBlock {
    const length = this.lengths[block]!;
    const bytes =
      block < this.archived
        ? this.rebuilt(block)
        : this.chunkOf(block).bytes.slice(this.offsetOf(block), this.offsetOf(block) + length);
    return { firstIndex: this.firsts[block]!, lastIndex: this.lastOf(block), bytes };
  }

  /** Takes the first `blocks` off the log. */
  dropFirst(blocks: number): void {
    if (blocks === 0) return;
    this.lastRead = undefined;
    for (let gone = 0; gone < blocks; gone++) this.encodedBytes -= this.lengths[gone]!;
    this.firsts.splice(0, blocks);
    this.lengths.splice(0, blocks);
    this.places.splice(0, blocks);
    this.archived = Math.max(0, this.archived - blocks);
    if (this.archived > 0) this.archive.dropBefore(this.places[0]!);
    else this.archive.clear();
    this.cursor = 0;
  }

  /** The log is empty, and goes on behind `index`. */
  beginBehind(index: LogIndex): void {
    this.cutTo(0);
    this.lastIndex = index;
  }

  /** Takes the blocks from number `block` on off the end. */
  cutTo(block: number): void {
    if (block >= this.count) return;
    this.lastRead = undefined;
    this.lastIndex = this.firsts[block]! - 1;
    for (let cut = block; cut < this.count; cut++) this.encodedBytes -= this.lengths[cut]!;
    if (block < this.archived) {
      this.archive.truncateFrom(this.places[block]!);
      this.archived = block;
    }
    this.firsts.length = block;
    this.lengths.length = block;
    this.places.length = block;
    this.cursor = 0;
  }

  /** How many of the first blocks hold no entry behind `index`. */
  blocksThrough(index: LogIndex): number {
    if (this.count === 0 || index < this.firsts[0]!) return 0;
    return index >= this.lastIndex ? this.count : this.blockOf(index + 1);
  }

  /** Number of the block that holds `index`, which is in the log. */
  blockOf(index: LogIndex): number {
    const { firsts } = this;
    const end = firsts.length - 1;
    if (index >= firsts[end]!) return end;
    if (this.cursor <= end && firsts[this.cursor] === index) return this.cursor;
    let low = 0;
    let high = end;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (firsts[middle]! <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  read(firstIndex: LogIndex, lastIndex: LogIndex, maxBytes: number): MemoryLease {
    const known = this.lastRead;
    if (
      known !== undefined &&
      known.firstIndex === firstIndex &&
      known.lastIndex === lastIndex &&
      known.bytes <= maxBytes
    ) {
      // State machine and two followers ask for the same range in the same turn.
      known.retain();
      return known;
    }
    const lease = this.makeLease(firstIndex, Math.min(lastIndex, this.lastIndex), maxBytes);
    // A range that the budget cut short is not the answer to another budget.
    this.lastRead = lease.lastIndex === lastIndex ? lease : undefined;
    return lease;
  }

  private makeLease(firstIndex: LogIndex, lastIndex: LogIndex, maxBytes: number): MemoryLease {
    invariant(firstIndex >= 1 && firstIndex <= lastIndex, 'the entries read are in the log');
    const block = this.blockOf(firstIndex);
    const whole = firstIndex === this.firsts[block]! && lastIndex === this.lastOf(block);
    const length = this.lengths[block]!;
    // What one turn brought is one block, and mostly what is read at once.
    if (whole && length <= maxBytes && block >= this.archived) {
      const start = this.offsetOf(block);
      const spans = [new WindowSpan(this.chunkOf(block), start, start + length)];
      this.cursor = block + 1;
      return new MemoryLease(firstIndex, lastIndex, spans, length);
    }
    return this.gather(block, firstIndex, lastIndex, maxBytes);
  }

  /** Reads from `block` on, which holds `firstIndex`. */
  private gather(
    from: number,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): MemoryLease {
    const spans: WindowSpan[] = [];
    let total = 0;
    let next = firstIndex;
    let block = from;
    // Whole blocks that stand one behind the other become one span.
    let chunk: WindowChunk | undefined;
    let start = 0;
    let end = 0;
    for (; next <= lastIndex; block++) {
      const last = this.lastOf(block);
      const length = this.lengths[block]!;
      const whole = next === this.firsts[block]! && last <= lastIndex;
      const fits = total + length <= maxBytes;
      // A block is cut for what the caller asked for; for the budget only when nothing is there yet.
      if (total > 0 && !fits) break;
      if (whole && fits && block >= this.archived) {
        const holder = this.chunkOf(block);
        const offset = this.offsetOf(block);
        if (holder !== chunk || offset !== end) {
          if (chunk !== undefined) spans.push(new WindowSpan(chunk, start, end));
          chunk = holder;
          start = offset;
        }
        end = offset + length;
        total += length;
        next = last + 1;
        continue;
      }
      if (chunk !== undefined) spans.push(new WindowSpan(chunk, start, end));
      chunk = undefined;
      const bytes =
        whole && fits
          ? this.rebuilt(block)
          : this.cut(block, next, Math.min(last, lastIndex), maxBytes - total);
      spans.push(new WindowSpan(new WindowChunk(LOOSE, bytes), 0, bytes.length));
      total += bytes.length;
      next += entriesOfBlock(bytes);
      if (next <= last) break;
    }
    if (chunk !== undefined) spans.push(new WindowSpan(chunk, start, end));
    this.cursor = block;
    return new MemoryLease(firstIndex, next - 1, spans, total);
  }

  /** Entries `first … last` of a block, or as many as `maxBytes` allow, as a block of their own. */
  private cut(block: number, first: LogIndex, last: LogIndex, maxBytes: number): Uint8Array {
    if (block < this.archived) return sliceBlock(this.rebuilt(block), 0, first, last, maxBytes);
    return sliceBlock(this.chunkOf(block).bytes, this.offsetOf(block), first, last, maxBytes);
  }

  private rebuilt(block: number): Uint8Array {
    return this.archive.rebuild(
      this.places[block]!,
      this.group,
      this.firsts[block]!,
      this.lengths[block]!,
      this.staging,
    );
  }

  /** A chunk of the window is about to be used again: archives its blocks, which are the oldest. */
  private leaves(chunk: WindowChunk): void {
    this.lastRead = undefined;
    const { archive, lengths, places, firsts } = this;
    const { view } = chunk;
    const end = (chunk.sequence + 1) * PLACES_OF_CHUNK;
    let block = this.archived;
    for (; block < firsts.length && places[block]! < end; block++) {
      places[block] = archive.add(view, places[block]! % PLACES_OF_CHUNK, lengths[block]!);
    }
    this.archived = block;
  }

  private chunkOf(block: number): WindowChunk {
    return this.window.chunk(Math.floor(this.places[block]! / PLACES_OF_CHUNK));
  }

  private offsetOf(block: number): number {
    return this.places[block]! % PLACES_OF_CHUNK;
  }

  private lastOf(block: number): LogIndex {
    return block + 1 < this.firsts.length ? this.firsts[block + 1]! - 1 : this.lastIndex;
  }
}
