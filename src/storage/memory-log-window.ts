/**
 * The newest blocks of a log in memory, encoded, one behind the other in a few chunks:
 *
 * ```
 * [oldest chunk]…[full chunk][open chunk →     ]
 *  ↑ archived and used again when a chunk is needed
 * ```
 *
 * Memory that was never touched costs the system twenty times what a copy into memory in use costs,
 * so the oldest chunk becomes the newest. While a lease holds it, its bytes must not change: then it
 * is left to the lease, and a fresh chunk takes its place.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import type { EntriesLease } from './log-store.js';

const FIRST_CHUNK_BYTES = 64 * 1024;
const CHUNK_BYTES = 512 * 1024;
/** Chunks of the window that are full. */
const FULL_CHUNKS = 3;

export class WindowChunk {
  /** Chunks are numbered in the order in which they were opened. */
  readonly sequence: number;
  readonly bytes: Uint8Array;
  /** Leases that refer to its bytes. */
  pins = 0;

  constructor(sequence: number, bytes: Uint8Array) {
    this.sequence = sequence;
    this.bytes = bytes;
  }
}

export class MemoryLogWindow {
  private open: WindowChunk = new WindowChunk(0, new Uint8Array(FIRST_CHUNK_BYTES));
  private openEnd = 0;
  /** Oldest first; numbered without gaps up to the open one. */
  private readonly full: WindowChunk[] = [];
  private readonly leaves: (chunk: WindowChunk) => void;

  /** `leaves` is told before a chunk goes, and takes all that is needed of it. */
  constructor(leaves: (chunk: WindowChunk) => void) {
    this.leaves = leaves;
  }

  /** Memory of the window, used or not. */
  get bytes(): number {
    let bytes = this.open.bytes.length;
    for (const chunk of this.full) bytes += chunk.bytes.length;
    return bytes;
  }

  get openChunk(): WindowChunk {
    return this.open;
  }

  /** Where the next bytes go, provided that the open chunk has room for them. */
  get end(): number {
    return this.openEnd;
  }

  /** Copies bytes to `end` of the open chunk; the next call overwrites what was not kept. */
  place(bytes: Uint8Array): void {
    if (this.open.bytes.length - this.openEnd < bytes.length) this.openNext(bytes.length);
    this.open.bytes.set(bytes, this.openEnd);
  }

  /** The `bytes` that were placed last stay. */
  keep(bytes: number): void {
    this.openEnd += bytes;
  }

  chunk(sequence: number): WindowChunk {
    const before = this.open.sequence - sequence;
    return before === 0 ? this.open : this.full[this.full.length - before]!;
  }

  private openNext(needed: number): void {
    const last = this.open;
    this.full.push(last);
    const size = Math.max(needed, Math.min(CHUNK_BYTES, 2 * last.bytes.length));
    let bytes: Uint8Array | undefined;
    if (this.full.length > FULL_CHUNKS) {
      const oldest = this.full.shift()!;
      this.leaves(oldest);
      // A chunk that one large block had asked for is not kept for small ones.
      if (oldest.pins === 0 && oldest.bytes.length === size) bytes = oldest.bytes;
    }
    this.open = new WindowChunk(last.sequence + 1, bytes ?? new Uint8Array(size));
    this.openEnd = 0;
  }
}

/** Parts in the chunks that it pins, or copies of its own. */
export class MemoryLease implements EntriesLease {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly parts: readonly Uint8Array[];
  readonly bytes: number;
  private readonly chunks: readonly WindowChunk[];
  private references = 0;

  constructor(
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    parts: readonly Uint8Array[],
    bytes: number,
    chunks: readonly WindowChunk[],
  ) {
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.parts = parts;
    this.bytes = bytes;
    this.chunks = chunks;
    this.retain();
  }

  /** From no reference at all, too: whoever keeps a lease forgets it when a chunk leaves. */
  retain(): void {
    if (this.references++ > 0) return;
    for (let place = 0; place < this.chunks.length; place++) this.chunks[place]!.pins++;
  }

  release(): void {
    invariant(this.references > 0, 'a lease is released once for each retain');
    if (--this.references > 0) return;
    for (let place = 0; place < this.chunks.length; place++) this.chunks[place]!.pins--;
  }
}
