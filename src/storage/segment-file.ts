/**
 * A segment: one file of a lane, `lane-<lane>-<sequence>.wal`.
 *
 * ```
 * [header sector][checkpoint, whole sectors][batch]…[zero to the end]
 * ```
 *
 * A file is made under a temporary name, all zero and synced, or is one that was a segment before and
 * is needed no more; then header, checkpoint and, after a recovery, the carried batch are written and
 * synced; only then it gets its name, and the directory is synced. So a named segment always had a durable header, and its existence proves that
 * everything in the segments before it, up to `prevEnd`, was durable.
 */
import { invariant } from '../base/assert.js';
import { CHECKPOINT, SECTOR_BYTES, SEGMENT, SEGMENT_FLAG } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk } from './disk.js';
import type { GroupCheckpoint } from './hard-state.js';
import { readCheckpoint, writeCheckpoint } from './hard-state.js';
import { alignToSector } from './sector.js';
import { readU64, sealRecord, verifiesAlone, writeU64 } from './storage-memory.js';

export interface SegmentHeader {
  readonly lane: number;
  readonly sequence: number;
  readonly epoch: number;
  readonly startLsn: number;
  readonly prevEnd: number;
  readonly fileBytes: number;
  /** The oldest segment that is needed. */
  readonly oldest: number;
  /** Behind the batches stand bytes of an earlier use of the file. */
  readonly recycled: boolean;
  readonly groups: number;
  readonly dataStart: number;
}

const SEGMENT_NAME = /^lane-(\d+)-(\d{10})\.wal$/;
const SPARE_NAME = /^lane-(\d+)-spare-(\d{10})$/;
const LANE_NAME = /^lane-(\d+)-/;
const TEMPORARY_NAME = /\.tmp$/;

export function segmentName(lane: number, sequence: number): string {
  return `lane-${lane}-${String(sequence).padStart(10, '0')}.wal`;
}

export function segmentPath(directory: string, lane: number, sequence: number): string {
  return `${directory}/${segmentName(lane, sequence)}`;
}

/** A file that waits to become a segment: what it was last, or 0 when it is all zero. */
export function sparePath(directory: string, lane: number, sequence: number): string {
  return `${directory}/lane-${lane}-spare-${String(sequence).padStart(10, '0')}`;
}

/** What the spare files of a lane were last, ascending. */
export function listSpares(disk: Disk, directory: string, lane: number): number[] {
  return sequencesOf(disk, directory, lane, SPARE_NAME);
}

function sequencesOf(disk: Disk, directory: string, lane: number, pattern: RegExp): number[] {
  const sequences: number[] = [];
  for (const name of disk.list(directory)) {
    const match = pattern.exec(name);
    if (match !== null && Number(match[1]) === lane) sequences.push(Number(match[2]));
  }
  return sequences.sort((left, right) => left - right);
}

/** The sequences of the segments of a lane, ascending. */
export function listSegments(disk: Disk, directory: string, lane: number): number[] {
  return sequencesOf(disk, directory, lane, SEGMENT_NAME);
}

/** The name of a segment of any lane. */
export function isSegmentName(name: string): boolean {
  return SEGMENT_NAME.test(name);
}

export function isSpareName(name: string): boolean {
  return SPARE_NAME.test(name);
}

/** The lane that a file belongs to; undefined for one of no lane. */
export function laneOf(name: string): number | undefined {
  const match = LANE_NAME.exec(name);
  return match === null ? undefined : Number(match[1]);
}

export function isTemporaryName(name: string): boolean {
  return TEMPORARY_NAME.test(name);
}

export function checkpointBytes(groups: number): number {
  return alignToSector(groups * CHECKPOINT.bytes);
}

/** Composes header and checkpoint at `pointer`; returns the position of the first batch. */
export function writeSegmentStart(
  memory: SharedHeap,
  pointer: number,
  room: number,
  header: Omit<SegmentHeader, 'groups' | 'dataStart'>,
  groups: readonly GroupCheckpoint[],
): number {
  const dataStart = SECTOR_BYTES + checkpointBytes(groups.length);
  invariant(dataStart <= room, 'the checkpoint fits into the scratch memory of the lane');
  const { view } = memory;
  const { offset } = SEGMENT;
  memory.bytes.fill(0, pointer, pointer + dataStart);
  view.setUint32(pointer + offset.magic, SEGMENT.magic, true);
  view.setUint16(pointer + offset.version, SEGMENT.version, true);
  view.setUint16(pointer + offset.flags, header.recycled ? SEGMENT_FLAG.recycled : 0, true);
  view.setUint32(pointer + offset.lane, header.lane, true);
  view.setUint32(pointer + offset.groups, groups.length, true);
  writeU64(view, pointer + offset.sequence, header.sequence);
  writeU64(view, pointer + offset.epoch, header.epoch);
  writeU64(view, pointer + offset.startLsn, header.startLsn);
  writeU64(view, pointer + offset.prevEnd, header.prevEnd);
  writeU64(view, pointer + offset.fileBytes, header.fileBytes);
  writeU64(view, pointer + offset.dataStart, dataStart);
  writeU64(view, pointer + offset.oldest, header.oldest);
  sealRecord(memory, pointer, offset.headerChecksum);
  for (let index = 0; index < groups.length; index++) {
    writeCheckpoint(memory, pointer + SECTOR_BYTES + index * CHECKPOINT.bytes, groups[index]!);
  }
  return dataStart;
}

export type HeaderReading =
  | { readonly ok: true; readonly header: SegmentHeader }
  | { readonly ok: false; readonly newerVersion: number | undefined };

/** Reads the header that stands at `pointer`. */
export function readSegmentHeader(
  memory: SharedHeap,
  pointer: number,
  scratch: number,
): HeaderReading {
  const { view } = memory;
  const { offset } = SEGMENT;
  if (
    view.getUint32(pointer + offset.magic, true) !== SEGMENT.magic ||
    !verifiesAlone(memory, pointer, offset.headerChecksum, scratch)
  ) {
    return { ok: false, newerVersion: undefined };
  }
  const version = view.getUint16(pointer + offset.version, true);
  if (version !== SEGMENT.version) return { ok: false, newerVersion: version };
  const groups = view.getUint32(pointer + offset.groups, true);
  const flags = view.getUint16(pointer + offset.flags, true);
  const header: SegmentHeader = {
    lane: view.getUint32(pointer + offset.lane, true),
    groups,
    sequence: readU64(view, pointer + offset.sequence),
    epoch: readU64(view, pointer + offset.epoch),
    startLsn: readU64(view, pointer + offset.startLsn),
    prevEnd: readU64(view, pointer + offset.prevEnd),
    fileBytes: readU64(view, pointer + offset.fileBytes),
    dataStart: readU64(view, pointer + offset.dataStart),
    oldest: readU64(view, pointer + offset.oldest),
    recycled: (flags & SEGMENT_FLAG.recycled) !== 0,
  };
  const { oldest, sequence, dataStart } = header;
  const plausible =
    dataStart === SECTOR_BYTES + checkpointBytes(groups) && oldest >= 1 && oldest <= sequence;
  return plausible ? { ok: true, header } : { ok: false, newerVersion: undefined };
}

/** The checkpoint whose sectors stand at `pointer`; undefined when any record is damaged. */
export function readCheckpoints(
  memory: SharedHeap,
  pointer: number,
  groups: number,
  scratch: number,
): GroupCheckpoint[] | undefined {
  const result: GroupCheckpoint[] = [];
  for (let index = 0; index < groups; index++) {
    const state = readCheckpoint(memory, pointer + index * CHECKPOINT.bytes, scratch);
    if (state === undefined) return undefined;
    result.push(state);
  }
  return result;
}

/** Runs a step of making a file; a file that could not be made leaves its room to the log. */
export function removeOnFailure(disk: Disk, path: string, step: () => void): void {
  try {
    step();
  } catch (error) {
    if (disk.exists(path)) disk.remove(path);
    throw error;
  }
}

/** Aligned shared memory that holds zeros and is never written to. */
export interface Zeros {
  readonly pointer: number;
  readonly bytes: number;
}

/** A new file of zeros that has no blocks yet, in place of one that may be there; durable but for its name. */
export function createSparse(disk: Disk, path: string, fileBytes: number): void {
  if (disk.exists(path)) disk.remove(path);
  const file = disk.open(path, { access: 'write', create: true });
  try {
    file.extend(fileBytes);
    file.dataSync();
  } finally {
    file.close();
  }
}

/**
 * Writes zeros over [from, to) of a file and syncs them. Direct where possible: pages that the page
 * cache kept would have to be thrown out again one by one by the direct writes of the log.
 */
export function zeroFill(
  disk: Disk,
  path: string,
  zeros: Uint8Array,
  direct: boolean,
  from: number,
  to: number,
): void {
  const file = disk.open(path, { access: 'write', direct });
  try {
    for (let position = from; position < to; position += zeros.length) {
      file.write(zeros.subarray(0, Math.min(zeros.length, to - position)), position);
    }
    file.dataSync();
  } finally {
    file.close();
  }
}
