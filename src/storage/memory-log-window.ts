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
import type { BlockSpan, EntriesLease } from './log-store.js';

const FIRST_CHUNK_BYTES = 64 * 1024;
const CHUNK_BYTES = 512 * 1024;
/** Chunks of the window that are full. */
const FULL_CHUNKS = 3;
/** Up to this length, copying word by word costs less than making the view that `set` wants. */
const SHORT_COPY_BYTES = 256;

export class WindowChunk {
  /** Chunks are numbered in the order in which they were opened. */
  readonly sequence: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** References of leases to its bytes. */
  pins = 0;

  constructor(sequence: number, bytes: Uint8Array) {
    this.sequence = sequence;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }

  /** Copies `length` bytes that stand at `from` in `source` to `at`. */
  copyIn(at: number, source: DataView, from: number, length: number): void {
    if (length > SHORT_COPY_BYTES) {
      this.bytes.set(new Uint8Array(source.buffer, source.byteOffset + from, length), at);
      return;
    }
    const { view } = this;
    let copied = 0;
    for (; copied + 4 <= length; copied += 4) {
      view.setUint32(at + copied, source.getUint32(from + copied, true), true);
    }
    for (; copied < length; copied++) view.setUint8(at + copied, source.getUint8(from + copied));
  }
}

/** Consecutive blocks in one chunk, or in memory that only this span refers to. */
export class WindowSpan implements BlockSpan {
  readonly chunk: WindowChunk;
  readonly start: number;
  readonly end: number;

  constructor(chunk: WindowChunk, start: number, end: number) {
    this.chunk = chunk;
    this.start = start;
    this.end = end;
  }

  get view(): DataView {
    return this.chunk.view;
  }

  toPart(): Uint8Array {
    return this.chunk.bytes.subarray(this.start, this.end);
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
  place(source: DataView, from: number, length: number): void {
    if (this.open.bytes.length - this.openEnd < length) this.openNext(length);
    this.open.copyIn(this.openEnd, source, from, length);
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

/** Pins the chunks that its spans refer to. */
export class MemoryLease implements EntriesLease {
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly spans: readonly WindowSpan[];
  readonly bytes: number;
  private references = 0;
  private madeParts: readonly Uint8Array[] | undefined;

  constructor(
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    spans: readonly WindowSpan[],
    bytes: number,
  ) {
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.spans = spans;
    this.bytes = bytes;
    this.retain();
  }

  /** Made for the first who asks: a state machine reads the spans. */
  get parts(): readonly Uint8Array[] {
    this.madeParts ??= this.spans.map((span) => span.toPart());
    return this.madeParts;
  }

  /** From no reference at all, too: whoever keeps a lease forgets it when a chunk leaves. */
  retain(): void {
    if (this.references++ > 0) return;
    for (let place = 0; place < this.spans.length; place++) this.spans[place]!.chunk.pins++;
  }

  release(): void {
    invariant(this.references > 0, 'a lease is released once for each retain');
    if (--this.references > 0) return;
    for (let place = 0; place < this.spans.length; place++) this.spans[place]!.chunk.pins--;
  }
}
