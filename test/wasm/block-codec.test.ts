import { describe, expect, test } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { blockBytes } from '../../dist/wasm/block-codec.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../../dist/wasm/layout.js';
import { type Bench, createBench, encodeBlocks, seededRandom } from './support.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function reasonOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    if (!(error instanceof KeelsonError)) throw error;
    expect(error.code).toBe('KEELSON_CORRUPT_FRAME');
    return error.details.reason;
  }
  return undefined;
}

function threeBlocks(bench: Bench): number {
  return encodeBlocks(bench, bench.region, [
    {
      firstIndex: 10,
      term: 3,
      payloads: [text('a'), text(''), text('a longer payload than that')],
    },
    { firstIndex: 13, term: 3, time: 1_700_000_000_001, payloads: [text('b')] },
    { firstIndex: 14, term: 5, kind: ENTRY_KIND.membership, payloads: [text('voters'), text('x')] },
  ]);
}

describe('a block', () => {
  test('stands in memory as its layout says', () => {
    const bench = createBench();
    const payloads = [text('one'), text('two!')];
    const length = encodeBlocks(bench, bench.region, [
      { group: 9, firstIndex: 2 ** 40 + 1, term: 2 ** 33, time: 2 ** 42, payloads },
    ]);
    expect(length).toBe(BLOCK.bytes + 2 * ITEM.bytes + 7);
    expect(length).toBe(blockBytes(payloads, 2));
    const view = bench.heap.view;
    const at = bench.region;
    expect(view.getUint32(at + BLOCK.offset.magic, true)).toBe(BLOCK.magic);
    expect(view.getUint32(at + BLOCK.offset.group, true)).toBe(9);
    expect(view.getUint32(at + BLOCK.offset.items, true)).toBe(2);
    expect(view.getUint32(at + BLOCK.offset.payloadLength, true)).toBe(7);
    expect(view.getBigUint64(at + BLOCK.offset.firstIndex, true)).toBe(2n ** 40n + 1n);
    const second = at + BLOCK.bytes + ITEM.bytes;
    expect(view.getBigUint64(second + ITEM.offset.index, true)).toBe(2n ** 40n + 2n);
    expect(view.getBigUint64(second + ITEM.offset.term, true)).toBe(2n ** 33n);
    expect(view.getBigUint64(second + ITEM.offset.time, true)).toBe(2n ** 42n);
    expect(view.getUint32(second + ITEM.offset.group, true)).toBe(9);
    expect(view.getUint32(second + ITEM.offset.length, true)).toBe(4);
    expect(view.getUint32(second + ITEM.offset.kind, true)).toBe(ENTRY_KIND.application);
    expect(Buffer.from(bench.heap.slice(second + ITEM.bytes, 7)).toString()).toBe('onetwo!');
  });

  test('refuses a room that is one byte too small', () => {
    const bench = createBench();
    const block = { group: 1, firstIndex: 1, term: 1, time: 0, kind: 2, payloads: [text('ab')] };
    const room = blockBytes(block.payloads, 1);
    const encode = (given: number) => (): number =>
      bench.codec.encodeBlock(bench.region, given, { ...block, count: 1 });
    expect(encode(room - 1)).toThrow('fits the room');
    expect(encode(room)()).toBe(room);
    bench.heap.view.setUint32(bench.region + BLOCK.bytes + ITEM.offset.length, 0xffffffff, true);
    expect(() => bench.codec.completeBlock(bench.region, room, { ...block, count: 1 })).toThrow(
      'fits the room',
    );
    expect(() =>
      bench.codec.completeBlock(bench.region, room, { ...block, count: 2 ** 31 }),
    ).toThrow('fits the room');
  });
});

describe('verifyBlocks', () => {
  test('sums up consecutive blocks: indexes, term runs, memberships, time', () => {
    const bench = createBench();
    const length = threeBlocks(bench);
    const verified = bench.codec.verifyBlocks(bench.region, length, 7, 10);
    const payload = bench.region + length - 7;
    expect(verified).toEqual({
      firstIndex: 10,
      lastIndex: 15,
      lastTerm: 5,
      lastTime: 1_700_000_000_000,
      items: 6,
      blocks: 3,
      termRuns: [
        { firstIndex: 10, term: 3 },
        { firstIndex: 14, term: 5 },
      ],
      memberships: [
        { index: 14, pointer: payload, length: 6 },
        { index: 15, pointer: payload + 6, length: 1 },
      ],
    });
  });

  test('is told of a block without its checksums, once they are known to be right', () => {
    const bench = createBench();
    const length = threeBlocks(bench);
    const { view } = bench.heap;
    for (let at = bench.region; at < bench.region + length; ) {
      const items = view.getUint32(at + BLOCK.offset.items, true);
      const payloads = view.getUint32(at + BLOCK.offset.payloadLength, true);
      const bytes = BLOCK.bytes + items * ITEM.bytes + payloads;
      const index = Number(view.getBigUint64(at + BLOCK.offset.firstIndex, true));
      const verified = bench.codec.verifyBlocks(at, bytes, 7, index);
      expect(bench.codec.describeBlock(at, bytes, 7)).toEqual(verified);
      at += bytes;
    }
  });

  test('detects every single bit that flips', () => {
    const bench = createBench();
    const length = threeBlocks(bench);
    const bytes = bench.heap.bytes;
    for (let bit = 0; bit < length * 8; bit++) {
      const at = bench.region + (bit >>> 3);
      bytes[at]! ^= 1 << (bit & 7);
      const reason = reasonOf(() => bench.codec.verifyBlocks(bench.region, length, 7, 10));
      bytes[at]! ^= 1 << (bit & 7);
      expect(reason, `bit ${bit}`).toBeDefined();
    }
    expect(bench.codec.verifyBlocks(bench.region, length, 7, 10).items).toBe(6);
  });

  test('detects truncation at every length but the ends of whole blocks', () => {
    const bench = createBench();
    const length = threeBlocks(bench);
    const whole: number[] = [];
    for (let cut = 0; cut < length; cut++) {
      if (reasonOf(() => bench.codec.verifyBlocks(bench.region, cut, 7, 10)) === undefined) {
        whole.push(cut);
      }
    }
    const first = BLOCK.bytes + 3 * ITEM.bytes + 27;
    expect(whole).toEqual([first, first + BLOCK.bytes + ITEM.bytes + 1]);
  });

  test('detects two items, two payloads or two blocks that changed places', () => {
    const bench = createBench();
    const encode = (): number =>
      encodeBlocks(bench, bench.region, [
        { firstIndex: 1, payloads: [text('aaaa'), text('bbbb')] },
        { firstIndex: 3, payloads: [text('cccc'), text('dddd')] },
      ]);
    const swap = (first: number, second: number, length: number): void => {
      const bytes = bench.heap.bytes;
      const kept = bytes.slice(first, first + length);
      bytes.copyWithin(first, second, second + length);
      bytes.set(kept, second);
    };
    const items = bench.region + BLOCK.bytes;
    const payloads = items + 2 * ITEM.bytes;
    const blockLength = encode() / 2;
    const swaps: [number, number, number][] = [
      [items, items + ITEM.bytes, ITEM.bytes],
      [payloads, payloads + 4, 4],
      [bench.region, bench.region + blockLength, blockLength],
    ];
    // Every pair of 8-byte fields inside an item.
    for (let first = 0; first < ITEM.bytes; first += 8) {
      for (let second = first + 8; second < ITEM.bytes; second += 8) {
        swaps.push([items + first, items + second, 8]);
      }
    }
    for (const [first, second, length] of swaps) {
      const all = encode();
      expect(bench.codec.verifyBlocks(bench.region, all, 7, 1).items).toBe(4);
      swap(first, second, length);
      const reason = reasonOf(() => bench.codec.verifyBlocks(bench.region, all, 7, 1));
      expect(reason, `${first - bench.region} and ${second - bench.region}`).toBeDefined();
    }
  });

  test('tells what is wrong with sound bytes', () => {
    const bench = createBench();
    const verify = (length: number, group = 7, first = 1) =>
      reasonOf(() => bench.codec.verifyBlocks(bench.region, length, group, first));
    const one = { firstIndex: 1, payloads: [text('x')] };
    const plain = encodeBlocks(bench, bench.region, [one]);
    expect(verify(plain)).toBeUndefined();
    expect(verify(plain, 8)).toBe('group');
    expect(verify(plain, 7, 2)).toBe('index');
    expect(verify(0)).toBe('truncated');
    const falling = [
      { ...one, term: 4 },
      { ...one, firstIndex: 2, term: 3 },
    ];
    expect(verify(encodeBlocks(bench, bench.region, falling))).toBe('term');
    expect(verify(encodeBlocks(bench, bench.region, [{ ...one, term: 0 }]))).toBe('term');
    const record = { ...one, kind: ENTRY_KIND.truncateAfter };
    expect(verify(encodeBlocks(bench, bench.region, [record]))).toBe('kind');
    const unsafe = { ...one, term: 2 ** 53 };
    expect(verify(encodeBlocks(bench, bench.region, [unsafe]))).toBe('unsafeInteger');
    const payloads = new Array<Uint8Array>(1025).fill(text(''));
    const marks = { firstIndex: 1, payloads, kind: ENTRY_KIND.membership };
    expect(verify(encodeBlocks(bench, bench.region, [marks]))).toBe('tooManyMarks');
    const runs = payloads.map((payload, i) => ({
      firstIndex: i + 1,
      term: i + 1,
      payloads: [payload],
    }));
    expect(verify(encodeBlocks(bench, bench.region, runs))).toBe('tooManyRuns');
  });

  test('never reads outside: hostile lengths at the end of the memory', () => {
    const seed = 20_260_801;
    const random = seededRandom(seed);
    const bench = createBench();
    const heap = bench.heap;
    const memoryEnd = heap.bytes.length;
    const length = threeBlocks(bench);
    const image = heap.bytes.slice(bench.region, bench.region + length);
    // A read past the last byte of the memory traps, so the blocks stand right before it.
    const at = memoryEnd - length;
    const fields = [0, 4, 8, 12, 16, 24, 32 + 28, 80 + 28, 128 + 28];
    const values = [0, 1, 2, 47, 48, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff];
    for (let round = 0; round < 20_000; round++) {
      heap.bytes.set(image, at);
      const changes = 1 + random.below(3);
      for (let change = 0; change < changes; change++) {
        const field = at + fields[random.below(fields.length)]!;
        const value =
          random.below(2) === 0 ? values[random.below(values.length)]! : random.below(2 ** 32);
        heap.view.setUint32(field, value, true);
      }
      const changed = Buffer.compare(heap.bytes.slice(at, memoryEnd), image) !== 0;
      const reason = reasonOf(() => bench.codec.verifyBlocks(at, length, 7, 10));
      expect(reason !== undefined, `seed ${seed}, round ${round}`).toBe(changed);
    }
    heap.bytes.set(image, at);
    expect(reasonOf(() => bench.codec.verifyBlocks(at, length + 1, 7, 10))).toBe('truncated');
    expect(reasonOf(() => bench.codec.verifyBlocks(at, 0xffffffff, 7, 10))).toBe('truncated');
    expect(reasonOf(() => bench.codec.verifyBlocks(0xfffffff0, 0xfff, 7, 10))).toBe('truncated');
  });

  test('writes nothing but its summary', () => {
    const bench = createBench();
    const length = threeBlocks(bench);
    const before = bench.heap.bytes.slice(bench.region, bench.region + bench.regionBytes);
    bench.codec.verifyBlocks(bench.region, length, 7, 10);
    const after = bench.heap.bytes.slice(bench.region, bench.region + bench.regionBytes);
    expect(Buffer.compare(before, after)).toBe(0);
  });
});
