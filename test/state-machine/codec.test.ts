import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { msgpackCodec } from '../../dist/state-machine/codec.js';

const roundTrip = (value: unknown): unknown => msgpackCodec.decode(msgpackCodec.encode(value));

describe('the codec of commands', () => {
  it.each([
    ['a Float64Array', { v: new Float64Array([1.5, 2.5]) }],
    ['a Uint16Array', [new Uint16Array([300, 1])]],
    ['a DataView', { v: { w: new DataView(new ArrayBuffer(8)) } }],
    ['a Map with an object as key', { m: new Map([[{}, 1]]) }],
    ['a Map with bytes as key', new Map([[new Uint8Array(2), 1]])],
    ['such a Map in a Map', new Map([['a', new Map([[[], 1]])]])],
    ['such a Map in a Set', new Set([new Map([[new Date(0), 1]])])],
  ])('refuses %s, which no node could decode as it was', (_name, value) => {
    expect(() => msgpackCodec.encode(value)).toThrow(TypeError);
  });

  it('keeps bytes, dates and bigints, and makes arrays of Sets and objects of Maps', () => {
    expect(roundTrip({ bytes: new Uint8Array([1, 2]), at: new Date(5), big: 2n ** 60n })).toEqual({
      bytes: new Uint8Array([1, 2]),
      at: new Date(5),
      big: 2n ** 60n,
    });
    const simpler = { keys: [1, 2], byName: { a: 1, 2: 'b' } };
    const map = new Map<unknown, unknown>([
      ['a', 1],
      [2, 'b'],
    ]);
    expect(roundTrip({ keys: new Set([1, 2]), byName: map })).toEqual(simpler);
  });

  it('decodes whatever it has encoded', () => {
    const anything = fc.anything({
      withBigInt: false,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withSparseArray: true,
      withNullPrototype: true,
    });
    fc.assert(
      fc.property(anything, (value) => {
        let bytes: Uint8Array;
        try {
          bytes = msgpackCodec.encode(value);
        } catch {
          // Refused before it is in any log.
          return;
        }
        msgpackCodec.decode(bytes);
      }),
      { numRuns: 2000 },
    );
  });
});
