/**
 * Which entries stand in a batch that does not verify: its blocks are walked by their headers, and each
 * is verified alone. A block that is sound in itself is not named, whatever else the batch has lost.
 */
import { KeelsonError } from '../../base/errors.js';
import { BlockCodec } from '../../wasm/block-codec.js';
import { BATCH, BLOCK, ITEM } from '../../wasm/layout.js';
import type { SharedHeap } from '../../wasm/shared-heap.js';
import { readU64 } from '../storage-memory.js';

export interface DamagedBlock {
  readonly group: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** From the start of the batch. */
  readonly offset: number;
}

/** Kinds from here on are records about the log. */
const FIRST_RECORD_KIND = 128;

/** `pointer`: where the batch begins in memory; `length`: the bytes that may belong to it. */
export function findDamagedBlocks(
  heap: SharedHeap,
  summary: number,
  pointer: number,
  length: number,
): DamagedBlock[] {
  const { view } = heap;
  const codec = new BlockCodec(heap, summary);
  const damaged: DamagedBlock[] = [];
  const end = pointer + length;
  for (let at = pointer + BATCH.bytes; at + BLOCK.bytes + ITEM.bytes <= end; ) {
    if (view.getUint32(at + BLOCK.offset.magic, true) !== BLOCK.magic) break;
    const group = view.getUint32(at + BLOCK.offset.group, true);
    const items = view.getUint32(at + BLOCK.offset.items, true);
    const payloads = view.getUint32(at + BLOCK.offset.payloadLength, true);
    const firstIndex = readU64(view, at + BLOCK.offset.firstIndex);
    const bytes = BLOCK.bytes + items * ITEM.bytes + payloads;
    if (items === 0 || at + bytes > end) break;
    const kind = view.getUint32(at + BLOCK.bytes + ITEM.offset.kind, true);
    if (kind < FIRST_RECORD_KIND && !isSound(codec, at, bytes, group, firstIndex)) {
      damaged.push({ group, firstIndex, lastIndex: firstIndex + items - 1, offset: at - pointer });
    }
    at += bytes;
  }
  return damaged;
}

function isSound(
  codec: BlockCodec,
  pointer: number,
  bytes: number,
  group: number,
  firstIndex: number,
): boolean {
  try {
    codec.verifyBlocks(pointer, bytes, group, firstIndex);
    return true;
  } catch (error) {
    if (error instanceof KeelsonError) return false;
    throw error;
  }
}
