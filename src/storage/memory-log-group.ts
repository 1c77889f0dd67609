/**
 * The log of one group in memory: blocks one behind the other in chunks of ordinary memory, and where
 * each block stands in parallel arrays. Blocks in the list are always whole; a cut makes a new one.
 *
 * Bytes that were appended are never written again, so that a lease on them needs no bookkeeping; a
 * chunk is given back by the garbage collector when neither block nor lease refers to it.
 *
 * Everything becomes durable at once, when the store flushes. Until then the group remembers what a
 * crash would bring back: how many blocks at the start are durable, and the durable ones that a
 * truncation has taken off the end.
 */
import { invariant } from '../base/assert.js';
import {
  type IoId,
  type LogIndex,
  NO_LOG_ID,
  NO_VOTE,
  type RecoveredLog,
  type StoredMembership,
  type TermRun,
  type Vote,
} from '../engine/types.js';
import { entriesOfBlock, sliceBlock } from './block-slice.js';
import type { EntriesLease, StagedEntries } from './log-store.js';

const FIRST_CHUNK_BYTES = 64 * 1024;
const MAX_CHUNK_BYTES = 256 * 1024 * 1024;

/** One block and where it stands. */
export interface PlacedBlock {
  readonly firstIndex: LogIndex;
  readonly bytes: Uint8Array;
}

/** What of a group survives a crash. */
export interface GroupImage {
  readonly vote: Vote;
  readonly committed: LogIndex;
  readonly lastIndex: LogIndex;
  readonly blocks: readonly PlacedBlock[];
}

/** Verified blocks that stand behind the end of a group's log, not part of it yet. */
export class StagedBlocks implements StagedEntries {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly termRuns: readonly TermRun[];
  readonly memberships: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[];
  readonly bytes: number;
  readonly lastTime: number;
  /** Index and offset of each block, from the start of the staging; undefined for a single block. */
  readonly boundaries: BlockBoundaries | undefined;

  constructor(
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    termRuns: readonly TermRun[],
    memberships: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[],
    bytes: number,
    lastTime: number,
    boundaries: BlockBoundaries | undefined,
  ) {
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.termRuns = termRuns;
    this.memberships = memberships;
    this.bytes = bytes;
    this.lastTime = lastTime;
    this.boundaries = boundaries;
  }
}

export interface BlockBoundaries {
  readonly firstIndexes: readonly LogIndex[];
  readonly offsets: readonly number[];
}

/** The bytes outlive the lease; the count only shows who releases too often. */
class MemoryLease implements EntriesLease {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly parts: readonly Uint8Array[];
  readonly bytes: number;
  private references = 1;

  constructor(
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    parts: readonly Uint8Array[],
    bytes: number,
  ) {
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.parts = parts;
    this.bytes = bytes;
  }

  retain(): void {
    this.references++;
  }

  release(): void {
    invariant(this.references > 0, 'a lease is released once for each retain');
    this.references--;
  }
}

export class MemoryLogGroup {
  readonly group: number;
  lastIndex: LogIndex = 0;
  /** Bytes of all blocks in the log. */
  logBytes = 0;
  /** Entries and bytes appended since the last flush. */
  unflushedEntries = 0;
  unflushedBytes = 0;
  /** The last I/O that the next flush completes. */
  private pendingIo: IoId | undefined;
  private vote: Vote = NO_VOTE;
  private committed: LogIndex = 0;
  private readonly firsts: LogIndex[] = [];
  private readonly chunks: Uint8Array[] = [];
  private readonly offsets: number[] = [];
  private readonly lengths: number[] = [];
  private chunk: Uint8Array = new Uint8Array(FIRST_CHUNK_BYTES);
  private chunkEnd = 0;
  private staged: StagedBlocks | undefined;
  /** Where a reader that goes on would read next. */
  private cursor = 0;
  private lastRead: MemoryLease | undefined;
  private durableVote: Vote = NO_VOTE;
  private durableCommitted: LogIndex = 0;
  private durableLastIndex: LogIndex = 0;
  private durableBlocks = 0;
  private truncatedDurable: PlacedBlock[] = [];

  constructor(group: number, image: GroupImage | undefined) {
    this.group = group;
    if (image === undefined) return;
    this.vote = image.vote;
    this.committed = image.committed;
    this.lastIndex = image.lastIndex;
    for (const { firstIndex, bytes } of image.blocks) {
      this.pushBlock(firstIndex, bytes, 0, bytes.length);
    }
    this.flushed();
  }

  /** Copies bytes behind the end of the log; they stay there until the next staging. */
  placeStaged(bytes: Uint8Array): { readonly chunk: Uint8Array; readonly offset: number } {
    if (this.chunk.length - this.chunkEnd < bytes.length) {
      const grown = Math.min(MAX_CHUNK_BYTES, 2 * this.chunk.length);
      this.chunk = new Uint8Array(Math.max(grown, bytes.length));
      this.chunkEnd = 0;
    }
    this.chunk.set(bytes, this.chunkEnd);
    return { chunk: this.chunk, offset: this.chunkEnd };
  }

  stage(staged: StagedBlocks): void {
    this.staged = staged;
  }

  append(staged: StagedEntries, firstIndex: LogIndex): void {
    invariant(staged === this.staged, 'what is appended is the last that was staged in its group');
    invariant(
      firstIndex >= staged.firstIndex && firstIndex <= staged.lastIndex,
      'what is appended was staged',
    );
    const blocks = this.staged;
    this.staged = undefined;
    if (firstIndex <= this.lastIndex) this.truncateAfter(firstIndex - 1);
    invariant(firstIndex === this.lastIndex + 1, 'the log has no gap');
    const start = this.chunkEnd;
    this.chunkEnd += blocks.bytes;
    const { boundaries } = blocks;
    const before = this.logBytes;
    if (boundaries === undefined) {
      this.appendBlock(blocks.firstIndex, blocks.lastIndex, start, blocks.bytes, firstIndex);
    } else {
      const { firstIndexes, offsets } = boundaries;
      for (let block = 0; block < offsets.length; block++) {
        const last = (firstIndexes[block + 1] ?? blocks.lastIndex + 1) - 1;
        const length = (offsets[block + 1] ?? blocks.bytes) - offsets[block]!;
        this.appendBlock(firstIndexes[block]!, last, start + offsets[block]!, length, firstIndex);
      }
    }
    this.unflushedEntries += blocks.lastIndex - this.lastIndex;
    this.unflushedBytes += this.logBytes - before;
    this.lastIndex = blocks.lastIndex;
  }

  truncateAfter(index: LogIndex): void {
    if (index >= this.lastIndex) return;
    this.lastRead = undefined;
    const block = this.blockOf(index + 1);
    const first = this.firsts[block]!;
    const partLength = this.lengths[block]!;
    const part =
      index >= first
        ? sliceBlock(this.chunks[block]!, this.offsets[block]!, first, index, partLength)
        : undefined;
    if (block < this.durableBlocks) {
      const removed: PlacedBlock[] = [];
      for (let place = block; place < this.durableBlocks; place++) removed.push(this.placed(place));
      this.truncatedDurable = [...removed, ...this.truncatedDurable];
      this.durableBlocks = block;
    }
    for (let place = block; place < this.lengths.length; place++) {
      this.logBytes -= this.lengths[place]!;
    }
    this.firsts.length = block;
    this.chunks.length = block;
    this.offsets.length = block;
    this.lengths.length = block;
    this.cursor = 0;
    if (part !== undefined) this.pushBlock(first, part, 0, part.length);
    this.lastIndex = index;
  }

  setVote(vote: Vote): void {
    this.vote = vote;
  }

  setCommitted(index: LogIndex): void {
    if (index > this.committed) this.committed = index;
  }

  /** Returns true for the first I/O since the last flush. */
  startIo(io: IoId): boolean {
    const before = this.pendingIo;
    invariant(
      before === undefined || before.sequence < io.sequence,
      'the I/O of a group is numbered in order',
    );
    this.pendingIo = io;
    return before === undefined;
  }

  /** Takes the I/O that was flushed. */
  completeIo(): IoId {
    const io = this.pendingIo;
    invariant(io !== undefined, 'a flushed group has I/O');
    this.pendingIo = undefined;
    return io;
  }

  /** All that was written so far is durable. */
  flushed(): void {
    this.durableVote = this.vote;
    this.durableLastIndex = this.lastIndex;
    this.durableCommitted = Math.min(this.committed, this.lastIndex);
    this.durableBlocks = this.firsts.length;
    if (this.truncatedDurable.length > 0) this.truncatedDurable = [];
    this.unflushedEntries = 0;
    this.unflushedBytes = 0;
  }

  /** What a crash at this moment leaves. */
  image(): GroupImage {
    const blocks: PlacedBlock[] = [];
    for (let place = 0; place < this.durableBlocks; place++) blocks.push(this.placed(place));
    return {
      vote: this.durableVote,
      committed: this.durableCommitted,
      lastIndex: this.durableLastIndex,
      blocks: blocks.concat(this.truncatedDurable),
    };
  }

  /** Every block of the log, for recovery. */
  blocks(): PlacedBlock[] {
    return this.firsts.map((_, place) => this.placed(place));
  }

  recovered(termRuns: readonly TermRun[], memberships: readonly StoredMembership[]): RecoveredLog {
    const { vote, lastIndex, committed } = this;
    return { vote, purged: NO_LOG_ID, termRuns, lastIndex, committed, memberships };
  }

  read(firstIndex: LogIndex, lastIndex: LogIndex, maxBytes: number): EntriesLease {
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
    const parts: Uint8Array[] = [];
    let total = 0;
    let next = firstIndex;
    let block = this.blockOf(firstIndex);
    // Whole blocks that stand one behind the other become one part.
    let spanStart = 0;
    let spanEnd = 0;
    let spanChunk: Uint8Array | undefined;
    for (; next <= lastIndex; block++) {
      const first = this.firsts[block]!;
      const last = this.lastOf(block);
      const length = this.lengths[block]!;
      const chunk = this.chunks[block]!;
      const offset = this.offsets[block]!;
      const whole = next === first && last <= lastIndex;
      if (whole && total + length <= maxBytes) {
        if (chunk !== spanChunk || offset !== spanEnd) {
          if (spanChunk !== undefined) parts.push(spanChunk.subarray(spanStart, spanEnd));
          spanChunk = chunk;
          spanStart = offset;
        }
        spanEnd = offset + length;
        total += length;
        next = last + 1;
        continue;
      }
      // A block is cut for what the caller asked for; for the budget only when nothing is there yet.
      if (total > 0 && (whole || total + length > maxBytes)) break;
      const cut = sliceBlock(chunk, offset, next, Math.min(last, lastIndex), maxBytes - total);
      if (spanChunk !== undefined) parts.push(spanChunk.subarray(spanStart, spanEnd));
      spanChunk = undefined;
      parts.push(cut);
      total += cut.length;
      next += entriesOfBlock(cut);
      if (next <= last) break;
    }
    if (spanChunk !== undefined) parts.push(spanChunk.subarray(spanStart, spanEnd));
    this.cursor = block;
    return new MemoryLease(firstIndex, next - 1, parts, total);
  }

  private appendBlock(
    first: LogIndex,
    last: LogIndex,
    offset: number,
    length: number,
    from: LogIndex,
  ): void {
    if (from <= first) {
      this.pushBlock(first, this.chunk, offset, length);
    } else if (from <= last) {
      const part = sliceBlock(this.chunk, offset, from, last, length);
      this.pushBlock(from, part, 0, part.length);
    }
  }

  private pushBlock(first: LogIndex, chunk: Uint8Array, offset: number, length: number): void {
    this.firsts.push(first);
    this.chunks.push(chunk);
    this.offsets.push(offset);
    this.lengths.push(length);
    this.logBytes += length;
  }

  private placed(block: number): PlacedBlock {
    const offset = this.offsets[block]!;
    const bytes = this.chunks[block]!.subarray(offset, offset + this.lengths[block]!);
    return { firstIndex: this.firsts[block]!, bytes };
  }

  private lastOf(block: number): LogIndex {
    return (block + 1 < this.firsts.length ? this.firsts[block + 1]! : this.lastIndex + 1) - 1;
  }

  private blockOf(index: LogIndex): number {
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
}
