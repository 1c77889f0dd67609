/**
 * Encodes payloads as a block and verifies blocks that were received: one crossing into WASM each.
 *
 * ```
 * scratch [summary 48][term runs, 16 each]…[membership marks, 16 each]…
 * ```
 *
 * The scratch belongs to one codec, and a codec to one thread.
 */
import { invariant } from '../base/assert.js';
import { unboxed } from '../base/unboxed.js';
import { BLOCKS_SUMMARY } from './abi.js';
import { BLOCK, ITEM } from './layout.js';
import type { SharedHeap } from './shared-heap.js';
import { corruptBlocks, verifyFailure } from './verify-error.js';

/** Limits of what one call to `verifyBlocks` reports; blocks with more are refused. */
export const MAX_TERM_RUNS = 1024;
const MAX_MARKS = 1024;
const RUN_BYTES = 16;
const MARK_BYTES = 16;
const MARKS_OFFSET = BLOCKS_SUMMARY.bytes + MAX_TERM_RUNS * RUN_BYTES;

const NO_PLACES: readonly PayloadPlace[] = [];

/** Up to this length a loop is faster than `Uint8Array.set`. */
const SHORT_COPY_BYTES = 16;

export interface BlockToEncode {
  readonly group: number;
  readonly firstIndex: number;
  readonly term: number;
  /** ms since the epoch. */
  readonly time: number;
  /** See ENTRY_KIND. */
  readonly kind: number;
  /** `payloads[0 … count)` are used. */
  readonly payloads: readonly Uint8Array[];
  readonly count: number;
}

export interface VerifiedBlocks {
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** Time of the last entry, ms since the epoch. */
  readonly lastTime: number;
  readonly items: number;
  readonly blocks: number;
  /** Ascending; the first starts at `firstIndex`. */
  readonly termRuns: readonly { readonly firstIndex: number; readonly term: number }[];
  /** The entries of kind membership: where their payloads stand in the shared memory. */
  readonly memberships: readonly PayloadPlace[];
}

export interface PayloadPlace {
  readonly index: number;
  readonly pointer: number;
  readonly length: number;
}

/** Bytes of the block that `encodeBlock` makes of these payloads. */
export function blockBytes(payloads: readonly Uint8Array[], count: number): number {
  let bytes = BLOCK.bytes + count * ITEM.bytes;
  for (let i = 0; i < count; i++) bytes += payloads[i]!.length;
  return bytes;
}

export class BlockCodec {
  /** What a codec needs when it does not reserve its scratch itself; aligned to 16. */
  static readonly scratchBytes: number = MARKS_OFFSET + MAX_MARKS * MARK_BYTES;
  private readonly heap: SharedHeap;
  private readonly scratch: number;

  constructor(heap: SharedHeap, scratch: number = heap.reserve(BlockCodec.scratchBytes, 16)) {
    this.heap = heap;
    this.scratch = scratch;
  }

  /**
   * Copies each payload once, behind the item table at `pointer`, and writes the block around them.
   * The caller has `blockBytes(payloads, count)` of room there. Returns these bytes.
   */
  encodeBlock(pointer: number, room: number, block: BlockToEncode): number {
    const { payloads, count } = block;
    const { bytes, view } = this.heap;
    let length = pointer + BLOCK.bytes + ITEM.offset.length;
    let payloadPointer = pointer + BLOCK.bytes + count * ITEM.bytes;
    const end = pointer + room;
    for (let i = 0; i < count; i++) {
      const payload = payloads[i]!;
      const payloadBytes = payload.length;
      invariant(payloadPointer + payloadBytes <= end, 'the block fits the room it was given');
      view.setUint32(length, payloadBytes, true);
      if (payloadBytes <= SHORT_COPY_BYTES) {
        for (let j = 0; j < payloadBytes; j++) bytes[payloadPointer + j] = payload[j]!;
      } else {
        bytes.set(payload, payloadPointer);
      }
      length += ITEM.bytes;
      payloadPointer += payloadBytes;
    }
    return this.completeBlock(pointer, room, block);
  }

  /**
   * The second half of `encodeBlock`, for payloads that are in place already: they stand one after
   * the other behind the item table, and each item holds the length of its payload.
   */
  completeBlock(pointer: number, room: number, block: Omit<BlockToEncode, 'payloads'>): number {
    const { group, count, firstIndex, term, time, kind } = block;
    const encoded =
      this.heap.exports.encodeBlock(pointer, room, group, count, firstIndex, term, time, kind) >>>
      0;
    invariant(encoded > 0, 'a block has entries and fits the room it was given');
    return encoded;
  }

  /**
   * Verifies the consecutive blocks in [pointer, pointer + length), as `KeelsonExports.verifyBlocks`
   * states.
   * @throws KeelsonError KEELSON_CORRUPT_FRAME, with `details.reason`, when anything is wrong.
   */
  verifyBlocks(
    pointer: number,
    length: number,
    group: number,
    expectedFirstIndex: number,
  ): VerifiedBlocks {
    const code = this.heap.exports.verifyBlocks(
      pointer,
      length,
      group,
      expectedFirstIndex,
      this.scratch,
      MAX_TERM_RUNS,
      MAX_MARKS,
    );
    if (code !== 0) throw corruptBlocks(verifyFailure(code), group);
    return this.readSummary();
  }

  /**
   * What `verifyBlocks` tells, of one block of a verified batch.
   * @throws KeelsonError KEELSON_CORRUPT_FRAME, with `details.reason`, when it holds other than log entries.
   */
  describeBlock(pointer: number, length: number, group: number): VerifiedBlocks {
    const { exports } = this.heap;
    const code = exports.describeBlock(pointer, length, this.scratch, MAX_TERM_RUNS, MAX_MARKS);
    if (code !== 0) throw corruptBlocks(verifyFailure(code), group);
    return this.readSummary();
  }

  private readSummary(): VerifiedBlocks {
    const view = this.heap.view;
    const at = this.scratch;
    const offset = BLOCKS_SUMMARY.offset;
    // Blocks have entries, so there is a first run; mostly there is no other.
    const termRuns = [this.readRun(0)];
    const runs = view.getUint32(at + offset.runs, true);
    for (let i = 1; i < runs; i++) termRuns.push(this.readRun(i));
    const marks = view.getUint32(at + offset.marks, true);
    return {
      firstIndex: unboxed(view.getFloat64(at + offset.firstIndex, true)),
      lastIndex: unboxed(view.getFloat64(at + offset.lastIndex, true)),
      lastTerm: unboxed(view.getFloat64(at + offset.lastTerm, true)),
      lastTime: view.getFloat64(at + offset.lastTime, true),
      items: view.getUint32(at + offset.items, true),
      blocks: view.getUint32(at + offset.blocks, true),
      termRuns,
      memberships: marks === 0 ? NO_PLACES : this.readMarks(marks),
    };
  }

  private readRun(number: number): VerifiedBlocks['termRuns'][number] {
    const { view } = this.heap;
    const run = this.scratch + BLOCKS_SUMMARY.bytes + number * RUN_BYTES;
    return {
      firstIndex: unboxed(view.getFloat64(run, true)),
      term: unboxed(view.getFloat64(run + 8, true)),
    };
  }

  private readMarks(count: number): PayloadPlace[] {
    const { view } = this.heap;
    const places: PayloadPlace[] = [];
    for (let i = 0; i < count; i++) {
      const mark = this.scratch + MARKS_OFFSET + i * MARK_BYTES;
      places.push({
        index: unboxed(view.getFloat64(mark, true)),
        pointer: view.getUint32(mark + 8, true),
        length: view.getUint32(mark + 12, true),
      });
    }
    return places;
  }
}
