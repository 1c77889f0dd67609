import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ErrorRecord } from '../../dist/base/errors.js';
import type { AppendRequest, ControlMessage } from '../../dist/engine/messages.js';
import {
  frameTypeOf,
  packError,
  packVote,
  readAppend,
  readControl,
  readForwardRequest,
  unpackError,
  writeAppend,
  writeControl,
  writeForwardRequest,
} from '../../dist/network/codec.js';
import { packRecord, RECORD, unpackRecord } from '../../dist/network/control-codec.js';
import { FRAME, fixedBytes } from '../../dist/network/frame.js';
import {
  packHello,
  packRefusal,
  unpackHello,
  unpackRefusal,
} from '../../dist/network/handshake.js';

const RUNS = { seed: 20_261_123, numRuns: 300 };
const safe = fc.maxSafeNat();
const logId = fc.record({ term: safe, index: safe });

const control: fc.Arbitrary<ControlMessage> = fc.oneof(
  fc.record({ type: fc.constant('PreVoteRequest' as const), term: safe, lastLogId: logId }),
  fc.record({ type: fc.constant('VoteRequest' as const), term: safe, lastLogId: logId }),
  fc.record({
    type: fc.constant('PreVoteResponse' as const),
    term: safe,
    requestTerm: safe,
    granted: fc.boolean(),
  }),
  fc.record({
    type: fc.constant('VoteResponse' as const),
    term: safe,
    requestTerm: safe,
    granted: fc.boolean(),
  }),
  fc.record({
    type: fc.constant('AppendResponse' as const),
    term: safe,
    session: safe,
    matchIndex: safe,
    conflict: fc.option(
      fc.record({ rejectedIndex: safe, term: safe, firstIndex: safe, lastIndex: safe }),
      { nil: undefined },
    ),
  }),
  fc.record({
    type: fc.constant('HeartbeatRequest' as const),
    term: safe,
    committed: safe,
    round: safe,
  }),
  fc.record({ type: fc.constant('HeartbeatResponse' as const), term: safe, round: safe }),
  fc.record({
    type: fc.constant('SnapshotResponse' as const),
    term: safe,
    session: safe,
    state: fc.constantFrom('receiving' as const, 'installed' as const, 'failed' as const),
    offset: safe,
    matchIndex: safe,
  }),
);

function encode(message: ControlMessage): Uint8Array {
  const packed = packVote(message);
  if (packed !== undefined) return packed;
  const bytes = new Uint8Array(fixedBytes(frameTypeOf(message)));
  writeControl(new DataView(bytes.buffer), 0, message);
  return bytes;
}

function decode(type: number, bytes: Uint8Array): ControlMessage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return readControl(type, view, 0, bytes.byteLength);
}

const corrupt = expect.objectContaining({ code: 'KEELSON_CORRUPT_FRAME' });

describe('codec', () => {
  it('brings every control message back as it was', () => {
    fc.assert(
      fc.property(control, (message) => {
        expect(decode(frameTypeOf(message), encode(message))).toEqual(message);
      }),
      RUNS,
    );
  });

  it('brings every append back as it was, at any offset', () => {
    fc.assert(
      fc.property(safe, safe, logId, safe, safe, fc.nat(31), (term, session, prev, a, b, at) => {
        const message: AppendRequest = {
          type: 'AppendRequest',
          term,
          session,
          prevLogId: { term: prev.term, index: Math.min(prev.index, a) },
          lastIndex: a,
          committed: b,
        };
        const view = new DataView(new ArrayBuffer(80));
        writeAppend(view, at, message);
        expect(readAppend(view, at)).toEqual(message);
      }),
      RUNS,
    );
  });

  it('refuses integers beyond 2^53, and an append that goes back', () => {
    const view = new DataView(new ArrayBuffer(64));
    for (const at of [0, 8, 16, 24, 32, 40]) {
      writeAppend(view, 0, {
        type: 'AppendRequest',
        term: 1,
        session: 1,
        prevLogId: { term: 1, index: 1 },
        lastIndex: 1,
        committed: 1,
      });
      view.setUint32(at + 4, 0x20_0000, true);
      expect(() => readAppend(view, 0)).toThrow(corrupt);
      view.setUint32(at + 4, 0, true);
    }
    view.setUint32(32, 0, true);
    expect(() => readAppend(view, 0)).toThrow(/goes back/);
  });

  it('brings requests and errors back as they were', () => {
    const payload = new Uint8Array([1, 2, 3]);
    const view = new DataView(new ArrayBuffer(32));
    writeForwardRequest(view, 4, 77, { kind: 'readIndex', payload, timeoutMs: 12.7 });
    expect(readForwardRequest(view, 4, payload)).toEqual({
      id: 77,
      request: { kind: 'readIndex', payload, timeoutMs: 12 },
    });
    const errors: ErrorRecord[] = [
      { code: 'KEELSON_OVERLOADED', message: 'wait', outcome: 'rejected', details: {} },
      {
        code: 'KEELSON_NOT_LEADER',
        message: 'x'.repeat(1024),
        outcome: 'unknown',
        leader: { nodeId: 2, address: undefined },
        details: { index: 4, file: 'a' },
      },
      {
        code: 'KEELSON_NOT_LEADER',
        message: '',
        outcome: 'unknown',
        leader: { nodeId: 3, address: '[::1]:7' },
        details: {},
      },
    ];
    for (const error of errors) expect(unpackError(packError(error))).toEqual(error);
  });

  it('cuts what is too long in an error, and leaves details behind that do not fit', () => {
    const error = unpackError(
      packError({
        code: 'KEELSON_OVERLOADED',
        message: 'y'.repeat(5000),
        outcome: 'rejected',
        details: { large: 'z'.repeat(5000), nested: { a: 1 } },
      }),
    );
    expect(error.message.length).toBe(1024);
    expect(error.details).toEqual({});
  });

  it('brings the handshake back as it was', () => {
    const hello = {
      identity: { clusterId: 'ab'.repeat(16), nodeId: 2 ** 53 - 1, incarnation: '01'.repeat(16) },
      versions: {
        wire: { min: 1, max: 2 },
        format: { min: 3, max: 4 },
        stateMachine: { min: 5, max: 600_000 },
      },
      channel: 'bulk',
      target: 7,
      advertise: undefined,
    } as const;
    expect(unpackHello(packHello(hello))).toEqual(hello);
    const moved = { ...hello, advertise: `${'n'.repeat(253)}:65535` };
    expect(unpackHello(packHello(moved))).toEqual(moved);
    const refusal = { reason: 'cluster', text: 'ä'.repeat(512) } as const;
    expect(unpackRefusal(packRefusal(refusal))).toEqual(refusal);
  });

  it('refuses a handshake with wrong fields', () => {
    const hello = {
      wireMin: 1,
      wireMax: 1,
      formatMin: 1,
      formatMax: 1,
      machineMin: 1,
      machineMax: 1,
      clusterId: 'ab'.repeat(16),
      nodeId: 1,
      incarnation: 'cd'.repeat(16),
      channel: 'bulk',
      target: 2,
      advertise: null,
    };
    expect(unpackHello(packRecord(hello)).target).toBe(2);
    const wrong: Record<string, (number | string | boolean | null)[]> = {
      wireMin: [0, 2, -1, 1.5, null, '1', true],
      machineMax: [0, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY],
      clusterId: ['', 'AB'.repeat(16), 'ab'.repeat(17), 5],
      nodeId: [0, -1, null],
      incarnation: ['zz'.repeat(16)],
      channel: ['', 'other', 1],
      target: [0],
      advertise: ['', 'nowhere', 'host:65536', `${'n'.repeat(256)}:7000`, 7000, true],
    };
    for (const [field, values] of Object.entries(wrong)) {
      for (const value of values) {
        const bytes = packRecord({ ...hello, [field]: value });
        expect(() => unpackHello(bytes), `${field}: ${value}`).toThrow(corrupt);
      }
    }
  });

  it('lets nothing but flat records of scalars reach the decoder', () => {
    const good = [...packRecord({ preVote: true, term: 1, requestTerm: 2, granted: false })];
    expect(unpackRecord(new Uint8Array(good), RECORD.voteResponse)).toEqual({
      preVote: true,
      term: 1,
      requestTerm: 2,
      granted: false,
    });
    const hostile: Record<string, number[]> = {
      empty: [],
      'another record': [0x40, ...good.slice(1)],
      'a byte behind': [...good, 0],
      'too short': good.slice(0, -1),
      'a definition of a structure': [0xd4, 0x72, 0x41, 0x91, 0xa1, 0x61, 1],
      'a nested record': [0x41, 0x41, 1, 1, 1, 1, 1, 1, 1],
      'an array with a hostile length': [0x41, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff],
      'a map': [0x41, 1, 1, 1, 0x80],
      'an extension': [0x41, 1, 1, 1, 0xd4, 0x65, 0],
      'a 64-bit integer': [0x41, 1, 1, 1, 0xcf, 0, 0, 0, 0, 0, 0, 0, 1],
      'a long string': [0x41, 1, 1, 1, 0xdb, 0xff, 0xff, 0xff, 0xff],
      'a string beyond the end': [0x41, 1, 1, 1, 0xd9, 200, 1],
      'the unused code': [0x41, 1, 1, 1, 0xc1],
    };
    for (const [name, bytes] of Object.entries(hostile)) {
      expect(() => unpackRecord(new Uint8Array(bytes), RECORD.voteResponse), name).toThrow(corrupt);
    }
  });

  it('answers any bytes with a message or CORRUPT_FRAME, never with anything else', () => {
    const types = Object.values(FRAME).filter((type) => type >= 10 && type < 20);
    fc.assert(
      fc.property(
        fc.constantFrom(...types),
        fc.uint8Array({ minLength: 64, maxLength: 80 }),
        control,
        fc.array(fc.tuple(fc.nat(63), fc.nat(255)), { maxLength: 4 }),
        (type, random, message, changes) => {
          const changed = encode(message).slice();
          for (const [at, value] of changes) changed[at % changed.length] = value;
          for (const [kind, bytes] of [
            [type, random],
            [frameTypeOf(message), changed],
          ] as const) {
            let decoded: ControlMessage | undefined;
            try {
              decoded = decode(kind, bytes);
            } catch (error) {
              expect(error).toEqual(corrupt);
            }
            if (decoded !== undefined) expect(Number.isSafeInteger(decoded.term)).toBe(true);
          }
        },
      ),
      { ...RUNS, numRuns: 2_000 },
    );
  });
});

describe('a piece of a snapshot', () => {
  const piece = fc.record({
    type: fc.constant('SnapshotRequest' as const),
    term: safe,
    session: safe,
    snapshotId: fc
      .uint8Array({ minLength: 16, maxLength: 16 })
      .map((id) => Buffer.from(id).toString('hex')),
    lastIncluded: logId,
    totalBytes: safe,
    offset: safe,
  });
  const codecs = import('../../dist/network/snapshot-codec.js');

  it('comes back as it was, or is refused when it has no place in its file', async () => {
    const { readSnapshot, writeSnapshot } = await codecs;
    const property = fc.property(piece, fc.nat(), (message, bytes) => {
      const body = new DataView(new ArrayBuffer(fixedBytes(FRAME.snapshot)));
      writeSnapshot(body, 0, message);
      const { term, lastIncluded, offset, totalBytes } = message;
      const fits =
        lastIncluded.index > 0 && lastIncluded.term <= term && offset + bytes <= totalBytes;
      if (fits) expect(readSnapshot(body, 0, bytes)).toEqual(message);
      else expect(() => readSnapshot(body, 0, bytes)).toThrow(corrupt);
    });
    fc.assert(property, RUNS);
  });
});
