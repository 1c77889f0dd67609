/**
 * Encoding and verifying blocks of entries: Keelson's one call per block against TypeScript that
 * writes the same headers and checks each entry with another checksum, or with the same in BigInt.
 */
import { crc32 } from 'node:zlib';
import xxhash from 'xxhash-wasm';
import { BlockCodec, blockBytes } from '../dist/wasm/block-codec.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../dist/wasm/layout.js';
import { SharedHeap } from '../dist/wasm/shared-heap.js';
import { xxh3Reference } from '../test/wasm/xxh3-reference.js';
import { finishSuite, type MicroCase, type MicroResult, measure, startSuite } from './micro.js';

const SHAPES = [
  { entries: 1, payload: 0 },
  { entries: 64, payload: 0 },
  { entries: 64, payload: 16 },
  { entries: 64, payload: 256 },
  { entries: 64, payload: 4096 },
  { entries: 1024, payload: 256 },
];

const HEADER = {
  group: 1,
  firstIndex: 1,
  term: 3,
  time: 1_700_000_000_000,
  kind: ENTRY_KIND.application,
};

/** Checksum of an entry over its first 40 bytes and the checksum of its payload. */
type EntryChecksum = (item: Uint8Array, payload: Uint8Array) => bigint;

/** The plain way: the same layout through a DataView, the checksum as given. */
function encodePlainly(
  bytes: Uint8Array,
  view: DataView,
  payloads: readonly Uint8Array[],
  checksum: EntryChecksum,
): number {
  let at = BLOCK.bytes + payloads.length * ITEM.bytes;
  payloads.forEach((payload, i) => {
    const item = BLOCK.bytes + i * ITEM.bytes;
    bytes.set(payload, at);
    view.setBigUint64(item + ITEM.offset.index, BigInt(HEADER.firstIndex + i), true);
    view.setBigUint64(item + ITEM.offset.term, BigInt(HEADER.term), true);
    view.setBigUint64(item + ITEM.offset.time, BigInt(HEADER.time), true);
    view.setUint32(item + ITEM.offset.group, HEADER.group, true);
    view.setUint32(item + ITEM.offset.length, payload.length, true);
    view.setUint32(item + ITEM.offset.kind, HEADER.kind, true);
    view.setUint32(item + ITEM.offset.reserved, 0, true);
    const sum = checksum(bytes.subarray(item, item + ITEM.bytes), payload);
    view.setBigUint64(item + ITEM.offset.checksum, sum, true);
    at += payload.length;
  });
  view.setUint32(BLOCK.offset.magic, BLOCK.magic, true);
  view.setUint32(BLOCK.offset.group, HEADER.group, true);
  view.setUint32(BLOCK.offset.items, payloads.length, true);
  const payloadLength = at - BLOCK.bytes - payloads.length * ITEM.bytes;
  view.setUint32(BLOCK.offset.payloadLength, payloadLength, true);
  view.setBigUint64(BLOCK.offset.firstIndex, BigInt(HEADER.firstIndex), true);
  view.setUint32(BLOCK.offset.flags, 0, true);
  view.setUint32(BLOCK.offset.reserved, 0, true);
  return at;
}

function verifyPlainly(bytes: Uint8Array, view: DataView, checksum: EntryChecksum): number {
  const items = view.getUint32(BLOCK.offset.items, true);
  let at = BLOCK.bytes + items * ITEM.bytes;
  for (let i = 0; i < items; i++) {
    const item = BLOCK.bytes + i * ITEM.bytes;
    const length = view.getUint32(item + ITEM.offset.length, true);
    const stated = view.getBigUint64(item + ITEM.offset.checksum, true);
    const record = bytes.slice(item, item + ITEM.bytes);
    if (checksum(record, bytes.subarray(at, at + length)) !== stated) throw new Error('damaged');
    if (view.getBigUint64(item + ITEM.offset.index, true) !== BigInt(HEADER.firstIndex + i)) {
      throw new Error('not consecutive');
    }
    at += length;
  }
  return at;
}

export async function run(argv: string[]): Promise<void> {
  const options = startSuite('codec', argv);
  const { h64Raw } = await xxhash();
  const checksums: readonly (readonly [string, EntryChecksum])[] = [
    ['zlib.crc32', (item, payload) => BigInt(crc32(item.subarray(0, 40), crc32(payload)))],
    [
      'xxhash-wasm h64',
      (item, payload) => h64Raw(item.subarray(0, 40), payload.length === 0 ? 0n : h64Raw(payload)),
    ],
    ['BigInt XXH3-64', referenceChecksum],
  ];
  const heap = SharedHeap.create({ maximumBytes: 16 * 1024 * 1024 });
  const codec = new BlockCodec(heap);
  const pointer = heap.reserve(4 * 1024 * 1024, 4096);

  const shapes: object[] = [];
  for (const { entries, payload } of SHAPES) {
    const payloads = Array.from({ length: entries }, (_, i) => new Uint8Array(payload).fill(i));
    const length = blockBytes(payloads, entries);
    const block = { ...HEADER, payloads, count: entries };
    const plain = new Uint8Array(length);
    const view = new DataView(plain.buffer);
    codec.encodeBlock(pointer, length, block);
    encodePlainly(plain, view, payloads, referenceChecksum);
    if (Buffer.compare(plain, Uint8Array.from(heap.slice(pointer, length))) !== 0) {
      throw new Error('TypeScript and WebAssembly do not encode the same bytes');
    }
    const encoders: MicroCase[] = [
      {
        name: 'encode, keelson',
        units: entries,
        body: () => codec.encodeBlock(pointer, length, block),
      },
    ];
    const verifiers: MicroCase[] = [
      {
        name: 'verify, keelson',
        units: entries,
        body: () => codec.verifyBlocks(pointer, length, HEADER.group, HEADER.firstIndex).items,
      },
    ];
    for (const [name, checksum] of checksums) {
      const own = new Uint8Array(length);
      const ownView = new DataView(own.buffer);
      encodePlainly(own, ownView, payloads, checksum);
      encoders.push({
        name: `encode, TypeScript, ${name}`,
        units: entries,
        body: () => encodePlainly(own, ownView, payloads, checksum),
      });
      verifiers.push({
        name: `verify, TypeScript, ${name}`,
        units: entries,
        body: () => verifyPlainly(own, ownView, checksum),
      });
    }
    console.log(`\n${entries} entries of ${payload} bytes`);
    const results = [...encoders, ...verifiers].map((micro) => measure(micro, options));
    for (const result of results) print(result, entries);
    shapes.push({ entries, payloadBytes: payload, results });
  }
  finishSuite('codec', options, { shapes });
}

function referenceChecksum(item: Uint8Array, payload: Uint8Array): bigint {
  const record = Buffer.from(item);
  record.writeBigUInt64LE(xxh3Reference(payload), ITEM.offset.checksum);
  return xxh3Reference(record);
}

function print(result: MicroResult, units: number): void {
  const { name, nanosecondsPerUnit, fastestNanosecondsPerCall, unitsPerSecond, margin } = result;
  const time = nanosecondsPerUnit.toFixed(1).padStart(10);
  const fastest = (fastestNanosecondsPerCall / units).toFixed(1);
  const rate = (unitsPerSecond / 1e6).toFixed(2).padStart(8);
  console.log(
    `  ${name.padEnd(36)} ${time} ns/entry (fastest ${fastest}) ${rate} M/s ±${margin.toFixed(1)}%`,
  );
}
