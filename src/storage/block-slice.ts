/**
 * Cuts a block: the wanted entries of it, as a block of their own. Items verify alone, so only the
 * header is new; items and payloads keep their bytes.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import { BLOCK, ITEM } from '../wasm/layout.js';

const TWO_POW_32 = 0x1_0000_0000;

/** Entries `firstIndex … lastIndex` of the block at `offset`, cut at `maxBytes` but never empty. */
export function sliceBlock(
  bytes: Uint8Array,
  offset: number,
  firstIndex: LogIndex,
  lastIndex: LogIndex,
  maxBytes: number,
): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = view.getUint32(offset + BLOCK.offset.items, true);
  const blockFirst =
    view.getUint32(offset + BLOCK.offset.firstIndex, true) +
    view.getUint32(offset + BLOCK.offset.firstIndex + 4, true) * TWO_POW_32;
  const skipped = firstIndex - blockFirst;
  invariant(
    skipped >= 0 && lastIndex >= firstIndex && lastIndex < blockFirst + count,
    'the block holds what is cut from it',
  );
  const items = offset + BLOCK.bytes;
  const payloadBytes = (item: number): number =>
    view.getUint32(items + item * ITEM.bytes + ITEM.offset.length, true);

  let payloads = items + count * ITEM.bytes;
  for (let item = 0; item < skipped; item++) payloads += payloadBytes(item);
  let kept = 0;
  let keptPayloadBytes = 0;
  for (let item = skipped; item <= lastIndex - blockFirst; item++) {
    const next = keptPayloadBytes + payloadBytes(item);
    if (kept > 0 && BLOCK.bytes + (kept + 1) * ITEM.bytes + next > maxBytes) break;
    kept++;
    keptPayloadBytes = next;
  }

  const itemBytes = kept * ITEM.bytes;
  const slice = new Uint8Array(BLOCK.bytes + itemBytes + keptPayloadBytes);
  slice.set(bytes.subarray(offset, items));
  const header = new DataView(slice.buffer);
  header.setUint32(BLOCK.offset.items, kept, true);
  header.setUint32(BLOCK.offset.payloadLength, keptPayloadBytes, true);
  header.setUint32(BLOCK.offset.firstIndex, firstIndex % TWO_POW_32, true);
  header.setUint32(BLOCK.offset.firstIndex + 4, Math.floor(firstIndex / TWO_POW_32), true);
  const firstItem = items + skipped * ITEM.bytes;
  slice.set(bytes.subarray(firstItem, firstItem + itemBytes), BLOCK.bytes);
  slice.set(bytes.subarray(payloads, payloads + keptPayloadBytes), BLOCK.bytes + itemBytes);
  return slice;
}

/** Number of entries in the block at the start of `block`. */
export function entriesOfBlock(block: Uint8Array): number {
  return new DataView(block.buffer, block.byteOffset).getUint32(BLOCK.offset.items, true);
}
