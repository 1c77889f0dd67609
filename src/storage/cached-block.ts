/**
 * A block that is in memory, and leases over such blocks.
 *
 * A truncation may end a block early (`lastIndex`), and a reader may start inside one: then the part
 * that is wanted is copied into a block of its own. So every part of a lease is whole blocks.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import { BLOCK, ITEM } from '../wasm/layout.js';
import type { RingBatch } from './entry-ring.js';
import type { EntriesLease } from './log-store.js';
import { writeU64 } from './storage-memory.js';

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

/**
 * Copies the entries `firstIndex … lastIndex` of a block, cut short at `maxBytes` but never empty,
 * into a block in ordinary memory.
 */
export function copyPartOfBlock(
  bytes: Uint8Array,
  view: DataView,
  block: { readonly pointer: number; readonly items: number; readonly firstIndex: LogIndex },
  firstIndex: LogIndex,
  lastIndex: LogIndex,
  maxBytes: number,
): { readonly block: Uint8Array; readonly lastIndex: LogIndex } {
  const items = block.pointer + BLOCK.bytes;
  let payload = items + block.items * ITEM.bytes;
  const skip = firstIndex - block.firstIndex;
  for (let item = 0; item < skip; item++) {
    payload += view.getUint32(items + item * ITEM.bytes + ITEM.offset.length, true);
  }
  let count = 0;
  let payloadLength = 0;
  let total: number = BLOCK.bytes;
  for (let index = firstIndex; index <= lastIndex; index++) {
    const item = items + (index - block.firstIndex) * ITEM.bytes;
    const length = view.getUint32(item + ITEM.offset.length, true);
    if (count > 0 && total + ITEM.bytes + length > maxBytes) break;
    total += ITEM.bytes + length;
    payloadLength += length;
    count++;
  }
  invariant(count > 0, 'a part of a block holds an entry');
  const copy = new Uint8Array(total);
  const header = new DataView(copy.buffer);
  const group = view.getUint32(block.pointer + BLOCK.offset.group, true);
  header.setUint32(BLOCK.offset.magic, BLOCK.magic, true);
  header.setUint32(BLOCK.offset.group, group, true);
  header.setUint32(BLOCK.offset.items, count, true);
  header.setUint32(BLOCK.offset.payloadLength, payloadLength, true);
  writeU64(header, BLOCK.offset.firstIndex, firstIndex);
  const firstItem = items + skip * ITEM.bytes;
  const itemBytes = count * ITEM.bytes;
  copy.set(bytes.subarray(firstItem, firstItem + itemBytes), BLOCK.bytes);
  copy.set(bytes.subarray(payload, payload + payloadLength), BLOCK.bytes + itemBytes);
  return { block: copy, lastIndex: firstIndex + count - 1 };
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
