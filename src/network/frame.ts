import { KeelsonError } from '../base/errors.js';

/**
 * The frame: what every byte on a connection belongs to. Little-endian.
 *
 * | offset | bytes | field                                                                |
 * |--------|-------|----------------------------------------------------------------------|
 * | 0      | 4     | magic "KLF1"                                                         |
 * | 4      | 4     | length of the body behind this header                                |
 * | 8      | 1     | type, see FRAME                                                      |
 * | 9      | 1     | wire version; frames of the handshake carry 1 for ever               |
 * | 10     | 2     | flags, zero                                                          |
 * | 12     | 4     | check of the fixed part of the body                                  |
 * | 16     | 4     | check of the 16 bytes before                                         |
 *
 * A body is a fixed part, which the check covers, and a rest: entries (which carry checksums of
 * their own), or a client's payload. u64 fields are safe integers, larger ones are refused.
 *
 * | type | frame             | channel | fixed part                                  | rest            |
 * |------|-------------------|---------|---------------------------------------------|-----------------|
 * | 1    | hello             | both    | msgpack, all of it                          |                 |
 * | 2    | welcome           | both    | msgpack, all of it                          |                 |
 * | 3    | refusal           | both    | msgpack, all of it                          |                 |
 * | 4    | ping              | both    | none                                        |                 |
 * | 10   | voteRequest       | control | msgpack, all of it                          |                 |
 * | 11   | voteResponse      | control | msgpack, all of it                          |                 |
 * | 12   | heartbeatRequest  | control | term, committed, round: u64                 |                 |
 * | 13   | heartbeatResponse | control | term, round: u64                            |                 |
 * | 14   | appendResponse    | control | see codec.ts, 64 bytes                      |                 |
 * | 15   | snapshotResponse  | control | see snapshot-codec.ts, 40 bytes             |                 |
 * | 20   | append            | bulk    | see codec.ts, 48 bytes                      | entry blocks    |
 * | 21   | snapshot          | bulk    | see snapshot-codec.ts, 64 bytes             | bytes of a file |
 * | 30   | forwardRequest    | bulk    | id u64, timeout ms u32, kind u32            | payload         |
 * | 31   | forwardResponse   | bulk    | id, index, term u64, payload u32, error u32 | payload, error  |
 */
export const FRAME_HEADER_BYTES = 20;
export const FRAME_MAGIC = 0x31464c4b;
export const WIRE_VERSION = 1;

export const FRAME = {
  hello: 1,
  welcome: 2,
  refusal: 3,
  ping: 4,
  voteRequest: 10,
  voteResponse: 11,
  heartbeatRequest: 12,
  heartbeatResponse: 13,
  appendResponse: 14,
  snapshotResponse: 15,
  append: 20,
  snapshot: 21,
  forwardRequest: 30,
  forwardResponse: 31,
} as const;

/** Largest body of a frame that is msgpack as a whole. */
export const MAX_MSGPACK_BYTES = 4096;

/** Bytes of the fixed part by type; -1: the whole body. */
const FIXED_BYTES: Int16Array = new Int16Array(256).fill(-1);
FIXED_BYTES[FRAME.ping] = 0;
FIXED_BYTES[FRAME.heartbeatRequest] = 24;
FIXED_BYTES[FRAME.heartbeatResponse] = 16;
FIXED_BYTES[FRAME.appendResponse] = 64;
FIXED_BYTES[FRAME.snapshotResponse] = 40;
FIXED_BYTES[FRAME.append] = 48;
FIXED_BYTES[FRAME.snapshot] = 64;
FIXED_BYTES[FRAME.forwardRequest] = 16;
FIXED_BYTES[FRAME.forwardResponse] = 32;

/** Bytes of the fixed part of a body of `bodyBytes`. */
export function fixedBytesOf(type: number, bodyBytes: number): number {
  const fixedBytes = FIXED_BYTES[type]!;
  if (fixedBytes < 0) return bodyBytes;
  if (bodyBytes < fixedBytes) throw corruptFrame(`a body of ${bodyBytes} bytes in type ${type}`);
  return fixedBytes;
}

export function fixedBytes(type: number): number {
  return FIXED_BYTES[type]!;
}

/** Writes the header in front of the fixed part, which must stand behind it already. */
export function sealFrame(
  view: DataView,
  at: number,
  type: number,
  fixedLength: number,
  bodyBytes: number,
): void {
  view.setUint32(at, FRAME_MAGIC, true);
  view.setUint32(at + 4, bodyBytes, true);
  view.setUint8(at + 8, type);
  view.setUint8(at + 9, WIRE_VERSION);
  view.setUint16(at + 10, 0, true);
  view.setUint32(at + 12, checkOf(view, at + FRAME_HEADER_BYTES, fixedLength), true);
  view.setUint32(at + 16, checkOf(view, at, 16), true);
}

/**
 * Throws unless a header stands at `at`. Its fields may be read then; the length is still to be held
 * against the limit of the type.
 */
export function verifyHeader(view: DataView, at: number): void {
  if (view.getUint32(at, true) !== FRAME_MAGIC) throw corruptFrame('no frame begins here');
  if (view.getUint32(at + 16, true) !== checkOf(view, at, 16)) {
    throw corruptFrame('the check of a frame header does not match');
  }
  if (view.getUint8(at + 9) !== WIRE_VERSION || view.getUint16(at + 10, true) !== 0) {
    throw corruptFrame('a frame of an unknown version');
  }
}

export function verifyFixedPart(
  view: DataView,
  at: number,
  fixedLength: number,
  check: number,
): void {
  if (checkOf(view, at, fixedLength) !== check) {
    throw corruptFrame('the check of the fixed part of a frame does not match');
  }
}

/** Any change within one word always changes the result: each step can be undone. */
function checkOf(view: DataView, at: number, length: number): number {
  const wordsEnd = at + (length & ~3);
  let check = length ^ 0x5bd1e995;
  let position = at;
  for (; position < wordsEnd; position += 4) check = mix(check, view.getUint32(position, true));
  for (; position < at + length; position++) check = mix(check, view.getUint8(position));
  return check >>> 0;
}

function mix(check: number, word: number): number {
  const mixed = Math.imul(check ^ word, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

export function corruptFrame(what: string): KeelsonError {
  return new KeelsonError('KEELSON_CORRUPT_FRAME', `corrupt frame: ${what}`);
}
