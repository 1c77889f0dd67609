import { describe, expect, test } from 'vitest';
import {
  BatchCodec,
  type BatchToSeal,
  batchBytes,
  writeHardState,
} from '../../dist/wasm/batch-codec.js';
import {
  BATCH,
  BATCH_FLAG,
  BLOCK,
  BLOCK_FLAG,
  ENTRY_KIND,
  HARD_STATE,
  ITEM,
  SECTOR_BYTES,
} from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { type Bench, type BlockSpec, createBench, encodeBlocks, seededRandom } from './support.js';
import { xxh3Reference } from './xxh3-reference.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

const BLOCKS: readonly BlockSpec[] = [
  { group: 1, firstIndex: 5, payloads: [text('first'), text('second')] },
  { group: 2, firstIndex: 900, term: 8, payloads: [text('of another group')] },
  { group: 1, firstIndex: 5, kind: ENTRY_KIND.truncateAfter, payloads: [text('')] },
];

function seal(
  bench: Bench,
  options: { flags?: number; hardStates?: number; blocks?: readonly BlockSpec[] } = {},
): { length: number; batch: BatchToSeal } {
  const { flags = 0, hardStates = 2, blocks = BLOCKS } = options;
  const at = bench.region;
  const blocksLength = encodeBlocks(bench, at + BATCH.bytes, blocks);
  for (let i = 0; i < hardStates; i++) {
    const state = { group: i, term: 9 + i, votedFor: 3, voteCommitted: i === 0, committed: 4 };
    writeHardState(bench.heap.view, at + BATCH.bytes + blocksLength + i * HARD_STATE.bytes, state);
  }
  const batch: BatchToSeal = {
    flags,
    lane: 6,
    lsn: 2 ** 40 + 4096,
    segment: 2 ** 33,
    epoch: 2 ** 51 + 1,
    blocks: blocks.length,
    items: blocks.reduce((sum, block) => sum + block.payloads.length, 0),
    blocksLength,
    hardStates,
  };
  const length = new BatchCodec(bench.heap).sealBatch(at, bench.regionBytes, batch);
  return { length, batch };
}

function verify(bench: Bench, available: number): string | undefined {
  return new BatchCodec(bench.heap).verifyBatch(bench.region, available);
}

/** Makes the header of a changed batch sound again, so that what it says is looked at. */
function resealHeader(bench: Bench): void {
  const header = bench.heap.slice(bench.region, BATCH.offset.headerChecksum);
  const at = bench.region + BATCH.offset.headerChecksum;
  bench.heap.view.setBigUint64(at, xxh3Reference(Uint8Array.from(header)), true);
}

/** As docs/storage-format.md has it: chained over header and items of each block, then the hard states. */
function bodyReference(body: Uint8Array, blocksLength: number): bigint {
  const view = new DataView(body.buffer);
  let chained = 0n;
  const chain = (bytes: Uint8Array): void => {
    const two = new DataView(new ArrayBuffer(16));
    two.setBigUint64(0, chained, true);
    two.setBigUint64(8, xxh3Reference(bytes), true);
    chained = xxh3Reference(new Uint8Array(two.buffer));
  };
  for (let at = 0; at + BLOCK.bytes <= blocksLength; ) {
    const items = view.getUint32(at + BLOCK.offset.items, true);
    const payloads = at + BLOCK.bytes + items * ITEM.bytes;
    const end = payloads + view.getUint32(at + BLOCK.offset.payloadLength, true);
    if (end > blocksLength) break;
    chain(body.slice(at, payloads));
    at = end;
  }
  chain(body.slice(blocksLength));
  return chained;
}

/** Makes body and header sound again. */
function resealAll(bench: Bench, blocksLength: number, hardStates: number): void {
  const length = blocksLength + hardStates * HARD_STATE.bytes;
  const body = Uint8Array.from(bench.heap.slice(bench.region + BATCH.bytes, length));
  const at = bench.region + BATCH.offset.bodyChecksum;
  bench.heap.view.setBigUint64(at, bodyReference(body, blocksLength), true);
  resealHeader(bench);
}

describe('sealBatch', () => {
  test('writes header and hard states as the layout says, with zero padding', () => {
    const bench = createBench();
    bench.heap.bytes.fill(0xaa, bench.region, bench.region + 5 * SECTOR_BYTES);
    const { length, batch } = seal(bench, { flags: BATCH_FLAG.repeated });
    const view = bench.heap.view;
    const at = bench.region;
    expect(length).toBe(2 * SECTOR_BYTES);
    expect(length).toBe(batchBytes(batch.blocksLength, batch.hardStates, batch.flags));
    expect(view.getUint32(at + BATCH.offset.magic, true)).toBe(BATCH.magic);
    expect(view.getUint16(at + BATCH.offset.version, true)).toBe(BATCH.version);
    expect(view.getUint16(at + BATCH.offset.flags, true)).toBe(BATCH_FLAG.repeated);
    expect(view.getUint32(at + BATCH.offset.lane, true)).toBe(6);
    expect(view.getUint32(at + BATCH.offset.hardStates, true)).toBe(2);
    expect(view.getBigUint64(at + BATCH.offset.lsn, true)).toBe(BigInt(batch.lsn));
    expect(view.getBigUint64(at + BATCH.offset.segment, true)).toBe(BigInt(batch.segment));
    expect(view.getBigUint64(at + BATCH.offset.epoch, true)).toBe(BigInt(batch.epoch));
    expect(view.getUint32(at + BATCH.offset.blocksLength, true)).toBe(batch.blocksLength);
    expect(view.getUint32(at + BATCH.offset.blocks, true)).toBe(3);
    expect(view.getUint32(at + BATCH.offset.items, true)).toBe(4);
    expect(view.getUint32(at + BATCH.offset.totalLength, true)).toBe(length);
    const bodyEnd = BATCH.bytes + batch.blocksLength + 2 * HARD_STATE.bytes;
    const body = Uint8Array.from(bench.heap.bytes.slice(at + BATCH.bytes, at + bodyEnd));
    expect(view.getBigUint64(at + BATCH.offset.bodyChecksum, true)).toBe(
      bodyReference(body, batch.blocksLength),
    );

    const states = at + BATCH.bytes + batch.blocksLength;
    const second = states + HARD_STATE.bytes;
    expect(view.getUint32(second + HARD_STATE.offset.magic, true)).toBe(HARD_STATE.magic);
    expect(view.getUint32(second + HARD_STATE.offset.group, true)).toBe(1);
    expect(view.getBigUint64(second + HARD_STATE.offset.term, true)).toBe(10n);
    expect(view.getBigUint64(second + HARD_STATE.offset.votedFor, true)).toBe(3n);
    expect(view.getUint32(states + HARD_STATE.offset.flags, true)).toBe(1);
    expect(view.getUint32(second + HARD_STATE.offset.flags, true)).toBe(0);
    expect(view.getBigUint64(second + HARD_STATE.offset.lsn, true)).toBe(BigInt(batch.lsn));

    const bytes = Buffer.from(bench.heap.bytes.slice(at, at + length + 1));
    const repeated = bytes.subarray(SECTOR_BYTES, SECTOR_BYTES + 128);
    expect(repeated.equals(bytes.subarray(bodyEnd - 128, bodyEnd))).toBe(true);
    expect(bytes.subarray(bodyEnd, SECTOR_BYTES).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(SECTOR_BYTES + 128, length).every((byte) => byte === 0)).toBe(true);
    expect(bytes[length]).toBe(0xaa);
    expect(verify(bench, length)).toBeUndefined();
  });

  test('seals a batch of hard states alone, and one of blocks alone', () => {
    const bench = createBench();
    expect(verify(bench, seal(bench, { blocks: [] }).length)).toBeUndefined();
    expect(verify(bench, seal(bench, { hardStates: 0 }).length)).toBeUndefined();
    const { length } = seal(bench, { hardStates: 65, flags: BATCH_FLAG.repeated });
    expect(length).toBe(2 * SECTOR_BYTES + 2 * SECTOR_BYTES);
    expect(verify(bench, length)).toBeUndefined();
  });

  test('refuses a room that is too small, and flags that nobody knows', () => {
    const bench = createBench();
    const { length, batch } = seal(bench);
    const codec = new BatchCodec(bench.heap);
    expect(() => codec.sealBatch(bench.region, length - 1, batch)).toThrow('fits the room');
    expect(() =>
      codec.sealBatch(bench.region, bench.regionBytes, { ...batch, hardStates: 0xffffffff }),
    ).toThrow('fits the room');
    expect(() =>
      codec.sealBatch(bench.region, bench.regionBytes, { ...batch, blocksLength: 0xffffffff }),
    ).toThrow('fits the room');
    expect(() => codec.sealBatch(bench.region, bench.regionBytes, { ...batch, flags: 8 })).toThrow(
      'known flags',
    );
  });
});

describe('verifyBatch', () => {
  test('detects every single bit that flips, in padding and repeated hard states too', () => {
    const bench = createBench();
    const { length } = seal(bench, { flags: BATCH_FLAG.repeated });
    const bytes = bench.heap.bytes;
    const codec = new BatchCodec(bench.heap);
    const missed: number[] = [];
    for (let bit = 0; bit < length * 8; bit++) {
      const at = bench.region + (bit >>> 3);
      bytes[at]! ^= 1 << (bit & 7);
      if (codec.verifyBatch(bench.region, length) === undefined) missed.push(bit);
      bytes[at]! ^= 1 << (bit & 7);
    }
    expect(missed).toEqual([]);
    expect(verify(bench, length)).toBeUndefined();
  });

  test('detects truncation at every length', () => {
    const bench = createBench();
    const { length } = seal(bench);
    for (let cut = 0; cut < length; cut++) expect(verify(bench, cut)).toBe('truncated');
    expect(verify(bench, length + 4096)).toBeUndefined();
  });

  test('detects any two 8-byte fields of header, items or hard states that changed places', () => {
    const bench = createBench();
    const { length, batch } = seal(bench);
    const bytes = bench.heap.bytes;
    const image = bytes.slice(bench.region, bench.region + length);
    const areas = [
      [0, BATCH.bytes],
      [BATCH.bytes + BLOCK.bytes, 2 * ITEM.bytes],
      [BATCH.bytes + batch.blocksLength, 2 * HARD_STATE.bytes],
    ] as const;
    let swaps = 0;
    for (const [start, size] of areas) {
      for (let first = start; first < start + size; first += 8) {
        for (let second = first + 8; second < start + size; second += 8) {
          const kept = image.slice(first, first + 8);
          if (Buffer.compare(kept, image.subarray(second, second + 8)) === 0) continue;
          bytes.set(image.subarray(second, second + 8), bench.region + first);
          bytes.set(kept, bench.region + second);
          expect(verify(bench, length), `${first} and ${second}`).toBeDefined();
          bytes.set(image, bench.region);
          swaps++;
        }
      }
    }
    expect(swaps).toBeGreaterThan(200);
  });

  test('looks at what a header says even when its checksum is right', () => {
    const bench = createBench();
    const change = (offset: number, value: number): string | undefined => {
      const { length } = seal(bench);
      bench.heap.view.setUint32(bench.region + offset, value, true);
      resealHeader(bench);
      return verify(bench, length);
    };
    expect(change(BATCH.offset.version, 2)).toBe('version');
    expect(change(BATCH.offset.flags - 2, BATCH.version | (8 << 16))).toBe('reserved');
    expect(change(BATCH.offset.reserved, 1)).toBe('reserved');
    expect(change(72, 1)).toBe('reserved');
    expect(change(116, 1)).toBe('reserved');
    expect(change(BATCH.offset.lsn + 4, 1 << 21)).toBe('unsafeInteger');
    expect(change(BATCH.offset.epoch + 4, 1 << 21)).toBe('unsafeInteger');
    expect(change(BATCH.offset.lsn, 0)).toBe('hardState');
    expect(change(BATCH.offset.epoch, 0)).toBe('hardState');
    expect(change(BATCH.offset.totalLength, 2 * SECTOR_BYTES)).toBe('lengths');
    expect(change(BATCH.offset.blocks, 2)).toBe('lengths');
    expect(change(BATCH.offset.items, 5)).toBe('lengths');
    expect(change(BATCH.offset.blocksLength, 0)).toBe('bodyChecksum');
    expect(change(BATCH.offset.blocksLength, 0xffffffff)).toBe('lengths');
    expect(change(BATCH.offset.hardStates, 0x04000000)).toBe('lengths');
  });

  test('looks at blocks and hard states even when all checksums around them are right', () => {
    const bench = createBench();
    const change = (offset: number, value: number): string | undefined => {
      const { length, batch } = seal(bench);
      bench.heap.view.setUint32(bench.region + offset, value, true);
      resealAll(bench, batch.blocksLength, batch.hardStates);
      return verify(bench, length);
    };
    const block = BATCH.bytes;
    expect(change(block + BLOCK.offset.magic, 0)).toBe('magic');
    expect(change(block + BLOCK.offset.group, 3)).toBe('group');
    expect(change(block + BLOCK.offset.reserved, 1)).toBe('reserved');
    expect(change(block + BLOCK.offset.flags, BLOCK_FLAG.moved)).toBeUndefined();
    expect(change(block + BLOCK.offset.flags, 2)).toBe('reserved');
    expect(change(block + BLOCK.offset.firstIndex, 6)).toBe('index');
    expect(change(block + BLOCK.offset.firstIndex + 4, 0xffffffff)).toBe('unsafeInteger');
    for (const value of [0, 1, 3, 0x7fffffff, 0xffffffff]) {
      expect(change(block + BLOCK.offset.items, value)).toMatch(/lengths|entryChecksum|magic/);
    }
    for (const value of [0, 10, 12, 0x7fffffff, 0xffffffff]) {
      expect(change(block + BLOCK.offset.payloadLength, value)).toMatch(/lengths|magic/);
      expect(change(block + BLOCK.bytes + ITEM.offset.length, value)).toMatch(
        /lengths|entryChecksum/,
      );
    }
    expect(change(block + BLOCK.bytes + ITEM.offset.term, 1)).toBe('entryChecksum');
    const state = BATCH.bytes + seal(bench).batch.blocksLength;
    expect(change(state + HARD_STATE.offset.term, 8)).toBe('hardState');
  });

  test('no entry and no record is of term 0', () => {
    const bench = createBench();
    for (const kind of Object.values(ENTRY_KIND)) {
      const block = { firstIndex: 1, kind, payloads: [text('')] };
      expect(verify(bench, seal(bench, { blocks: [{ ...block, term: 0 }] }).length)).toBe('term');
      expect(
        verify(bench, seal(bench, { blocks: [{ ...block, term: 1 }] }).length),
      ).toBeUndefined();
    }
  });

  test('an unknown kind is told apart from damage', () => {
    const bench = createBench();
    const blocks = [{ firstIndex: 1, kind: 77, payloads: [text('from the future')] }];
    expect(verify(bench, seal(bench, { blocks }).length)).toBe('kind');
  });

  test('never reads or writes outside: hostile headers at the end of the memory', () => {
    const seed = 20_260_802;
    const random = seededRandom(seed);
    const bench = createBench();
    const { length, batch } = seal(bench);
    const { heap } = bench;
    const image = heap.bytes.slice(bench.region, bench.region + length);
    // A read past the last byte of the memory traps; a canary stands before the batch.
    const at = heap.bytes.length - length;
    heap.bytes.fill(0xc5, at - 4096, at);
    const codec = new BatchCodec(heap);
    const fields = [6, 8, 12, 40, 44, 48, 52, 128 + 8, 128 + 12, 160 + 28, 208 + 28, 128 + 142];
    const values = [0, 1, 47, 48, 63, 64, 4096, 0x7fffffff, 0x80000000, 0xffffff80, 0xffffffff];
    const atMemoryEnd: Bench = { ...bench, region: at, regionBytes: length };
    for (let round = 0; round < 4_000; round++) {
      heap.bytes.set(image, at);
      for (let change = random.below(3); change >= 0; change--) {
        const value =
          random.below(2) === 0 ? values[random.below(values.length)]! : random.below(2 ** 32);
        heap.view.setUint32(at + fields[random.below(fields.length)]!, value, true);
      }
      const changed = Buffer.compare(heap.bytes.slice(at, at + length), image) !== 0;
      resealAll(atMemoryEnd, batch.blocksLength, batch.hardStates);
      const before = heap.bytes.slice(at - 4096);
      const failure = codec.verifyBatch(at, length);
      const laneOnly = failure === undefined && changed;
      if (laneOnly) {
        // The lane and the known flag are the only fields that a sound batch may have otherwise.
        heap.view.setUint32(at + 8, batch.lane, true);
        heap.view.setUint16(at + 6, batch.flags, true);
        resealHeader(atMemoryEnd);
        const repaired = Buffer.compare(heap.bytes.slice(at, at + length), image) === 0;
        expect(repaired, `seed ${seed}, round ${round}`).toBe(true);
      } else {
        expect(failure !== undefined, `seed ${seed}, round ${round}`).toBe(changed);
        expect(Buffer.compare(before, heap.bytes.slice(at - 4096))).toBe(0);
      }
    }
    expect(codec.verifyBatch(0xffffff00, 0xffffffff)).toBe('truncated');
  });
});

test('a worker verifies through an attached heap what the main thread sealed', () => {
  const bench = createBench();
  const { length } = seal(bench);
  const attached = SharedHeap.attach(bench.heap.transferable);
  expect(new BatchCodec(attached).verifyBatch(bench.region, length)).toBeUndefined();
});
