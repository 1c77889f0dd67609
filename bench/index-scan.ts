/**
 * Finding entries in the log index: Keelson's one call per scan against the same loop in TypeScript
 * over an array of objects and over typed arrays.
 */
import { BlockCodec } from '../dist/wasm/block-codec.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../dist/wasm/layout.js';
import { type IndexExtent, LogIndex } from '../dist/wasm/log-index.js';
import { SharedHeap } from '../dist/wasm/shared-heap.js';
import { finishSuite, type MicroCase, type MicroResult, measure, startSuite } from './micro.js';

const ENTRIES = 1_000_000;
const ENTRIES_PER_BLOCK = 64;
const BLOCKS_PER_SEGMENT = 2048;
const PAYLOAD_BYTES = 256;
const SCANS = [1, 64, 1024];
const UNLIMITED_BYTES = 2 ** 30;

interface Place {
  readonly segment: number;
  readonly itemPosition: number;
  readonly payloadPosition: number;
  readonly length: number;
}

type PlaceAt = (slot: number) => Place;

/** What the index does, as a loop over places. */
function scanPlainly(placeAt: PlaceAt, first: number, last: number): IndexExtent[] {
  const extents: IndexExtent[] = [];
  let open: { -readonly [Field in keyof IndexExtent]: IndexExtent[Field] } | undefined;
  for (let index = first; index <= last; index++) {
    const { segment, itemPosition, payloadPosition, length } = placeAt(index - 1);
    if (
      open?.segment === segment &&
      open.itemPosition + open.items * ITEM.bytes === itemPosition &&
      open.payloadPosition + open.payloadLength === payloadPosition
    ) {
      open.items++;
      open.payloadLength += length;
      continue;
    }
    open = {
      segment,
      firstIndex: index,
      items: 1,
      itemPosition,
      payloadPosition,
      payloadLength: length,
    };
    extents.push(open);
  }
  return extents;
}

export async function run(argv: string[]): Promise<void> {
  const options = startSuite('index', argv);
  const heap = SharedHeap.create({ maximumBytes: 64 * 1024 * 1024 });
  const codec = new BlockCodec(heap);
  const index = new LogIndex(heap);
  const room = BLOCK.bytes + ENTRIES_PER_BLOCK * (ITEM.bytes + PAYLOAD_BYTES);
  const pointer = heap.reserve(room, 64);
  const payloads = Array.from({ length: ENTRIES_PER_BLOCK }, () => new Uint8Array(PAYLOAD_BYTES));
  const places: Place[] = [];
  const numbers = new Uint32Array(ENTRIES * 4);
  for (let block = 0; block * ENTRIES_PER_BLOCK < ENTRIES; block++) {
    const firstIndex = block * ENTRIES_PER_BLOCK + 1;
    codec.encodeBlock(pointer, room, {
      group: 1,
      firstIndex,
      term: 1,
      time: 0,
      kind: ENTRY_KIND.application,
      payloads,
      count: ENTRIES_PER_BLOCK,
    });
    const segment = Math.floor(block / BLOCKS_PER_SEGMENT);
    const position = (block % BLOCKS_PER_SEGMENT) * room;
    index.appendBlocks(pointer, room, segment, position);
    for (let i = 0; i < ENTRIES_PER_BLOCK; i++) {
      const itemPosition = position + BLOCK.bytes + i * ITEM.bytes;
      const payloadPosition =
        position + BLOCK.bytes + ENTRIES_PER_BLOCK * ITEM.bytes + i * PAYLOAD_BYTES;
      places.push({ segment, itemPosition, payloadPosition, length: PAYLOAD_BYTES });
      numbers.set([segment, itemPosition, payloadPosition, PAYLOAD_BYTES], (places.length - 1) * 4);
    }
  }
  const ofObjects: PlaceAt = (slot) => places[slot]!;
  const ofNumbers: PlaceAt = (slot) => ({
    segment: numbers[slot * 4]!,
    itemPosition: numbers[slot * 4 + 1]!,
    payloadPosition: numbers[slot * 4 + 2]!,
    length: numbers[slot * 4 + 3]!,
  });
  console.log(`${ENTRIES} entries, ${(index.bytes / ENTRIES).toFixed(1)} bytes of index for each`);

  const scans: object[] = [];
  for (const entries of SCANS) {
    let cursor = 0;
    // Strides over the whole index, so that not one hot cache line is measured.
    const nextFirst = (): number => {
      cursor = (cursor + 7919 * 64) % (ENTRIES - entries);
      return cursor + 1;
    };
    const scanners: readonly (readonly [string, (first: number) => IndexExtent[]])[] = [
      ['keelson', (first) => index.scan(first, first + entries - 1, UNLIMITED_BYTES)],
      ['TypeScript, objects', (first) => scanPlainly(ofObjects, first, first + entries - 1)],
      ['TypeScript, typed array', (first) => scanPlainly(ofNumbers, first, first + entries - 1)],
    ];
    const expected = JSON.stringify(scanners[1]![1](65));
    for (const [name, scan] of scanners) {
      if (JSON.stringify(scan(65)) !== expected) throw new Error(`${name} finds something else`);
    }
    console.log(`\nscans of ${entries} entries`);
    const results = scanners.map(([name, scan]) => {
      const micro: MicroCase = {
        name,
        units: entries,
        body: () => scan(nextFirst()).length,
      };
      return measure(micro, options);
    });
    results.forEach(print);
    scans.push({ entries, results });
  }
  finishSuite('index', options, { entries: ENTRIES, bytesPerEntry: index.bytes / ENTRIES, scans });
}

function print({ name, nanosecondsPerCall, nanosecondsPerUnit, margin }: MicroResult): void {
  const call = nanosecondsPerCall.toFixed(0).padStart(9);
  const unit = nanosecondsPerUnit.toFixed(2).padStart(9);
  console.log(`  ${name.padEnd(26)} ${call} ns/scan ${unit} ns/entry ±${margin.toFixed(1)}%`);
}
