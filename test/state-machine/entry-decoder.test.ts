import { describe, expect, test } from 'vitest';
import { msgpackCodec, rawCodec } from '../../dist/state-machine/codec.js';
import { decodeEntries, EntryCursor, spansOf } from '../../dist/state-machine/entry-decoder.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../../dist/wasm/layout.js';
import { block, join, shared } from './support/blocks.js';

const payload = (value: number) => new Uint8Array(value % 7).fill(value);

/** Three blocks: entries 11…13, 14, 15…20, of terms 2, 2, 3. */
function blocks(): Uint8Array[] {
  const entriesOf = (first: number, last: number, term: number) =>
    Array.from({ length: last - first + 1 }, (_, place) => ({
      payload: payload(first + place),
      term,
      time: 2 ** 40 + first + place,
    }));
  return [
    block(11, entriesOf(11, 13, 2)),
    block(14, entriesOf(14, 14, 2)),
    block(15, entriesOf(15, 20, 3)),
  ];
}

function expected(firstIndex: number, lastIndex: number) {
  return Array.from({ length: lastIndex - firstIndex + 1 }, (_, place) => {
    const index = firstIndex + place;
    return {
      logId: { term: index < 15 ? 2 : 3, index },
      time: 2 ** 40 + index,
      command: payload(index),
    };
  });
}

describe('decodeEntries', () => {
  test('finds every sub-range of consecutive blocks', () => {
    const parts = blocks();
    for (let first = 11; first <= 20; first++) {
      for (let last = first; last <= 20; last++) {
        const { entries, gaps } = decodeEntries(parts, first, last, rawCodec);
        expect(entries, `${first}…${last}`).toEqual(expected(first, last));
        expect(gaps).toEqual([]);
      }
    }
  });

  test('does not mind where the bytes are cut into parts', () => {
    const bytes = shared(join(blocks()));
    for (let cut = 0; cut <= bytes.length; cut++) {
      const parts = [bytes.subarray(0, cut), bytes.subarray(cut)];
      expect(decodeEntries(parts, 12, 20, rawCodec).entries, `cut at ${cut}`).toEqual(
        expected(12, 20),
      );
    }
    const crumbs = Array.from(bytes, (_, place) => bytes.subarray(place, place + 1));
    expect(decodeEntries(crumbs, 11, 20, rawCodec).entries).toEqual(expected(11, 20));
  });

  test('a cursor continues where it stopped, by count and by bytes', () => {
    for (const [maxEntries, maxBytes] of [
      [1, 1000],
      [3, 1000],
      [4, 1000],
      [100, 1],
      [100, 8],
    ] as const) {
      const cursor = new EntryCursor(rawCodec);
      cursor.begin(spansOf(blocks()), 11, 20);
      const entries = [];
      while (!cursor.done) {
        const decoded = cursor.next(maxEntries, maxBytes);
        expect(decoded.entries.length).toBeLessThanOrEqual(maxEntries);
        entries.push(...decoded.entries);
      }
      expect(entries).toEqual(expected(11, 20));
    }
  });

  test('terms, indexes and times keep all 53 bits', () => {
    const huge = Number.MAX_SAFE_INTEGER;
    const { entries } = decodeEntries(
      [block(huge, [{ term: huge - 1, time: huge - 2 }])],
      huge,
      huge,
      rawCodec,
    );
    expect(entries[0]).toMatchObject({ logId: { term: huge - 1, index: huge }, time: huge - 2 });
  });

  test('entries of other kinds are gaps', () => {
    const bytes = block(1, [
      { kind: ENTRY_KIND.blank },
      { payload: payload(3) },
      { kind: ENTRY_KIND.membership, payload: payload(5) },
    ]);
    const { entries, gaps } = decodeEntries([bytes], 1, 3, rawCodec);
    expect(entries.map(({ logId }) => logId.index)).toEqual([2]);
    expect(gaps).toEqual([0, 2]);
  });

  test.each<[string, (view: DataView) => void]>([
    ['a broken magic', (view) => view.setUint32(0, 1, true)],
    ['more items than bytes', (view) => view.setUint32(BLOCK.offset.items, 0xffff_ffff, true)],
    [
      'more payload than bytes',
      (view) => view.setUint32(BLOCK.offset.payloadLength, 0xffff_ffff, true),
    ],
    [
      'an item whose payload leaves the block',
      (view) => view.setUint32(BLOCK.bytes + ITEM.offset.length, 0xffff_ffff, true),
    ],
    ['an unknown kind', (view) => view.setUint32(BLOCK.bytes + ITEM.offset.kind, 9, true)],
    ['a first index beyond the range', (view) => view.setUint32(BLOCK.offset.firstIndex, 12, true)],
  ])('refuses %s', (_, breakIt) => {
    const [bytes] = blocks();
    breakIt(new DataView(bytes!.buffer));
    expect(() => decodeEntries([bytes!], 11, 13, rawCodec)).toThrow(/cannot read entry 11/);
  });

  test('refuses a range that the bytes do not hold', () => {
    expect(() => decodeEntries(blocks(), 11, 21, rawCodec)).toThrow(/cannot read entry 21/);
    expect(() => decodeEntries([], 1, 1, rawCodec)).toThrow(/cannot read entry 1/);
  });
});

describe('codecs', () => {
  const values: [string, unknown][] = [
    ['undefined', undefined],
    ['null', null],
    ['a boolean', true],
    ['a fraction', -1.5],
    ['a large integer', 2 ** 40],
    ['a long string', 'ключ 😀'.repeat(50)],
    ['bytes', new Uint8Array([1, 2, 3])],
    [
      'a tree',
      { op: 'put', nested: [{ bytes: new Uint8Array(70_000).fill(7) }], when: new Date(5) },
    ],
  ];

  test.each(values)('msgpack keeps %s, out of recycled memory', (_, value) => {
    const bytes = shared(msgpackCodec.encode(value));
    const decoded = msgpackCodec.decode(bytes);
    bytes.fill(0xdd);
    msgpackCodec.decode(shared(msgpackCodec.encode({ other: 'x'.repeat(60_000) })));
    expect(decoded).toEqual(value);
  });

  test('what was encoded stays as it is when more is encoded', () => {
    const first = msgpackCodec.encode({ a: 1 });
    const before = Uint8Array.from(first);
    for (let count = 0; count < 10_000; count++) msgpackCodec.encode({ b: 'x'.repeat(100) });
    expect(Uint8Array.from(first)).toEqual(before);
  });

  test('raw returns a copy', () => {
    const bytes = shared(new Uint8Array([1, 2, 3]));
    const decoded = rawCodec.decode(bytes);
    bytes.fill(0xdd);
    expect(decoded).toEqual(new Uint8Array([1, 2, 3]));
    expect(decoded.buffer).toBeInstanceOf(ArrayBuffer);
  });

  test('bytes behind the command are refused', () => {
    expect(() => msgpackCodec.decode(new Uint8Array([1, 2]))).toThrow();
    expect(() => msgpackCodec.decode(new Uint8Array(0))).toThrow();
  });
});
