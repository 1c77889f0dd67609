/** Entries out of the blocks that a log store gives to the network, for tests to compare. */
import assert from 'node:assert/strict';
import type { LogStore } from '../storage/log-store.js';
import { BLOCK, ITEM } from '../wasm/layout.js';

export interface LogEntry {
  readonly index: number;
  readonly term: number;
  /** ms since the epoch. */
  readonly time: number;
  /** See ENTRY_KIND. */
  readonly kind: number;
  /** One character per byte. */
  readonly payload: string;
}

/** All entries of consecutive whole blocks of a group. */
export function decodeBlocks(parts: readonly Uint8Array[], group: number): LogEntry[] {
  const bytes = Buffer.concat(parts);
  const entries: LogEntry[] = [];
  for (let at = 0; at < bytes.length; ) {
    assert.equal(bytes.readUInt32LE(at + BLOCK.offset.magic), BLOCK.magic);
    assert.equal(bytes.readUInt32LE(at + BLOCK.offset.group), group);
    const items = bytes.readUInt32LE(at + BLOCK.offset.items);
    const payloads = at + BLOCK.bytes + items * ITEM.bytes;
    let payload = payloads;
    for (let place = 0; place < items; place++) {
      const item = at + BLOCK.bytes + place * ITEM.bytes;
      const length = bytes.readUInt32LE(item + ITEM.offset.length);
      entries.push({
        index: Number(bytes.readBigUInt64LE(item + ITEM.offset.index)),
        term: Number(bytes.readBigUInt64LE(item + ITEM.offset.term)),
        time: Number(bytes.readBigUInt64LE(item + ITEM.offset.time)),
        kind: bytes.readUInt32LE(item + ITEM.offset.kind),
        payload: bytes.toString('latin1', payload, payload + length),
      });
      payload += length;
    }
    assert.equal(payload - payloads, bytes.readUInt32LE(at + BLOCK.offset.payloadLength));
    at = payload;
  }
  return entries;
}

/** Reads a range as often as it takes, checking what each lease says of itself. */
export async function readEntries(
  store: LogStore,
  group: number,
  firstIndex: number,
  lastIndex: number,
  maxBytes: number = 1 << 24,
): Promise<LogEntry[]> {
  const found: LogEntry[] = [];
  for (let next = firstIndex; next <= lastIndex; ) {
    const lease = await store.read(group, next, lastIndex, maxBytes);
    const entries = decodeBlocks(lease.parts, group);
    assert.ok(entries.length > 0, 'a read gives at least one entry');
    assert.equal(lease.firstIndex, next);
    assert.equal(lease.lastIndex, next + entries.length - 1);
    lease.release();
    found.push(...entries);
    next += entries.length;
  }
  return found;
}
