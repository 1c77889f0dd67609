/**
 * Walks the block bytes of a lease and turns a range of entries into what a machine applies. The
 * bytes were verified when they entered this process; here lengths are only checked so that no read
 * leaves the block. Layouts: src/wasm/layout.ts (block header, item table, payloads).
 *
 * Only entries of kind application reach the machine. The others keep their place in the range as
 * gaps, and their response is `undefined`.
 */
import { KeelsonError } from '../base/errors.js';
import { unboxed } from '../base/unboxed.js';
import type { BlockSpan } from '../storage/log-store.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../wasm/layout.js';
import type { Codec, Entry } from './state-machine.js';

export interface DecodedEntries<Command> {
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** Term of the last entry. */
  readonly term: number;
  readonly entries: Entry<Command>[];
  /** Offsets from `firstIndex` of the entries that do not reach the machine, ascending. */
  readonly gaps: readonly number[];
}

const UNKNOWN_TIME = undefined as unknown as number;
const NO_GAPS: readonly number[] = [];
const EMPTY = new Uint8Array(0);
const NO_VIEW = new DataView(EMPTY.buffer);
const NO_SPANS: readonly BlockSpan[] = [];
const TWO_TO_32 = 4_294_967_296;

const ITEM_TERM = ITEM.offset.term;
const ITEM_TIME = ITEM.offset.time;
const ITEM_LENGTH = ITEM.offset.length;
const ITEM_KIND = ITEM.offset.kind;
/** A pattern of bits that equals nothing, so that the first item is read. */
const NOTHING = Number.NaN;

/** One for all ranges that a machine is given, one after the other. */
export class EntryCursor<Command> {
  /** Index of the next entry to decode. */
  nextIndex = 1;
  /** Term of the last entry decoded, also when decoding its command failed. */
  term = 0;
  lastIndex = 0;
  private readonly codec: Codec<Command>;
  private spans: readonly BlockSpan[] = NO_SPANS;
  private span = 0;
  // All positions count from the start of their view.
  /** Where in the span the next block starts. */
  private position = 0;
  // The block that is being walked: the next item, the next payload and the items left.
  private view: DataView = NO_VIEW;
  private blockEnd = 0;
  private item = 0;
  private payload = 0;
  private itemsLeft = 0;
  // Term and time are mostly those of the item before: their eight bytes are compared as one number,
  // of which any two that are equal have the same bits (-0 is no safe integer), and read when they differ.
  private termBits = NOTHING;
  private timeBits = NOTHING;
  private time: number = UNKNOWN_TIME;

  constructor(codec: Codec<Command>) {
    this.codec = codec;
  }

  /** Goes to entries `firstIndex … lastIndex`, which the blocks in `spans` hold. */
  begin(spans: readonly BlockSpan[], firstIndex: number, lastIndex: number): void {
    this.nextIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.spans = spans;
    this.span = 0;
    this.position = spans[0]?.start ?? 0;
    this.itemsLeft = 0;
  }

  get done(): boolean {
    return this.nextIndex > this.lastIndex;
  }

  /** Decodes at least one entry, and more up to `maxEntries` and about `maxBytes` of payload. */
  next(maxEntries: number, maxBytes: number): DecodedEntries<Command> {
    const firstIndex = this.nextIndex;
    const lastIndex = Math.min(this.lastIndex, firstIndex + Math.max(1, maxEntries) - 1);
    const entries: Entry<Command>[] = new Array(lastIndex - firstIndex + 1);
    let count = 0;
    const { codec } = this;
    let gaps = NO_GAPS as number[];
    let bytes = 0;
    let index = firstIndex;
    while (index <= lastIndex && bytes < maxBytes) {
      if (this.itemsLeft === 0) this.openBlock(index);
      const { view, blockEnd } = this;
      const run = Math.min(this.itemsLeft, lastIndex - index + 1);
      let item = this.item;
      let payload = this.payload;
      let walked = 0;
      for (; walked < run && bytes < maxBytes; walked++, index++, item += ITEM.bytes) {
        const length = view.getUint32(item + ITEM_LENGTH, true);
        const kind = view.getUint32(item + ITEM_KIND, true);
        if (length > blockEnd - payload) throw malformed(index, 'a payload leaves its block');
        const termBits = view.getFloat64(item + ITEM_TERM, true);
        if (termBits !== this.termBits) {
          this.termBits = termBits;
          this.term = readU64(view, item + ITEM_TERM);
        }
        if (kind === ENTRY_KIND.application) {
          this.nextIndex = index;
          const timeBits = view.getFloat64(item + ITEM_TIME, true);
          if (timeBits !== this.timeBits) {
            this.timeBits = timeBits;
            this.time = readU64(view, item + ITEM_TIME);
          }
          const command = codec.decode(
            length === 0 ? EMPTY : new Uint8Array(view.buffer, payload, length),
          );
          entries[count++] = entryOf(this.term, index, this.time, command);
        } else if (kind === ENTRY_KIND.blank || kind === ENTRY_KIND.membership) {
          if (gaps === NO_GAPS) gaps = [];
          gaps.push(index - firstIndex);
        } else {
          throw malformed(index, `entry kind ${kind} is unknown to this version`);
        }
        payload += length;
        bytes += length;
      }
      this.item = item;
      this.payload = payload;
      this.itemsLeft -= walked;
    }
    this.nextIndex = index;
    if (count < entries.length) entries.length = count;
    if (this.done) {
      // Whoever lent the memory may have it back.
      this.spans = NO_SPANS;
      this.view = NO_VIEW;
    }
    return { firstIndex, lastIndex: index - 1, term: this.term, entries, gaps };
  }

  /** Moves to the block that holds `index`, and in it to that item. */
  private openBlock(index: number): void {
    for (;;) {
      const start = this.takeBlock(index);
      const { view } = this;
      const items = view.getUint32(start + BLOCK.offset.items, true);
      const firstIndex = readU64(view, start + BLOCK.offset.firstIndex);
      if (firstIndex > index) throw malformed(index, `the next block starts at ${firstIndex}`);
      if (index >= firstIndex + items) continue;
      const skipped = index - firstIndex;
      const table = start + BLOCK.bytes;
      let payload = table + items * ITEM.bytes;
      for (let number = 0; number < skipped; number++) {
        payload += view.getUint32(table + number * ITEM.bytes + ITEM_LENGTH, true);
      }
      this.item = table + skipped * ITEM.bytes;
      this.payload = payload;
      this.itemsLeft = items - skipped;
      return;
    }
  }

  /** Sets view and end to the next block, which is copied only when it spreads over several spans. */
  private takeBlock(index: number): number {
    let span = this.spans[this.span];
    while (span !== undefined && this.position === span.end) span = this.nextSpan();
    const left = span === undefined ? 0 : span.end - this.position;
    if (span !== undefined && left >= BLOCK.bytes) {
      const start = this.position;
      this.view = span.view;
      const length = blockLength(this.view, start, index);
      if (length <= left) {
        this.position += length;
        this.blockEnd = start + length;
        return start;
      }
    }
    const header = this.join(BLOCK.bytes, index);
    const length = blockLength(new DataView(header.buffer), 0, index);
    this.view = new DataView(this.join(length, index).buffer);
    this.blockEnd = length;
    this.skip(length);
    return 0;
  }

  private nextSpan(): BlockSpan | undefined {
    const span = this.spans[++this.span];
    this.position = span?.start ?? 0;
    return span;
  }

  /** A copy of the next `length` bytes, from as many spans as it takes. */
  private join(length: number, index: number): Uint8Array {
    let available = 0;
    for (let number = this.span; number < this.spans.length; number++) {
      const { start, end } = this.spans[number]!;
      available += end - (number === this.span ? this.position : start);
    }
    if (length > available) throw malformed(index, 'the bytes end inside a block');
    const joined = new Uint8Array(length);
    let filled = 0;
    for (let number = this.span; filled < length; number++) {
      const span = this.spans[number]!;
      const from = number === this.span ? this.position : span.start;
      const piece = Math.min(span.end - from, length - filled);
      joined.set(new Uint8Array(span.view.buffer, from, piece), filled);
      filled += piece;
    }
    return joined;
  }

  private skip(length: number): void {
    for (let toSkip = length; toSkip > 0; ) {
      const left = this.spans[this.span]!.end - this.position;
      if (left > toSkip) {
        this.position += toSkip;
        return;
      }
      toSkip -= left;
      this.nextSpan();
    }
  }
}

function entryOf<Command>(
  term: number,
  index: number,
  time: number,
  command: Command,
): Entry<Command> {
  return { logId: { term, index }, time, command };
}

/**
 * A time is beyond the integers that need no box. Where V8 has seen something else than a number it
 * keeps a reference: so the cursor and all entries of one time share one box. Exported so that it
 * lives: V8 forgets what it knows of a shape with the last object that has it.
 */
export const SHAPE_OF_ENTRIES: Entry<undefined> = entryOf(0, 0, UNKNOWN_TIME, undefined);

/** Of parts whose store has no views at hand. */
export function spansOf(parts: readonly Uint8Array[]): BlockSpan[] {
  return parts.map((part) => {
    const start = part.byteOffset;
    return { view: viewOf(part.buffer), start, end: start + part.length };
  });
}

/** Bytes of the block at `start`, as its header says. */
function blockLength(view: DataView, start: number, index: number): number {
  if (view.getUint32(start + BLOCK.offset.magic, true) !== BLOCK.magic) {
    throw malformed(index, 'no block header where one must be');
  }
  const items = view.getUint32(start + BLOCK.offset.items, true);
  return (
    BLOCK.bytes + items * ITEM.bytes + view.getUint32(start + BLOCK.offset.payloadLength, true)
  );
}

/** The buffers read last: making a view costs more than reading a small block through it. */
const recentViews: DataView[] = [];
const RECENT_VIEWS = 4;

function viewOf(buffer: ArrayBufferLike): DataView {
  for (const view of recentViews) if (view.buffer === buffer) return view;
  const view = new DataView(buffer);
  recentViews.unshift(view);
  if (recentViews.length > RECENT_VIEWS) recentViews.pop();
  return view;
}

/** All entries `firstIndex … lastIndex` at once. */
export function decodeEntries<Command>(
  parts: readonly Uint8Array[],
  firstIndex: number,
  lastIndex: number,
  codec: Codec<Command>,
): DecodedEntries<Command> {
  const cursor = new EntryCursor(codec);
  cursor.begin(spansOf(parts), firstIndex, lastIndex);
  return cursor.next(lastIndex - firstIndex + 1, Number.POSITIVE_INFINITY);
}

function readU64(view: DataView, offset: number): number {
  return unboxed(view.getUint32(offset, true) + view.getUint32(offset + 4, true) * TWO_TO_32);
}

function malformed(index: number, what: string): KeelsonError {
  return new KeelsonError('KEELSON_STORAGE_CORRUPT', `cannot read entry ${index}: ${what}`, {
    outcome: 'unknown',
    details: { index },
  });
}
