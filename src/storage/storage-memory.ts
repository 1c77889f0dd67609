/** Numbers and checksums of records in shared memory. */
import type { SharedHeap } from '../wasm/shared-heap.js';

const TWO_POW_32 = 0x1_0000_0000;

export function writeU64(view: DataView, pointer: number, value: number): void {
  view.setUint32(pointer, value % TWO_POW_32, true);
  view.setUint32(pointer + 4, Math.floor(value / TWO_POW_32), true);
}

/** The value of a record that verified; anything beyond the safe integers comes out inexact. */
export function readU64(view: DataView, pointer: number): number {
  return view.getUint32(pointer, true) + view.getUint32(pointer + 4, true) * TWO_POW_32;
}

/** Writes the XXH3-64 of [0, checksumOffset) of a record behind it. */
export function sealRecord(heap: SharedHeap, pointer: number, checksumOffset: number): void {
  heap.exports.xxh3(pointer, checksumOffset, pointer + checksumOffset);
}

/** `scratch`: 8 bytes of shared memory that no other thread uses. */
export function verifiesAlone(
  heap: SharedHeap,
  pointer: number,
  checksumOffset: number,
  scratch: number,
): boolean {
  heap.exports.xxh3(pointer, checksumOffset, scratch);
  const { view } = heap;
  return (
    view.getUint32(scratch, true) === view.getUint32(pointer + checksumOffset, true) &&
    view.getUint32(scratch + 4, true) === view.getUint32(pointer + checksumOffset + 4, true)
  );
}
