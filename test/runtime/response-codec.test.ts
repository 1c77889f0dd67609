import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Entry, StateMachine } from '../../dist/index.js';
import { packResponse, unpackResponse } from '../../dist/runtime/response-codec.js';
import { testCluster } from '../../dist/testing/index.js';

/** What a state machine may answer with, as the guide says. */
const RESPONSES: Readonly<Record<string, unknown>> = {
  undefined: undefined,
  null: null,
  booleans: [true, false],
  numbers: [0, 1.5, -(2 ** 40), Number.MAX_SAFE_INTEGER, Number.NaN, Number.POSITIVE_INFINITY],
  bigints: [5n, 2n ** 63n, -(2n ** 200n)],
  text: ['', 'ключ', 'x'.repeat(70_000)],
  'objects in arrays': [{ a: 1 }, { a: 2 }, { b: { c: [undefined, null] } }],
  'an object of many fields': Object.fromEntries(
    Array.from({ length: 300 }, (_, i) => [`k${i}`, i]),
  ),
  maps: new Map<unknown, unknown>([
    ['ann', 5],
    [7, new Map()],
    [{ a: 1 }, 'by object'],
  ]),
  sets: new Set(['ann', { owes: 5 }]),
  dates: [new Date(1_700_000_000_123), new Date(-1)],
  bytes: [new Uint8Array([1, 2, 3]), new Uint8Array(0)],
  'typed arrays': [new Float64Array([1.5]), new Int16Array([-2]), new BigInt64Array([3n])],
  'array buffers': new Uint8Array([1, 2]).buffer,
  errors: new RangeError('too little money'),
};

const throughBytes = (value: unknown): unknown => unpackResponse(packResponse(value, 1), 1);

describe('the response to a forwarded write', () => {
  it.each(Object.entries(RESPONSES))('brings %s', (_what, value) => {
    expect(throughBytes(value)).toStrictEqual(value);
  });

  it('brings any nesting of these', () => {
    const key = fc.string().filter((name) => name !== '__proto__');
    const values = fc.anything({
      key,
      withBigInt: true,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      // Signs of zero, and the one spelling of text that is not Unicode, get lost.
      values: [fc.string({ unit: 'binary' }), fc.integer(), fc.boolean(), fc.constant(null)],
    });
    fc.assert(
      fc.property(values, (value) => {
        expect(throughBytes(value)).toStrictEqual(value);
      }),
    );
  });

  it('is decoded alone, whatever was decoded before', () => {
    const all = Object.values(RESPONSES);
    const bytes = all.map((value) => packResponse(value, 1));
    expect(bytes.reverse().map((each) => unpackResponse(each, 1))).toStrictEqual(all.reverse());
  });

  it.each([
    ['a Uint8Array', new Uint8Array([1, 2, 3])],
    ['a Buffer', Buffer.from([1, 2, 3])],
  ])('brings %s as a Uint8Array of its own', (_what, value) => {
    const payload = Buffer.from(packResponse({ value }, 1));
    const response = unpackResponse(payload, 1);
    payload.fill(0xdd);
    expect(response).toStrictEqual({ value: new Uint8Array([1, 2, 3]) });
  });

  it('that is no data tells that the write has happened', () => {
    expect(() => packResponse({ kind: Symbol('no data') }, 7)).toThrow(
      expect.objectContaining({
        code: 'KEELSON_STATE_MACHINE_FAILED',
        outcome: 'unknown',
        message: expect.stringContaining('index 7'),
      }),
    );
    expect(() => unpackResponse(new Uint8Array([0x91]), 7)).toThrow(
      expect.objectContaining({ code: 'KEELSON_CORRUPT_FRAME', outcome: 'unknown' }),
    );
  });
});

/** Answers with the response of that name. */
class Answering implements StateMachine<string, unknown, never, never> {
  apply(entries: readonly Entry<string>[]): unknown[] {
    return entries.map(({ command }) => RESPONSES[command]);
  }
  query(): never {
    throw new Error('it has no state');
  }
  *snapshot(): Iterable<Uint8Array> {}
  restore(): void {}
}

it('a write is answered alike on the leader and on a follower', async () => {
  await using cluster = await testCluster({ stateMachine: () => new Answering() });
  const leader = await cluster.leader();
  const follower = cluster.nodes.find((node) => node !== leader);
  for (const [what, value] of Object.entries(RESPONSES)) {
    expect((await leader.write(what)).response, `${what} on the leader`).toStrictEqual(value);
    expect((await follower?.write(what))?.response, `${what} elsewhere`).toStrictEqual(value);
  }
});
