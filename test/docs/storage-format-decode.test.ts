/**
 * The segments of the golden directory, decoded with nothing but the tables and the rules of the page on the
 * storage format: the page says enough to read the log.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { GOLDEN, type GoldenGroup, goldenContent } from '../storage/golden/golden.js';
import { columnOf, page, section, tableOf } from './support/pages.js';

const text = page('docs/storage-format.md');
const SECTOR = Number(/A \*sector\* is ([\d,]+) bytes/.exec(text)![1]!.replace(',', ''));
const FOLDER = join(GOLDEN, 'format-1', 'wal');

type Value = number | string;
type Fields = Readonly<Record<string, Value>>;

/** A record as its section has it. */
class Layout {
  readonly bytes: number;
  readonly magic: number | undefined;
  private readonly rows: readonly Readonly<Record<string, string>>[];

  constructor(heading: string) {
    const body = section(text, heading);
    this.rows = tableOf(body);
    this.bytes = Number(/(\d+) bytes/.exec(body)![1]);
    const magic = this.rows.find(({ field }) => field === 'magic');
    this.magic = magic === undefined ? undefined : Number(magic.meaning?.replaceAll('`', ''));
  }

  read(file: Buffer, at: number): Fields {
    const fields: Record<string, Value> = {};
    for (const { field, offset, type } of this.rows) {
      fields[field!] = fieldAt(file, at + Number(offset), type!);
    }
    if (this.magic !== undefined) expect(fields.magic, `the magic at ${at}`).toBe(this.magic);
    return fields;
  }

  isAt(file: Buffer, at: number): boolean {
    return at < file.length && file.readUInt32LE(at) === this.magic;
  }

  /** The checksum at the end, of all bytes before it. */
  sealed(file: Buffer, at: number): Fields {
    const fields = this.read(file, at);
    const own = this.bytes - 8;
    expect(checksum(file.subarray(at, at + own)), `the checksum of the record at ${at}`).toBe(
      hex(file, at + own),
    );
    return fields;
  }
}

const SEGMENT = new Layout('Segment header');
const CHECKPOINT = new Layout('Checkpoint record');
const BATCH = new Layout('Batch header');
const BLOCK = new Layout('Block');
const ITEM = new Layout('Item');
const HARD_STATE = new Layout('Hard state');
const FLAGS = columnOf(tableOf(section(text, 'Batch flags')), 'flag', 'value');
const KINDS = columnOf(tableOf(section(text, 'Kinds')), 'kind', 'value');

let heap: SharedHeap;
beforeAll(() => {
  heap = SharedHeap.create({ maximumBytes: 8 * 1024 * 1024 });
});

function fieldAt(file: Buffer, at: number, type: string): Value {
  if (type === 'u16') return file.readUInt16LE(at);
  if (type === 'u32') return file.readUInt32LE(at);
  if (type === '16 bytes') return file.toString('hex', at, at + 16);
  expect(type).toBe('u64');
  const value = file.readBigUInt64LE(at);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString(16);
}

function hex(file: Buffer, at: number): string {
  return file.readBigUInt64LE(at).toString(16);
}

/** XXH3-64, by the module that is held to its reference vectors. */
function checksum(bytes: Uint8Array): string {
  heap.reset();
  const pointer = heap.reserve(bytes.length + 8, 64);
  heap.bytes.set(bytes, pointer);
  heap.exports.xxh3(pointer, bytes.length, pointer + bytes.length);
  return hex(Buffer.from(heap.bytes.slice(pointer, pointer + bytes.length + 8)), bytes.length);
}

function chained(before: string, bytes: Uint8Array): string {
  const link = Buffer.alloc(16);
  link.writeBigUInt64LE(BigInt(`0x${before}`), 0);
  link.writeBigUInt64LE(BigInt(`0x${checksum(bytes)}`), 8);
  return checksum(link);
}

const upToSector = (bytes: number): number => Math.ceil(bytes / SECTOR) * SECTOR;
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

interface Item {
  readonly fields: Fields;
  readonly payload: string;
}

interface Batch {
  readonly header: Fields;
  readonly items: readonly Item[];
  readonly states: readonly Fields[];
}

function decodeBatch(file: Buffer, at: number): Batch {
  const header = BATCH.sealed(file, at);
  const blocksEnd = at + BATCH.bytes + Number(header.blocksLength);
  const items: Item[] = [];
  let body = '0';
  let blocks = 0;
  let block = at + BATCH.bytes;
  for (; block < blocksEnd; blocks++) {
    const { group, items: count, payloadLength, firstIndex } = BLOCK.read(file, block);
    const payloads = block + BLOCK.bytes + Number(count) * ITEM.bytes;
    body = chained(body, file.subarray(block, payloads));
    let payload = payloads;
    for (let place = 0; place < Number(count); place++) {
      const pointer = block + BLOCK.bytes + place * ITEM.bytes;
      const fields = ITEM.read(file, pointer);
      expect(fields).toMatchObject({ group, index: Number(firstIndex) + place });
      const end = payload + Number(fields.length);
      const own = Buffer.alloc(ITEM.bytes);
      file.copy(own, 0, pointer, pointer + ITEM.bytes - 8);
      own.writeBigUInt64LE(BigInt(`0x${checksum(file.subarray(payload, end))}`), ITEM.bytes - 8);
      expect(checksum(own)).toBe(hex(file, pointer + ITEM.bytes - 8));
      items.push({ fields, payload: file.toString('latin1', payload, end) });
      payload = end;
    }
    expect(payload - payloads).toBe(payloadLength);
    block = payload;
  }
  const stateBytes = Number(header.hardStates) * HARD_STATE.bytes;
  const states = file.subarray(blocksEnd, blocksEnd + stateBytes);
  expect(chained(body, states)).toBe(hex(file, at + offsetOf('Batch header', 'bodyChecksum')));
  expect([block, blocks, items.length]).toEqual([blocksEnd, header.blocks, header.items]);
  let end = at + upToSector(blocksEnd + stateBytes - at);
  expect(isZero(file.subarray(blocksEnd + stateBytes, end))).toBe(true);
  if ((Number(header.flags) & FLAGS.repeated!) !== 0) {
    expect(file.subarray(end, end + stateBytes).equals(states)).toBe(true);
    expect(isZero(file.subarray(end + stateBytes, end + upToSector(stateBytes)))).toBe(true);
    end += upToSector(stateBytes);
  }
  expect(end - at).toBe(header.totalLength);
  return {
    header,
    items,
    states: Array.from({ length: Number(header.hardStates) }, (_, place) =>
      HARD_STATE.sealed(file, blocksEnd + place * HARD_STATE.bytes),
    ),
  };
}

function offsetOf(heading: string, name: string): number {
  return Number(tableOf(section(text, heading)).find(({ field }) => field === name)!.offset);
}

interface Segment {
  readonly name: string;
  readonly header: Fields;
  readonly checkpoint: readonly Fields[];
  readonly batches: readonly Batch[];
  /** Behind the end that the next segment tells. */
  readonly dead: readonly Batch[];
}

function decodeSegment(name: string, end: number | undefined): Segment {
  const file = readFileSync(join(FOLDER, name));
  const header = SEGMENT.sealed(file, 0);
  expect(header).toMatchObject({ version: 1, fileBytes: file.length });
  const checkpoint = Array.from({ length: Number(header.groups) }, (_, place) =>
    CHECKPOINT.sealed(file, SECTOR + place * CHECKPOINT.bytes),
  );
  const checkpointEnd = SECTOR + checkpoint.length * CHECKPOINT.bytes;
  expect(header.dataStart).toBe(upToSector(checkpointEnd));
  const until = end === undefined ? file.length : end - Number(header.startLsn);
  const batches: Batch[] = [];
  const dead: Batch[] = [];
  for (let at = Number(header.dataStart); BATCH.isAt(file, at); ) {
    const { epoch, sequence: segment, lane, startLsn } = header;
    // What an earlier use of the file has left comes next.
    if (BATCH.read(file, at).epoch !== epoch) break;
    const batch = decodeBatch(file, at);
    expect(batch.header).toMatchObject({ segment, lane, lsn: Number(startLsn) + at });
    (at < until ? batches : dead).push(batch);
    at += Number(batch.header.totalLength);
    if (end !== undefined && dead.length === 0) expect(at).toBeLessThanOrEqual(until);
  }
  return { name, header, checkpoint, batches, dead };
}

function decodeLog(): Segment[] {
  const names = readdirSync(FOLDER).filter((name) => name.endsWith('.wal'));
  const segments: Segment[] = [];
  for (const [place, name] of names.entries()) {
    const next = names[place + 1];
    const end = next === undefined ? undefined : SEGMENT.read(readFileSync(join(FOLDER, next)), 0);
    segments.push(decodeSegment(name, end === undefined ? undefined : Number(end.prevEnd)));
  }
  return segments;
}

interface Replayed {
  group: number;
  term: number;
  votedFor: number;
  flags: number;
  committed: number;
  purged: { index: number; term: number };
  entries: { index: number; term: number; time: number; kind: number; payload: string }[];
}

/** As the page says under "Replaying". */
function replay(segments: readonly Segment[]): Map<number, Replayed> {
  const groups = new Map<number, Replayed>();
  const groupOf = (group: number): Replayed => {
    const none = { term: 0, votedFor: 0, flags: 0, committed: 0, purged: { index: 0, term: 0 } };
    const found = groups.get(group) ?? { group, ...none, entries: [] };
    groups.set(group, found);
    return found;
  };
  const note = (state: Fields): void => {
    const found = groupOf(Number(state.group));
    const vote = [state.term, Math.sign(Number(state.votedFor)) + Number(state.flags)] as number[];
    const known = [found.term, Math.sign(found.votedFor) + found.flags];
    if (vote[0]! > known[0]! || (vote[0] === known[0] && vote[1]! > known[1]!)) {
      Object.assign(found, { term: state.term, votedFor: state.votedFor, flags: state.flags });
    }
    found.committed = Math.max(found.committed, Number(state.committed));
  };
  const purge = (found: Replayed, index: number, term: number): void => {
    if (index > found.purged.index) found.purged = { index, term };
    found.entries = found.entries.filter((entry) => entry.index > found.purged.index);
  };
  for (const state of segments.at(-1)!.checkpoint) {
    purge(groupOf(Number(state.group)), Number(state.purgedIndex), Number(state.purgedTerm));
  }
  for (const { checkpoint, batches } of segments) {
    for (const state of checkpoint) note(state);
    for (const { items, states } of batches) {
      for (const { fields, payload } of items) {
        const [index, term, kind] = [
          Number(fields.index),
          Number(fields.term),
          Number(fields.kind),
        ];
        const found = groupOf(Number(fields.group));
        const upTo = kind === KINDS.truncateAfter || kind === KINDS.reset ? index + 1 : index;
        if (kind !== KINDS.purge) {
          found.entries = found.entries.filter((entry) => entry.index < upTo);
        }
        if (kind === KINDS.purge || kind === KINDS.reset) purge(found, index, term);
        if (kind >= 128 || index <= found.purged.index) continue;
        found.entries.push({ index, term, time: Number(fields.time), kind, payload });
      }
      for (const state of states) note(state);
    }
  }
  return groups;
}

describe('with nothing but the page on the storage format', () => {
  it('every record of a log that was written can be decoded, and verifies', () => {
    const segments = decodeLog();
    const batches = segments.flatMap((segment) => segment.batches);
    expect(segments.length).toBeGreaterThan(3);
    const all = segments.flatMap((segment) => [...segment.batches, ...segment.dead]);
    const flags = all.map(({ header }) => Number(header.flags));
    for (const flag of Object.values(FLAGS)) {
      expect(
        flags.some((each) => (each & flag) !== 0),
        `flag ${flag}`,
      ).toBe(true);
    }
    const kinds = batches.flatMap(({ items }) => items.map(({ fields }) => fields.kind));
    expect(new Set(kinds)).toEqual(new Set(Object.values(KINDS)));
    for (const [place, { header }] of segments.entries()) {
      const before = segments[place - 1]?.header;
      if (before === undefined) continue;
      expect(header.sequence).toBe(Number(before.sequence) + 1);
      expect(header.startLsn).toBe(Number(before.startLsn) + Number(before.fileBytes));
    }
    expect(Number(segments.at(-1)!.header.oldest)).toBeGreaterThan(1);
  });

  it('the log of each group is what was written', () => {
    const replayed = replay(decodeLog());
    const found = [...replayed.values()].map((each): Omit<GoldenGroup, 'memberships'> => {
      const { group, term, votedFor, flags, committed, purged, entries } = each;
      const vote = { term, nodeId: votedFor, committed: flags === 1 };
      return { group, vote, committed, purged, entries };
    });
    const expected = goldenContent('format-1').map(({ memberships: _, ...rest }) => rest);
    const byGroup = (left: { group: number }, right: { group: number }): number =>
      left.group - right.group;
    expect(found.sort(byGroup)).toEqual(expected.sort(byGroup));
  });
});
