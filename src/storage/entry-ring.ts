/**
 * Shared memory of a lane, in which blocks are staged, written from, and kept as cache.
 *
 * ```
 * [flushed batch, cached]…[batch being written]…[closed batch]…[open batch →        ][free]
 *  ↑ tail: evicted when room is needed, unless pinned                 ↑ grows
 * ```
 *
 * Each batch is one contiguous range that starts on a sector: header room, blocks, hard states,
 * padding. It is written from where it stands, and never moves. A batch that does not fit before the
 * end of the memory starts at the beginning. A batch may be evicted once it is durable and neither a
 * socket nor a state machine holds a pin on it; a pinned tail when room is needed is a full ring.
 *
 * Votes, truncations and the entry that opens a term must never be refused: when the ring is full they
 * go into small slots that are kept for them. A slot is no cache: it is free once its batch is durable,
 * whoever holds a pin.
 */
import { invariant } from '../base/assert.js';
import { batchBytes } from '../wasm/batch-codec.js';
import { BATCH, BATCH_FLAG, HARD_STATE, SECTOR_BYTES } from '../wasm/layout.js';
import type { CachedBlock } from './cached-block.js';
import type { SealCommand } from './lane-writer.js';
import { alignToSector } from './sector.js';

const CONTROL_SLOT_BYTES = 4 * SECTOR_BYTES;
/** As many as fit into a control slot twice, when nothing else is in it. */
export const MAX_CONTROL_HARD_STATES: number =
  (CONTROL_SLOT_BYTES / 2 - BATCH.bytes) / HARD_STATE.bytes;

export interface EntryRingOptions {
  /** Sector-aligned pointer of `ringBytes + controlSlots * controlSlotBytes` bytes. */
  readonly pointer: number;
  /** A multiple of 4 KiB. */
  readonly ringBytes: number;
  readonly controlSlots: number;
}

/** A batch from its first staged byte until it is evicted. */
export class RingBatch {
  readonly start: number;
  /** One of the slots for what is never refused; not part of the ring. */
  readonly controlSlot: boolean;
  /** Bytes of the ring that it occupies. */
  span = 0;
  blocksLength = 0;
  blocks = 0;
  items = 0;
  /** Set at close. */
  totalLength = 0;
  closed = false;
  durable = false;
  pins = 0;
  cached: CachedBlock[] = [];

  constructor(start: number, controlSlot: boolean) {
    this.start = start;
    this.controlSlot = controlSlot;
  }

  /** Where the next block goes. */
  get end(): number {
    return this.start + BATCH.bytes + this.blocksLength;
  }

  sealCommand(
    hardStates: number,
    flags: number,
    oldestSegment: number,
    roll: boolean,
  ): SealCommand {
    const { start: pointer, blocks, items, blocksLength } = this;
    return { pointer, flags, blocks, items, blocksLength, hardStates, oldestSegment, roll };
  }
}

export class EntryRing {
  readonly ringBytes: number;
  private readonly pointer: number;
  private readonly freeSlots: number[] = [];
  /** In ring order; the open batch, if it is in the ring, is the last. */
  private batches: RingBatch[] = [];
  private open: RingBatch | undefined;

  constructor(options: EntryRingOptions) {
    invariant(
      options.pointer % SECTOR_BYTES === 0 && options.ringBytes % SECTOR_BYTES === 0,
      'the ring is aligned to sectors',
    );
    this.pointer = options.pointer;
    this.ringBytes = options.ringBytes;
    for (let slot = options.controlSlots - 1; slot >= 0; slot--) {
      this.freeSlots.push(options.pointer + options.ringBytes + slot * CONTROL_SLOT_BYTES);
    }
  }

  static bytes(ringBytes: number, controlSlots: number): number {
    return ringBytes + controlSlots * CONTROL_SLOT_BYTES;
  }

  get freeControlSlots(): number {
    return this.freeSlots.length;
  }

  get openBatch(): RingBatch | undefined {
    return this.open;
  }

  usedBytes(): number {
    let used = 0;
    for (const batch of this.batches) used += batch.span;
    return used;
  }

  /** Makes the open batch `blocksBytes` and `hardStates` large; false when there is no room. */
  extend(blocksBytes: number, hardStates: number): boolean {
    const { open } = this;
    invariant(open !== undefined, 'a batch is open');
    const span = reservedBytes(blocksBytes, hardStates);
    if (span <= open.span) return true;
    if (open.controlSlot) return span <= CONTROL_SLOT_BYTES;
    const end = open.start + span;
    if (end > this.pointer + this.ringBytes) return false;
    while (this.overlapsTail(open, end)) if (!this.evictTail()) return false;
    open.span = span;
    return true;
  }

  /** Opens a batch with room for `blocksBytes` of blocks; false when the ring is full. */
  openNext(blocksBytes: number, hardStates: number): boolean {
    invariant(this.open === undefined, 'one batch is open at a time');
    const span = reservedBytes(blocksBytes, hardStates);
    if (span > this.ringBytes) return false;
    const start = this.findRoom(span);
    if (start === undefined) return false;
    const batch = new RingBatch(start, false);
    batch.span = span;
    this.batches.push(batch);
    this.open = batch;
    return true;
  }

  /** Opens a batch for what is never refused, in a slot of its own. */
  openControlSlot(): void {
    invariant(this.open === undefined, 'one batch is open at a time');
    const start = this.freeSlots.pop();
    invariant(start !== undefined, 'there are more control slots than batches under way');
    const batch = new RingBatch(start, true);
    batch.span = CONTROL_SLOT_BYTES;
    this.open = batch;
  }

  /** The open batch takes its final size; what it had reserved beyond is free again. */
  close(hardStates: number, flags: number): RingBatch {
    const { open } = this;
    invariant(open !== undefined, 'a batch is open');
    open.totalLength = batchBytes(open.blocksLength, hardStates, flags);
    invariant(open.totalLength <= open.span, 'a batch stays within its range');
    open.span = open.totalLength;
    open.closed = true;
    this.open = undefined;
    return open;
  }

  /** Gives an open batch up that nothing was put into. */
  abandonOpen(): void {
    const { open } = this;
    invariant(open !== undefined && open.blocksLength === 0, 'only an empty batch is abandoned');
    if (open.controlSlot) this.freeSlots.push(open.start);
    else this.batches.pop();
    this.open = undefined;
  }

  /** The batch is on disk: from now on it is cache, or its slot is free. */
  durable(batch: RingBatch): void {
    batch.durable = true;
    if (!batch.controlSlot) return;
    forget(batch);
    this.freeSlots.push(batch.start);
  }

  /** True when a block of that size would find room now; evicts what it has to. */
  hasRoom(blocksBytes: number): boolean {
    return this.findRoom(reservedBytes(blocksBytes, 1)) !== undefined;
  }

  private findRoom(span: number): number | undefined {
    for (;;) {
      const tail = this.batches[0];
      if (tail === undefined) return this.pointer;
      const last = this.batches[this.batches.length - 1]!;
      const head = last.start + last.span;
      const wrapped = last.start < tail.start;
      if (!wrapped) {
        if (head + span <= this.pointer + this.ringBytes) return head;
        if (this.pointer + span <= tail.start) return this.pointer;
      } else if (head + span <= tail.start) {
        return head;
      }
      if (!this.evictTail()) return undefined;
    }
  }

  private overlapsTail(batch: RingBatch, end: number): boolean {
    const tail = this.batches[0]!;
    return tail !== batch && tail.start > batch.start && end > tail.start;
  }

  private evictTail(): boolean {
    const tail = this.batches[0];
    if (tail === undefined || !tail.durable || tail.pins > 0) return false;
    forget(tail);
    this.batches.shift();
    return true;
  }
}

/** While a batch is open, room for a repeated trailer is kept: a vote may change at any time. */
function reservedBytes(blocksBytes: number, hardStates: number): number {
  return (
    alignToSector(BATCH.bytes + blocksBytes + hardStates * HARD_STATE.bytes) +
    alignToSector(hardStates * HARD_STATE.bytes)
  );
}

function forget(batch: RingBatch): void {
  for (const block of batch.cached) block.evicted = true;
  batch.cached = [];
}

export function batchFlags(repeated: boolean, cleanShutdown: boolean, records: boolean): number {
  return (
    (repeated ? BATCH_FLAG.repeated : 0) |
    (cleanShutdown ? BATCH_FLAG.cleanShutdown : 0) |
    (records ? BATCH_FLAG.records : 0)
  );
}
