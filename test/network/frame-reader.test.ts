import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { FRAME, FRAME_HEADER_BYTES, sealFrame } from '../../dist/network/frame.js';
import { FrameReader } from '../../dist/network/frame-reader.js';
import { frame } from './support/tcp-nodes.js';

const SEED = 20_261_123;
const LIMIT = 1_000_000;

interface Seen {
  readonly type: number;
  readonly body: Uint8Array;
}

function reading(limit = LIMIT): { reader: FrameReader; seen: Seen[] } {
  const seen: Seen[] = [];
  const reader = new FrameReader({
    maxBodyBytes: (type) => (type === 99 ? -1 : limit),
    frame(type, view, at, fixedBytes, rest) {
      const fixed = new Uint8Array(view.buffer, view.byteOffset + at, fixedBytes);
      seen.push({ type, body: new Uint8Array(Buffer.concat([fixed, ...rest])) });
    },
  });
  return { reader, seen };
}

const corrupt = expect.objectContaining({ code: 'KEELSON_CORRUPT_FRAME' });

describe('frame reader', () => {
  it('finds the same frames however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(FRAME.append, FRAME.hello), fc.nat(20_000)), {
          minLength: 1,
          maxLength: 6,
        }),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9_000 })), {
          minLength: 1,
          maxLength: 20,
        }),
        (frames, cuts) => {
          const random = new SeededRandom(SEED);
          const sent = frames.map(([type, bytes]) => ({
            type,
            body: random.fill(new Uint8Array(type === FRAME.append ? bytes + 48 : bytes)),
          }));
          const stream = Buffer.concat(
            sent.map(({ type, body }) =>
              frame(type, body, type === FRAME.append ? 48 : body.byteLength),
            ),
          );
          const { reader, seen } = reading();
          let at = 0;
          for (let turn = 0; at < stream.length; turn++) {
            const bytes = cuts[turn % cuts.length]!;
            reader.push(stream.subarray(at, at + bytes));
            at += bytes;
          }
          expect(seen.map(({ type }) => type)).toEqual(sent.map(({ type }) => type));
          for (const [each, { body }] of sent.entries()) {
            expect(Buffer.compare(seen[each]!.body, body)).toBe(0);
          }
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });

  it('hands over in place what lies in one chunk', () => {
    const bytes = frame(FRAME.append, new Uint8Array(1_000), 48);
    let rest: readonly Uint8Array[] = [];
    const reader = new FrameReader({
      maxBodyBytes: () => LIMIT,
      frame: (_type, _view, _at, _fixedBytes, parts) => {
        rest = parts;
      },
    });
    reader.push(bytes);
    expect(rest.length).toBe(1);
    expect(rest[0]!.buffer).toBe(bytes.buffer);
    expect(rest[0]!.byteOffset).toBe(FRAME_HEADER_BYTES + 48);
  });

  it('detects every single changed bit of header and fixed part', () => {
    const good = frame(FRAME.append, new SeededRandom(SEED).fill(new Uint8Array(60)), 48);
    for (let bit = 0; bit < (FRAME_HEADER_BYTES + 48) * 8; bit++) {
      const bytes = good.slice();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      const { reader, seen } = reading();
      expect(() => reader.push(bytes), `bit ${bit}`).toThrow(corrupt);
      expect(seen).toEqual([]);
    }
  });

  it('refuses a length beyond the limit, a type that has no place, and a body that is too short', () => {
    expect(() => reading(100).reader.push(frame(FRAME.append, new Uint8Array(101), 48))).toThrow(
      /101 bytes, the limit is 100/,
    );
    expect(() => reading().reader.push(frame(99, new Uint8Array(4)))).toThrow(/no place/);
    expect(() => reading().reader.push(frame(FRAME.append, new Uint8Array(47)))).toThrow(corrupt);
  });

  it('allocates by what has arrived, not by what was announced', () => {
    const limit = 512 * 1024 * 1024;
    const readers = Array.from({ length: 200 }, () => reading(limit).reader);
    const large = frame(FRAME.append, new Uint8Array(64), 48);
    sealFrame(new DataView(large.buffer), 0, FRAME.append, 48, limit - 48);
    const before = process.memoryUsage().arrayBuffers;
    for (const reader of readers) reader.push(large);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(200 * 70_000);
  });

  it('answers random bytes with CORRUPT_FRAME', () => {
    const random = new SeededRandom(SEED);
    for (let run = 0; run < 2_000; run++) {
      const bytes = random.fill(new Uint8Array(FRAME_HEADER_BYTES + random.integer(200)));
      const { reader } = reading();
      expect(() => reader.push(bytes), `seed ${SEED}, run ${run}`).toThrow(corrupt);
    }
  });

  it('stops in the midst of a chunk', () => {
    const two = Buffer.concat([frame(FRAME.hello, new Uint8Array(5)), Buffer.alloc(500)]);
    let count = 0;
    const reader: FrameReader = new FrameReader({
      maxBodyBytes: () => LIMIT,
      frame: () => {
        count++;
        reader.stop();
      },
    });
    reader.push(two);
    expect(count).toBe(1);
  });
});
