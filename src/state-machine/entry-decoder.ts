/**
 * Walks the block bytes of a lease and turns a range of entries into what a machine applies. The
 * bytes were verified when they entered this process; here lengths are only checked so that no read
 * leaves the block. Layouts: src/wasm/layout.ts (block header, item table, payloads).
 *
 * Only entries of kind application reach the machine. The others keep their place in the range as
 * gaps, and their response is `undefined`.
 */
import { KeelsonError } from '../base/errors.js';
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

const NO_GAPS: readonly number[] = [];
const EMPTY = new Uint8Array(0);
const TWO_TO_32 = 4_294_967_296;

const ITEM_TERM = ITEM.offset.term;
const ITEM_TIME = ITEM.offset.time;
const ITEM_LENGTH = ITEM.offset.length;
const ITEM_KIND = ITEM.offset.kind;

export class EntryCursor<Command> {
  /** Index of the next entry to decode. */
  nextIndex: number;
  /** Term of the last entry decoded, also when decoding its command failed. */
  term = 0;
  readonly lastIndex: number;
  private readonly parts: readonly Uint8Array[];
  private readonly codec: Codec<Command>;
  private part = 0;
  /** Offset in the part at which the next block starts. */
  private offset = 0;
  // The block that is being walked: its bytes, the next item, the next payload and the items left.
  private block: Uint8Array = EMPTY;
  private view: DataView = new DataView(EMPTY.buffer);
  private item = 0;
  private payload = 0;
  private itemsLeft = 0;

  constructor(
    parts: readonly Uint8Array[],
    firstIndex: number,
    lastIndex: number,
    codec: Codec<Command>,
  ) {
    this.parts = parts;
    this.nextIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.codec = codec;
  }

  get done(): boolean {
    return this.nextIndex > this.lastIndex;
  }

  /** Decodes at least one entry, and more up to `maxEntries` and about `maxBytes` of payload. */
  next(maxEntries: number, maxBytes: number): DecodedEntries<Command> {
    const firstIndex = this.nextIndex;
    const lastIndex = Math.min(this.lastIndex, firstIndex + Math.max(1, maxEntries) - 1);
    const entries: Entry<Command>[] = [];
    const codec = this.codec;
    let gaps = NO_GAPS as number[];
    let bytes = 0;
    let index = firstIndex;
    while (index <= lastIndex && bytes < maxBytes) {
      if (this.itemsLeft === 0) this.openBlock(index);
      const { block, view } = this;
      const run = Math.min(this.itemsLeft, lastIndex - index + 1);
      let item = this.item;
      let payload = this.payload;
      let walked = 0;
      for (; walked < run && bytes < maxBytes; walked++, index++, item += ITEM.bytes) {
        const length = view.getUint32(item + ITEM_LENGTH, true);
        const kind = view.getUint32(item + ITEM_KIND, true);
        if (length > block.length - payload) throw malformed(index, 'a payload leaves its block');
        const term = readU64(view, item + ITEM_TERM);
        this.term = term;
        if (kind === ENTRY_KIND.application) {
          const payloadBytes = length === 0 ? EMPTY : block.subarray(payload, payload + length);
          this.nextIndex = index;
          entries.push({
            logId: { term, index },
            time: readU64(view, item + ITEM_TIME),
            command: codec.decode(payloadBytes),
          });
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
    return { firstIndex, lastIndex: index - 1, term: this.term, entries, gaps };
  }

  /** Moves to the block that holds `index`, and in it to that item. */
  private openBlock(index: number): void {
    for (;;) {
      const block = this.takeBlock(index);
      const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
      const items = view.getUint32(BLOCK.offset.items, true);
      const firstIndex = readU64(view, BLOCK.offset.firstIndex);
      if (firstIndex > index) throw malformed(index, `the next block starts at ${firstIndex}`);
      if (index >= firstIndex + items) continue;
      const skipped = index - firstIndex;
      let payload = BLOCK.bytes + items * ITEM.bytes;
      for (let number = 0; number < skipped; number++) {
        payload += view.getUint32(BLOCK.bytes + number * ITEM.bytes + ITEM_LENGTH, true);
      }
      this.block = block;
      this.view = view;
      this.item = BLOCK.bytes + skipped * ITEM.bytes;
      this.payload = payload;
      this.itemsLeft = items - skipped;
      return;
    }
  }

  /** The bytes of the next block: a view, or a copy when the block is spread over several parts. */
  private takeBlock(index: number): Uint8Array {
    while (this.part < this.parts.length && this.offset === this.parts[this.part]!.length) {
      this.part++;
      this.offset = 0;
    }
    const header = this.peek(BLOCK.bytes, index);
    const view = new DataView(header.buffer, header.byteOffset, BLOCK.bytes);
    if (view.getUint32(BLOCK.offset.magic, true) !== BLOCK.magic) {
      throw malformed(index, 'no block header where one must be');
    }
    const items = view.getUint32(BLOCK.offset.items, true);
    const payloadLength = view.getUint32(BLOCK.offset.payloadLength, true);
    const length = BLOCK.bytes + items * ITEM.bytes + payloadLength;
    const block = this.peek(length, index);
    let toSkip = length;
    while (toSkip > 0) {
      const left = this.parts[this.part]!.length - this.offset;
      if (left > toSkip) {
        this.offset += toSkip;
        break;
      }
      toSkip -= left;
      this.part++;
      this.offset = 0;
    }
    return block;
  }

  private peek(length: number, index: number): Uint8Array {
    const part = this.parts[this.part];
    if (part !== undefined && length <= part.length - this.offset) {
      return part.subarray(this.offset, this.offset + length);
    }
    let available = -this.offset;
    for (let number = this.part; number < this.parts.length; number++) {
      available += this.parts[number]!.length;
    }
    if (length > available) throw malformed(index, 'the bytes end inside a block');
    const joined = new Uint8Array(length);
    let filled = 0;
    let offset = this.offset;
    for (let number = this.part; filled < length; number++) {
      const source = this.parts[number]!;
      const piece = source.subarray(offset, Math.min(source.length, offset + length - filled));
      joined.set(piece, filled);
      filled += piece.length;
      offset = 0;
    }
    return joined;
  }
}

/** All entries `firstIndex … lastIndex` at once. */
export function decodeEntries<Command>(
  parts: readonly Uint8Array[],
  firstIndex: number,
  lastIndex: number,
  codec: Codec<Command>,
): DecodedEntries<Command> {
  const cursor = new EntryCursor(parts, firstIndex, lastIndex, codec);
  return cursor.next(lastIndex - firstIndex + 1, Number.POSITIVE_INFINITY);
}

function readU64(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * TWO_TO_32;
}

function malformed(index: number, what: string): KeelsonError {
  return new KeelsonError('KEELSON_STORAGE_CORRUPT', `cannot read entry ${index}: ${what}`, {
    outcome: 'unknown',
    details: { index },
  });
}
