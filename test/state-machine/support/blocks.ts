import type { EntriesLease } from '../../../dist/storage/log-store.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../../../dist/wasm/layout.js';

export interface TestEntry {
  readonly payload?: Uint8Array;
  readonly kind?: number;
  readonly term?: number;
  readonly time?: number;
}

/** One block, encoded by hand after src/wasm/layout.ts; checksums are left zero. */
export function block(firstIndex: number, entries: readonly TestEntry[]): Uint8Array {
  const payloads = entries.map((entry) => entry.payload ?? new Uint8Array(0));
  const payloadLength = payloads.reduce((sum, payload) => sum + payload.length, 0);
  const head = BLOCK.bytes + entries.length * ITEM.bytes;
  const bytes = new Uint8Array(head + payloadLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(BLOCK.offset.magic, BLOCK.magic, true);
  view.setUint32(BLOCK.offset.items, entries.length, true);
  view.setUint32(BLOCK.offset.payloadLength, payloadLength, true);
  view.setBigUint64(BLOCK.offset.firstIndex, BigInt(firstIndex), true);
  let offset = head;
  for (const [place, entry] of entries.entries()) {
    const item = BLOCK.bytes + place * ITEM.bytes;
    const payload = payloads[place]!;
    view.setBigUint64(item + ITEM.offset.index, BigInt(firstIndex + place), true);
    view.setBigUint64(item + ITEM.offset.term, BigInt(entry.term ?? 1), true);
    view.setBigUint64(item + ITEM.offset.time, BigInt(entry.time ?? 1000), true);
    view.setUint32(item + ITEM.offset.length, payload.length, true);
    view.setUint32(item + ITEM.offset.kind, entry.kind ?? ENTRY_KIND.application, true);
    bytes.set(payload, offset);
    offset += payload.length;
  }
  return bytes;
}

export function join(blocks: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(blocks));
}

export interface TestLease extends EntriesLease {
  readonly references: number;
}

/** A lease that counts, and poisons its bytes when the last reference is gone. */
export function lease(
  firstIndex: number,
  lastIndex: number,
  parts: readonly Uint8Array[],
): TestLease {
  let references = 1;
  return {
    firstIndex,
    lastIndex,
    parts,
    bytes: parts.reduce((sum, part) => sum + part.length, 0),
    get references() {
      return references;
    },
    retain() {
      if (references === 0) throw new Error('retain after the last release');
      references++;
    },
    release() {
      if (references === 0) throw new Error('released once too often');
      references--;
      if (references === 0) for (const part of parts) part.fill(0xdd);
    },
  };
}

/** The bytes in shared memory, as the store's ring holds them. */
export function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length + 64), 64);
  copy.set(bytes);
  return copy;
}
