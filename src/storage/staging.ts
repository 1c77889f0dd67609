/**
 * Entries between `stage` or `receive` and `append`: they stand in the ring right behind the open
 * batch and do not count until appended, so that giving them up costs nothing. A record of a truncation
 * moves them further back. When something else needs that place first (another group, the close of the
 * batch), they are copied into ordinary memory and come back when they are appended.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex, TermRun } from '../engine/types.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { sliceBlock } from './block-slice.js';
import type { GroupLog } from './group-log.js';
import type { StagedEntries } from './log-store.js';
import { readU64 } from './storage-memory.js';

export interface StagedBlock {
  /** Offset from the first block. */
  readonly offset: number;
  readonly length: number;
  readonly items: number;
  readonly firstIndex: LogIndex;
}

export class Staging implements StagedEntries {
  readonly group: GroupLog;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly termRuns: readonly TermRun[];
  readonly memberships: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[];
  readonly bytes: number;
  readonly lastTime: number;
  /** Set while the bytes are not in the ring. */
  parked: Uint8Array | undefined;

  constructor(group: GroupLog, entries: StagedEntries) {
    this.group = group;
    this.firstIndex = entries.firstIndex;
    this.lastIndex = entries.lastIndex;
    this.termRuns = entries.termRuns;
    this.memberships = entries.memberships;
    this.bytes = entries.bytes;
    this.lastTime = entries.lastTime;
  }
}

/** The blocks that stand in [pointer, pointer + length); they have been verified. */
export function listBlocks(view: DataView, pointer: number, length: number): StagedBlock[] {
  const blocks: StagedBlock[] = [];
  for (let offset = 0; offset < length; ) {
    const at = pointer + offset;
    const items = view.getUint32(at + BLOCK.offset.items, true);
    const payloadLength = view.getUint32(at + BLOCK.offset.payloadLength, true);
    const bytes = BLOCK.bytes + items * ITEM.bytes + payloadLength;
    const firstIndex = readU64(view, at + BLOCK.offset.firstIndex);
    blocks.push({ offset, length: bytes, items, firstIndex });
    offset += bytes;
  }
  return blocks;
}

/** Of verified blocks: some are not entries of the log itself. */
export function holdsEntriesOfClients(view: DataView, pointer: number, length: number): boolean {
  return listBlocks(view, pointer, length).some(({ offset, items }) => {
    for (let item = 0; item < items; item++) {
      const at = pointer + offset + BLOCK.bytes + item * ITEM.bytes;
      if (view.getUint32(at + ITEM.offset.kind, true) === ENTRY_KIND.application) return true;
    }
    return false;
  });
}

/** Drops the entries before `firstIndex` from the front of staged blocks; returns the bytes left. */
export function dropBefore(
  heap: SharedHeap,
  pointer: number,
  length: number,
  firstIndex: LogIndex,
): number {
  const { bytes, view } = heap;
  const blocks = listBlocks(view, pointer, length);
  const kept = blocks.find((block) => block.firstIndex + block.items > firstIndex);
  invariant(kept !== undefined, 'something is left to append');
  let target = pointer;
  let source = pointer + kept.offset;
  if (kept.firstIndex < firstIndex) {
    const last = kept.firstIndex + kept.items - 1;
    const part = sliceBlock(bytes, source, firstIndex, last, kept.length);
    bytes.set(part, target);
    target += part.length;
    source += kept.length;
  }
  bytes.copyWithin(target, source, pointer + length);
  return target - pointer + (pointer + length - source);
}
