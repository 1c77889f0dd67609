/**
 * A block that is in memory, and leases over such blocks.
 *
 * A truncation may end a block early (`lastIndex`), and a reader may start inside one: then the part
 * that is wanted is cut out (block-slice.ts). So every part of a lease is whole blocks.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import type { RingBatch } from './entry-ring.js';
import type { EntriesLease } from './log-store.js';

export interface CachedBlock {
  readonly batch: RingBatch;
  readonly pointer: number;
  readonly length: number;
  readonly items: number;
  readonly firstIndex: LogIndex;
  /** Falls when the log is truncated inside the block. */
  lastIndex: LogIndex;
  evicted: boolean;
}

export function isWhole(block: CachedBlock): boolean {
  return block.lastIndex === block.firstIndex + block.items - 1;
}

/** A lease that pins batches of the ring, or none when all its parts are copies. */
export class CountedLease implements EntriesLease {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly parts: readonly Uint8Array[];
  readonly bytes: number;
  private readonly batches: readonly RingBatch[];
  private readonly unpinned: () => void;
  private references = 1;

  constructor(
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    parts: readonly Uint8Array[],
    bytes: number,
    batches: readonly RingBatch[],
    unpinned: () => void,
  ) {
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.parts = parts;
    this.bytes = bytes;
    this.batches = batches;
    this.unpinned = unpinned;
    for (const batch of batches) batch.pins++;
  }

  retain(): void {
    invariant(this.references > 0, 'a lease is retained while it is held');
    this.references++;
  }

  release(): void {
    invariant(this.references > 0, 'a lease is released once per reference');
    this.references--;
    if (this.references > 0) return;
    for (const batch of this.batches) batch.pins--;
    this.unpinned();
  }
}
