/**
 * The log of one group in memory: its blocks, its vote, and its I/O.
 *
 * Everything becomes durable at once, when the store flushes. Until then the group remembers what a
 * crash would bring back: how many blocks at the start are durable, and the durable ones that a
 * truncation or a reset has taken off the end. What is purged goes when that is durable, in whole blocks.
 */
import { invariant } from '../base/assert.js';
import {
  type IoId,
  type LogId,
  type LogIndex,
  NO_LOG_ID,
  NO_VOTE,
  type RecoveredLog,
  type StoredMembership,
  type TermRun,
  type Vote,
} from '../engine/types.js';
import { sliceBlock } from './block-slice.js';
import type { EntriesLease, StagedEntries } from './log-store.js';
import { type LooseBlock, MemoryLogBlocks } from './memory-log-blocks.js';
import type { MemoryLogStaging } from './memory-log-staging.js';
import { TermRunList } from './term-run-list.js';

/** What of a group survives a crash. */
export interface GroupImage {
  readonly vote: Vote;
  readonly purged: LogId;
  readonly committed: LogIndex;
  readonly blocks: MemoryLogBlocks;
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

export class MemoryLogGroup {
  readonly group: number;
  /** Entries and bytes appended since the last flush. */
  unflushedEntries = 0;
  unflushedBytes = 0;
  /** The last I/O that the next flush completes. */
  private pendingIo: IoId | undefined;
  private pending = false;
  /** The last I/O that was flushed, until it is taken. */
  private flushedIo: IoId | undefined;
  private vote: Vote = NO_VOTE;
  private committed: LogIndex = 0;
  private purged: LogId = NO_LOG_ID;
  private readonly blocks: MemoryLogBlocks;
  private readonly termRuns: TermRunList = new TermRunList();
  private staged: StagedBlocks | undefined;
  private durableVote: Vote = NO_VOTE;
  private durableCommitted: LogIndex = 0;
  private durablePurged: LogId = NO_LOG_ID;
  private durableBlocks = 0;
  private truncatedDurable: LooseBlock[] = [];

  constructor(group: number, staging: MemoryLogStaging, image: GroupImage | undefined) {
    this.group = group;
    this.blocks = image?.blocks ?? new MemoryLogBlocks(group, staging);
    if (image === undefined) return;
    this.blocks.attach(staging);
    this.vote = image.vote;
    this.committed = image.committed;
    this.purged = image.purged;
    this.flushed();
  }

  /** Bytes of all blocks in the log. */
  get logBytes(): number {
    return this.blocks.encodedBytes;
  }

  /** Memory that holds the log, in use or not. */
  get memoryBytes(): number {
    return this.blocks.memoryBytes;
  }

  get blockCount(): number {
    return this.blocks.count;
  }

  /** Copies bytes behind the end of the log; they stay there until the next staging. */
  placeStaged(source: DataView, from: number, length: number): void {
    this.blocks.place(source, from, length);
  }

  /** A view of the bytes that were placed last; it ends with the staging. */
  stagedBytes(offset: number, length: number): Uint8Array {
    return this.blocks.placedBytes(offset, length);
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
    const { blocks } = this;
    const range = this.staged;
    this.staged = undefined;
    if (firstIndex <= blocks.lastIndex || firstIndex > range.firstIndex) {
      this.replaceFrom(firstIndex, range);
      this.termRuns.append(firstIndex, range.termRuns);
      return;
    }
    this.termRuns.append(firstIndex, range.termRuns);
    const before = blocks.lastIndex;
    const { boundaries } = range;
    if (boundaries === undefined) {
      blocks.keepPlaced(range.firstIndex, range.lastIndex, range.bytes);
    } else {
      for (let block = 0; block < boundaries.offsets.length; block++) {
        const { firstIndex: first, lastIndex: last, length } = stagedBlock(range, block);
        blocks.keepPlaced(first, last, length);
      }
    }
    this.unflushedEntries += range.lastIndex - before;
    this.unflushedBytes += range.bytes;
  }

  /** Appends staged blocks from an index on which is in the log, or not the first of the blocks. */
  private replaceFrom(firstIndex: LogIndex, range: StagedBlocks): void {
    // The end of the window, where they stand, may be needed for the block that a truncation cuts.
    const bytes = this.stagedBytes(0, range.bytes).slice();
    this.truncateAfter(firstIndex - 1);
    for (let block = 0; block < (range.boundaries?.offsets.length ?? 1); block++) {
      const { firstIndex: first, lastIndex, offset, length } = stagedBlock(range, block);
      if (lastIndex < firstIndex) continue;
      const kept =
        first < firstIndex
          ? sliceBlock(bytes, offset, firstIndex, lastIndex, length)
          : bytes.subarray(offset, offset + length);
      this.blocks.push({ firstIndex: Math.max(first, firstIndex), lastIndex, bytes: kept });
      this.unflushedBytes += kept.length;
    }
    this.unflushedEntries += range.lastIndex - firstIndex + 1;
  }

  truncateAfter(index: LogIndex): void {
    const { blocks } = this;
    if (index >= blocks.lastIndex) return;
    this.termRuns.truncateAfter(index);
    const block = blocks.blockOf(index + 1);
    const { firstIndex, bytes } = blocks.loose(block);
    if (block < this.durableBlocks) {
      const removed: LooseBlock[] = [];
      for (let cut = block; cut < this.durableBlocks; cut++) removed.push(blocks.loose(cut));
      this.truncatedDurable = [...removed, ...this.truncatedDurable];
      this.durableBlocks = block;
    }
    blocks.cutTo(block);
    if (index < firstIndex) return;
    const part = sliceBlock(bytes, 0, firstIndex, index, bytes.length);
    blocks.push({ firstIndex, lastIndex: index, bytes: part });
  }

  purge(upTo: LogId): void {
    if (upTo.index <= this.purged.index) return;
    invariant(upTo.index <= this.blocks.lastIndex, 'what is purged was in the log');
    this.purged = upTo;
    this.termRuns.purge(upTo.index);
  }

  reset(lastIncluded: LogId): void {
    const { index } = lastIncluded;
    const ahead = index > this.purged.index && index >= this.committed;
    invariant(ahead, 'a log begins anew behind what it has purged and committed');
    // From its first block on, which is durable still when a purge before this is not.
    this.truncateAfter(this.blocks.firstIndex - 1);
    this.blocks.beginBehind(lastIncluded.index);
    this.durableBlocks = 0;
    this.termRuns.truncateAfter(0);
    this.purged = lastIncluded;
  }

  setVote(vote: Vote): void {
    this.vote = vote;
  }

  setCommitted(index: LogIndex): void {
    if (index > this.committed) this.committed = index;
  }

  /** An I/O, or a change that nobody waits for. Returns true for the first since the last flush. */
  startIo(io: IoId | undefined): boolean {
    const before = this.pendingIo;
    invariant(
      before === undefined || io === undefined || before.sequence < io.sequence,
      'the I/O of a group is numbered in order',
    );
    this.pendingIo = io ?? before;
    const first = !this.pending;
    this.pending = true;
    return first;
  }

  /** Takes the I/O that was flushed, if there was one. */
  completeIo(): IoId | undefined {
    const io = this.flushedIo;
    this.flushedIo = undefined;
    return io;
  }

  /** All that was written so far is durable. */
  flushed(): void {
    this.flushedIo = this.pendingIo;
    this.pendingIo = undefined;
    this.pending = false;
    this.durableVote = this.vote;
    this.durableCommitted = Math.min(this.committed, this.blocks.lastIndex);
    this.durablePurged = this.purged;
    this.blocks.dropFirst(this.blocks.blocksThrough(this.purged.index));
    this.durableBlocks = this.blocks.count;
    if (this.truncatedDurable.length > 0) this.truncatedDurable = [];
    this.unflushedEntries = 0;
    this.unflushedBytes = 0;
  }

  /** What a crash at this moment leaves. The group ends with it: its blocks are part of the image. */
  takeImage(): GroupImage {
    const { blocks, durableVote: vote, durableCommitted: committed, durablePurged: purged } = this;
    blocks.cutTo(this.durableBlocks);
    if (this.durableBlocks === 0) {
      blocks.beginBehind((this.truncatedDurable[0]?.firstIndex ?? purged.index + 1) - 1);
    }
    for (const block of this.truncatedDurable) blocks.push(block);
    return { vote, committed, purged, blocks };
  }

  /** One block of the log, for recovery. */
  block(number: number): LooseBlock {
    return this.blocks.loose(number);
  }

  recovered(termRuns: readonly TermRun[], memberships: readonly StoredMembership[]): RecoveredLog {
    const { vote, committed, purged } = this;
    const firstIndex = purged.index + 1;
    this.termRuns.truncateAfter(0);
    this.termRuns.append(firstIndex, termRuns);
    const { lastIndex } = this.blocks;
    const kept = memberships.filter((stored) => stored.index >= firstIndex);
    return {
      vote,
      purged,
      termRuns: this.termRuns.list(),
      lastIndex,
      committed,
      memberships: kept,
    };
  }

  read(firstIndex: LogIndex, lastIndex: LogIndex, maxBytes: number): EntriesLease {
    invariant(firstIndex > this.purged.index, 'what is read is not purged');
    const last = this.termRuns.lastReadable(firstIndex, lastIndex);
    return this.blocks.read(firstIndex, last, maxBytes);
  }
}

interface StagedBlock {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly offset: number;
  readonly length: number;
}

function stagedBlock(range: StagedBlocks, block: number): StagedBlock {
  const firstIndexes = range.boundaries?.firstIndexes ?? [range.firstIndex];
  const offsets = range.boundaries?.offsets ?? [0];
  const offset = offsets[block]!;
  return {
    firstIndex: firstIndexes[block]!,
    lastIndex: (firstIndexes[block + 1] ?? range.lastIndex + 1) - 1,
    offset,
    length: (offsets[block + 1] ?? range.bytes) - offset,
  };
}
