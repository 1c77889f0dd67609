/**
 * The older blocks of a log in memory, each as one record. All entries of a block that this engine
 * made share term, time and kind, and their checksums follow from the rest: such a block is rebuilt
 * bit by bit from 32 bytes, the payloads, and their lengths where these differ.
 *
 * ```
 * record   [form u32][entries u32][kind u32][payload bytes u32][term f64][time f64]…
 *          form equal:   [payload]…                 all of one length
 *          form listed:  [length u32]…[payload]…
 *          form encoded: [block]                    of mixed entries; its bytes count as payload
 * ```
 *
 * Records are little-endian and not aligned, one behind the other in chunks. The chunks grow by large
 * pieces: many small ones outside the heap make the collector mark all of it over and over.
 */
import { invariant } from '../base/assert.js';
import type { LogIndex } from '../engine/types.js';
import { BLOCK, ITEM } from '../wasm/layout.js';
import type { MemoryLogStaging } from './memory-log-staging.js';
import { readU64 } from './storage-memory.js';

const FORM = { equal: 1, listed: 2, encoded: 3 } as const;

const RECORD = {
  bytes: 32,
  offset: { form: 0, entries: 4, kind: 8, payloadBytes: 12, term: 16, time: 24 },
} as const;

const LENGTH_BYTES = 4;
const FIRST_CHUNK_BYTES = 64 * 1024;
const MAX_CHUNK_BYTES = 256 * 1024 * 1024;
/** A place is the number of the chunk times this, and the offset in it. */
const PLACES_OF_CHUNK = 2 ** 32;

interface ArchiveChunk {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** Stands for a chunk that was given up: places count from the first that there ever was. */
const GONE: ArchiveChunk = {
  bytes: new Uint8Array(0),
  view: new DataView(new ArrayBuffer(0)),
};

export class MemoryLogArchive {
  private readonly chunks: ArchiveChunk[] = [];
  /** Memory of the archive, used or not. */
  bytes = 0;
  /** In the last chunk. */
  private end = 0;

  /** Keeps the verified block in `view[offset, offset + length)`; returns its place. */
  add(view: DataView, offset: number, length: number): number {
    const entries = view.getUint32(offset + BLOCK.offset.items, true);
    const payloadBytes = view.getUint32(offset + BLOCK.offset.payloadLength, true);
    const form = formOf(view, offset, entries, payloadBytes);
    const lengthBytes = form === FORM.listed ? entries * LENGTH_BYTES : 0;
    const size = RECORD.bytes + (form === FORM.encoded ? length : lengthBytes + payloadBytes);
    const chunk = this.chunkFor(size);
    const at = this.end;
    this.end += size;

    const record = chunk.view;
    const item = offset + BLOCK.bytes;
    let source = item + entries * ITEM.bytes;
    let copied = payloadBytes;
    if (form === FORM.encoded) {
      source = offset;
      copied = length;
    }
    record.setUint32(at + RECORD.offset.form, form, true);
    record.setUint32(at + RECORD.offset.entries, entries, true);
    record.setUint32(at + RECORD.offset.kind, view.getUint32(item + ITEM.offset.kind, true), true);
    record.setUint32(at + RECORD.offset.payloadBytes, copied, true);
    record.setFloat64(at + RECORD.offset.term, readU64(view, item + ITEM.offset.term), true);
    record.setFloat64(at + RECORD.offset.time, readU64(view, item + ITEM.offset.time), true);
    let target = at + RECORD.bytes;
    for (let entry = 0; entry * LENGTH_BYTES < lengthBytes; entry++, target += LENGTH_BYTES) {
      const bytes = view.getUint32(item + entry * ITEM.bytes + ITEM.offset.length, true);
      record.setUint32(target, bytes, true);
    }
    if (copied > 0) {
      chunk.bytes.set(new Uint8Array(view.buffer, view.byteOffset + source, copied), target);
    }
    return (this.chunks.length - 1) * PLACES_OF_CHUNK + at;
  }

  /** The block at `place`, in memory of its own. */
  rebuild(
    place: number,
    group: number,
    firstIndex: LogIndex,
    length: number,
    staging: MemoryLogStaging,
  ): Uint8Array {
    const { bytes, view: record } = this.chunks[Math.floor(place / PLACES_OF_CHUNK)]!;
    const at = place % PLACES_OF_CHUNK;
    const form = record.getUint32(at + RECORD.offset.form, true);
    const count = record.getUint32(at + RECORD.offset.entries, true);
    const copied = record.getUint32(at + RECORD.offset.payloadBytes, true);
    const body = at + RECORD.bytes;
    if (form === FORM.encoded) return bytes.slice(body, body + copied);

    const pointer = staging.room(length);
    const { heap } = staging;
    const { view } = heap;
    const equalBytes = copied / count;
    let item = pointer + BLOCK.bytes + ITEM.offset.length;
    for (let entry = 0; entry < count; entry++, item += ITEM.bytes) {
      const payloadBytes =
        form === FORM.equal ? equalBytes : record.getUint32(body + entry * LENGTH_BYTES, true);
      view.setUint32(item, payloadBytes, true);
    }
    const source = form === FORM.equal ? body : body + count * LENGTH_BYTES;
    const payload = pointer + BLOCK.bytes + count * ITEM.bytes;
    heap.bytes.set(bytes.subarray(source, source + copied), payload);
    const encoded = staging.codec.completeBlock(pointer, length, {
      group,
      count,
      firstIndex,
      term: record.getFloat64(at + RECORD.offset.term, true),
      time: record.getFloat64(at + RECORD.offset.time, true),
      kind: record.getUint32(at + RECORD.offset.kind, true),
    });
    invariant(encoded === length, 'a block is rebuilt with all its bytes');
    return heap.bytes.slice(pointer, pointer + length);
  }

  /** Forgets all that stands in chunks before that of the block at `place`. */
  dropBefore(place: number): void {
    const chunk = Math.floor(place / PLACES_OF_CHUNK);
    for (let before = chunk - 1; before >= 0 && this.chunks[before] !== GONE; before--) {
      this.bytes -= this.chunks[before]!.bytes.length;
      this.chunks[before] = GONE;
    }
  }

  /** Forgets all blocks. */
  clear(): void {
    this.chunks.length = 0;
    this.bytes = 0;
    this.end = 0;
  }

  /** Forgets the block at `place` and all behind it. */
  truncateFrom(place: number): void {
    const kept = Math.floor(place / PLACES_OF_CHUNK) + 1;
    for (const chunk of this.chunks.splice(kept)) this.bytes -= chunk.bytes.length;
    this.end = place % PLACES_OF_CHUNK;
  }

  private chunkFor(size: number): ArchiveChunk {
    const last = this.chunks[this.chunks.length - 1];
    if (last !== undefined && last.bytes.length - this.end >= size) return last;
    // As much again as is held: what was purged does not count.
    const grown = Math.min(MAX_CHUNK_BYTES, Math.max(FIRST_CHUNK_BYTES, this.bytes));
    const bytes = new Uint8Array(Math.max(size, grown));
    this.bytes += bytes.length;
    const chunk = { bytes, view: new DataView(bytes.buffer) };
    this.chunks.push(chunk);
    this.end = 0;
    return chunk;
  }
}

/** The smallest form from which the block can be rebuilt. */
function formOf(view: DataView, offset: number, entries: number, payloadBytes: number): number {
  const first = offset + BLOCK.bytes;
  const last = first + (entries - 1) * ITEM.bytes;
  // Eight bytes compared as one number: safe integers that are equal as such have equal bits.
  // Terms never fall within a block, which verified: the first and the last tell for all.
  const term = view.getFloat64(first + ITEM.offset.term, true);
  if (view.getFloat64(last + ITEM.offset.term, true) !== term) return FORM.encoded;
  const time = view.getFloat64(first + ITEM.offset.time, true);
  const kind = view.getUint32(first + ITEM.offset.kind, true);
  const length = view.getUint32(first + ITEM.offset.length, true);
  let form: number = FORM.equal;
  for (let item = first + ITEM.bytes; item <= last; item += ITEM.bytes) {
    if (
      view.getFloat64(item + ITEM.offset.time, true) !== time ||
      view.getUint32(item + ITEM.offset.kind, true) !== kind
    ) {
      return FORM.encoded;
    }
    if (payloadBytes > 0 && view.getUint32(item + ITEM.offset.length, true) !== length) {
      form = FORM.listed;
    }
  }
  return form;
}
