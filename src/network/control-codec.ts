import { Packr } from 'msgpackr';
import { corruptFrame } from './frame.js';

/**
 * The frames that are msgpack: rare ones, which may gain fields. Each is one flat record of scalars,
 * with a structure that both ends know beforehand. Before the decoder sees a byte, `expectRecord` walks
 * them: only that record, only scalars, nothing behind. So a peer can neither teach the decoder a
 * structure, nor reach its extensions, nor make it allocate by an announced length.
 */
export const RECORD = {
  voteRequest: 0,
  voteResponse: 1,
  hello: 2,
  refusal: 3,
  error: 4,
} as const;

const STRUCTURES: readonly (readonly string[])[] = [
  ['preVote', 'term', 'lastTerm', 'lastIndex'],
  ['preVote', 'term', 'requestTerm', 'granted'],
  [
    'wireMin',
    'wireMax',
    'formatMin',
    'formatMax',
    'machineMin',
    'machineMax',
    'clusterId',
    'nodeId',
    'incarnation',
    'channel',
    'target',
    'advertise',
  ],
  ['reason', 'text'],
  ['code', 'message', 'outcome', 'leaderId', 'leaderAddress', 'details'],
];

const packr: Packr = new Packr({
  structures: STRUCTURES.map((fields) => [...fields]) as unknown as object[],
  maxSharedStructures: STRUCTURES.length,
});

export type Scalar = number | string | boolean | null;
export type FlatRecord = Readonly<Record<string, Scalar>>;

export function packRecord(record: FlatRecord): Uint8Array {
  return packr.pack(record);
}

/** @throws KeelsonError CORRUPT_FRAME when the bytes are anything but that record of scalars. */
export function unpackRecord(bytes: Uint8Array, record: number): FlatRecord {
  expectRecord(bytes, record);
  return packr.unpack(bytes) as FlatRecord;
}

function expectRecord(bytes: Uint8Array, record: number): void {
  if (bytes[0] !== 0x40 + record) throw corruptFrame('not the record that was expected');
  let at = 1;
  for (let field = STRUCTURES[record]!.length; field > 0; field--) at = skipScalar(bytes, at);
  if (at !== bytes.byteLength) throw corruptFrame('bytes behind a record, or too few');
}

function skipScalar(bytes: Uint8Array, at: number): number {
  const tag = bytes[at] ?? 0xc1;
  if (tag < 0x40 || tag >= 0xe0) return at + 1;
  if (tag >= 0xa0 && tag < 0xc0) return at + 1 + (tag & 0x1f);
  switch (tag) {
    case 0xc0: // null
    case 0xc2: // false
    case 0xc3: // true
      return at + 1;
    case 0xcc: // 8 bits
    case 0xd0:
      return at + 2;
    case 0xcd: // 16 bits
    case 0xd1:
      return at + 3;
    case 0xca: // 32 bits
    case 0xce:
    case 0xd2:
      return at + 5;
    case 0xcb: // 64-bit float; 64-bit integers would become BigInt and are refused
      return at + 9;
    case 0xd9: // string
      return at + 2 + (bytes[at + 1] ?? 0);
    case 0xda:
      return at + 3 + (bytes[at + 1] ?? 0) * 256 + (bytes[at + 2] ?? 0);
    default:
      throw corruptFrame(`a value of msgpack type 0x${tag.toString(16)} in a record of scalars`);
  }
}

/** @throws KeelsonError CORRUPT_FRAME unless the field is a safe integer from `min` on. */
export function integerField(record: FlatRecord, field: string, min = 0): number {
  const value = record[field];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min) {
    throw corruptFrame(`field ${field} is not a safe integer of at least ${min}`);
  }
  return value;
}

export function booleanField(record: FlatRecord, field: string): boolean {
  const value = record[field];
  if (typeof value !== 'boolean') throw corruptFrame(`field ${field} is not a boolean`);
  return value;
}

export function stringField(record: FlatRecord, field: string): string {
  const value = record[field];
  if (typeof value !== 'string') throw corruptFrame(`field ${field} is not a string`);
  return value;
}
