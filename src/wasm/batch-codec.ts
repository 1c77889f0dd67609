/**
 * Seals a batch just before it is written, and verifies one that was read. Needs no scratch, so any
 * thread that attached the heap may have one.
 */
import { invariant } from '../base/assert.js';
import { BATCH, BATCH_FLAG, HARD_STATE, SECTOR_BYTES } from './layout.js';
import type { SharedHeap } from './shared-heap.js';
import { type VerifyFailure, verifyFailure } from './verify-error.js';

export interface BatchToSeal {
  /** Bits of BATCH_FLAG. */
  readonly flags: number;
  readonly lane: number;
  readonly lsn: number;
  readonly segment: number;
  readonly epoch: number;
  /** How many blocks stand behind the header room. */
  readonly blocks: number;
  /** How many items they have together. */
  readonly items: number;
  /** How many bytes they have together. */
  readonly blocksLength: number;
  /** How many hard states stand behind the blocks. */
  readonly hardStates: number;
}

export interface HardStateFields {
  readonly group: number;
  readonly term: number;
  /** 0 is nobody. */
  readonly votedFor: number;
  readonly voteCommitted: boolean;
  readonly committed: number;
}

function padded(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}

/** Bytes of a sealed batch, padding and repeated hard states included. */
export function batchBytes(blocksLength: number, hardStates: number, flags: number): number {
  const stateBytes = hardStates * HARD_STATE.bytes;
  const once = padded(BATCH.bytes + blocksLength + stateBytes);
  return (flags & BATCH_FLAG.repeated) === 0 ? once : once + padded(stateBytes);
}

/** Writes all of a hard state but LSN, epoch and checksum, which `sealBatch` adds. */
export function writeHardState(view: DataView, pointer: number, state: HardStateFields): void {
  const offset = HARD_STATE.offset;
  view.setUint32(pointer + offset.magic, HARD_STATE.magic, true);
  view.setUint32(pointer + offset.group, state.group, true);
  view.setBigUint64(pointer + offset.term, BigInt(state.term), true);
  view.setBigUint64(pointer + offset.votedFor, BigInt(state.votedFor), true);
  view.setUint32(pointer + offset.flags, state.voteCommitted ? 1 : 0, true);
  view.setUint32(pointer + offset.reserved, 0, true);
  view.setBigUint64(pointer + offset.committed, BigInt(state.committed), true);
}

export class BatchCodec {
  private readonly heap: SharedHeap;

  constructor(heap: SharedHeap) {
    this.heap = heap;
  }

  /** Seals the batch at `pointer` and returns its length, which is `batchBytes(…)`. */
  sealBatch(pointer: number, room: number, batch: BatchToSeal): number {
    const sealed =
      this.heap.exports.sealBatch(
        pointer,
        room,
        batch.flags,
        batch.lane,
        batch.lsn,
        batch.segment,
        batch.epoch,
        batch.blocks,
        batch.items,
        batch.blocksLength,
        batch.hardStates,
      ) >>> 0;
    invariant(sealed > 0, 'a batch fits the room it was given and has known flags');
    return sealed;
  }

  /**
   * Verifies the batch at `pointer` of which at most `available` bytes are there. Returns what is
   * wrong, `undefined` when nothing is: what a bad batch means is for the caller to tell.
   */
  verifyBatch(pointer: number, available: number): VerifyFailure | undefined {
    const code = this.heap.exports.verifyBatch(pointer, available);
    return code === 0 ? undefined : verifyFailure(code);
  }
}
