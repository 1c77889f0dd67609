/**
 * Second step of recovery: the batches of one segment, one window of memory at a time.
 *
 * Steps 4 KiB at a time past bad, zero and stale sectors up to the end it is given, so that no bad
 * place hides valid batches behind it. A batch counts only under the segment's own sequence and epoch
 * and at its own LSN. Hard states are taken from any valid copy, in a torn batch too: a vote that
 * was ever written is never forgotten.
 */
import { KeelsonError } from '../base/errors.js';
import type { LogId, TermRun } from '../engine/types.js';
import { BlockCodec, type VerifiedBlocks } from '../wasm/block-codec.js';
import {
  BATCH,
  BLOCK,
  BLOCK_FLAG,
  ENTRY_KIND,
  HARD_STATE,
  ITEM,
  SECTOR_BYTES,
} from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk } from './disk.js';
import type { GroupHardState, RescuedHardState } from './hard-state.js';
import { readHardState, rescueHardState } from './hard-state.js';
import { readU64, verifiesAlone } from './storage-memory.js';

export interface ScanTask {
  readonly type: 'scan';
  readonly path: string;
  readonly lane: number;
  readonly sequence: number;
  readonly epoch: number;
  readonly startLsn: number;
  readonly position: number;
  /** Position where the segment ends. */
  readonly end: number;
  /** See `SegmentHeader.recycled`. */
  readonly recycled: boolean;
  readonly scratch: number;
  readonly scratchBytes: number;
  /** `BlockCodec.scratchBytes` of shared memory. */
  readonly summary: number;
}

export interface ScanResult {
  readonly batches: readonly ScannedBatch[];
  /** Where to go on. */
  readonly next: number;
  /**
   * End of the last sector that was written and is no part of a valid batch; 0 if there is none. Of a
   * recycled file only the header of a batch of its own tells that.
   */
  readonly dirtyEnd: number;
  /** From copies outside valid batches; only those of the torn batch itself count. */
  readonly rescued: readonly RescuedHardState[];
}

export interface ScannedBatch {
  readonly position: number;
  readonly totalLength: number;
  readonly flags: number;
  readonly blocks: readonly ScannedBlock[];
  readonly hardStates: readonly GroupHardState[];
}

export interface ScannedBlock {
  readonly group: number;
  /** Where it stands in the scratch memory until the next task. */
  readonly pointer: number;
  readonly length: number;
  /** Position in the file. */
  readonly position: number;
  /** For a record the entry behind the one that it names. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** Set when it is no entries, but a record about the log. */
  readonly record: LogRecord | undefined;
  /** A second copy of entries that the log has. */
  readonly moved: boolean;
  /** Time of the last entry; 0 for a record. */
  readonly lastTime: number;
  readonly termRuns: readonly TermRun[];
  readonly memberships: readonly { readonly index: number; readonly payload: Uint8Array }[];
}

export interface LogRecord {
  readonly kind: 'truncateAfter' | 'purge' | 'reset';
  readonly logId: LogId;
}

interface BatchHeader {
  readonly flags: number;
  readonly lane: number;
  readonly hardStates: number;
  readonly lsn: number;
  readonly segment: number;
  readonly epoch: number;
  readonly blocksLength: number;
  readonly totalLength: number;
}

/** Undefined when what stands at `pointer` (at least a sector) is no header of a batch. */
function readBatchHeader(
  memory: SharedHeap,
  pointer: number,
  sums: number,
): BatchHeader | undefined {
  const { view } = memory;
  const { offset } = BATCH;
  if (view.getUint32(pointer + offset.magic, true) !== BATCH.magic) return undefined;
  if (!verifiesAlone(memory, pointer, offset.headerChecksum, sums)) return undefined;
  return {
    flags: view.getUint16(pointer + offset.flags, true),
    lane: view.getUint32(pointer + offset.lane, true),
    hardStates: view.getUint32(pointer + offset.hardStates, true),
    lsn: readU64(view, pointer + offset.lsn),
    segment: readU64(view, pointer + offset.segment),
    epoch: readU64(view, pointer + offset.epoch),
    blocksLength: view.getUint32(pointer + offset.blocksLength, true),
    totalLength: view.getUint32(pointer + offset.totalLength, true),
  };
}

export function scanSegment(memory: SharedHeap, disk: Disk, task: ScanTask): ScanResult {
  const { scratch } = task;
  const sums = scratch + task.scratchBytes - SECTOR_BYTES;
  const room = Math.min(task.scratchBytes - SECTOR_BYTES, task.end - task.position);
  const file = disk.open(task.path, { access: 'read' });
  let available: number;
  try {
    const read = file.read(memory.bytes.subarray(scratch, scratch + room), task.position);
    available = Math.floor(read / SECTOR_BYTES) * SECTOR_BYTES;
  } finally {
    file.close();
  }
  const batches: ScannedBatch[] = [];
  const rescued: RescuedHardState[] = [];
  let dirtyEnd = 0;
  let at = 0;
  while (at < available) {
    const position = task.position + at;
    const header = ownHeader(memory, task, position, scratch + at, sums);
    if (header !== undefined && position + header.totalLength <= task.end) {
      if (at + header.totalLength > available) {
        if (at > 0 && position + header.totalLength > task.position + available) break;
        throw tooLargeForMemory(task, position, header.totalLength);
      }
      if (memory.exports.verifyBatch(scratch + at, header.totalLength) === 0) {
        batches.push(describeBatch(memory, task, header, position, scratch + at));
        at += header.totalLength;
        continue;
      }
    }
    rescueHardStates(memory, task, scratch + at, header, available - at, rescued);
    const written = task.recycled ? header !== undefined : !isZero(memory, scratch + at);
    if (written) dirtyEnd = position + SECTOR_BYTES;
    at += SECTOR_BYTES;
  }
  // A file shorter than its header says ends here; what is missing counts as not written.
  const next = available === 0 ? task.end : task.position + at;
  return { batches, next, dirtyEnd, rescued };
}

function ownHeader(
  memory: SharedHeap,
  task: ScanTask,
  position: number,
  pointer: number,
  sums: number,
): BatchHeader | undefined {
  const header = readBatchHeader(memory, pointer, sums);
  if (header === undefined) return undefined;
  const own =
    header.lane === task.lane &&
    header.segment === task.sequence &&
    header.epoch === task.epoch &&
    header.lsn === task.startLsn + position &&
    header.totalLength >= SECTOR_BYTES &&
    header.totalLength % SECTOR_BYTES === 0;
  return own ? header : undefined;
}

function describeBatch(
  memory: SharedHeap,
  task: ScanTask,
  header: BatchHeader,
  position: number,
  pointer: number,
): ScannedBatch {
  const { view } = memory;
  const codec = new BlockCodec(memory, task.summary);
  const blocks: ScannedBlock[] = [];
  const end = pointer + BATCH.bytes + header.blocksLength;
  for (let at = pointer + BATCH.bytes; at < end; ) {
    const block = describeBlock(memory, codec, task, at, position + (at - pointer));
    blocks.push(block);
    at += block.length;
  }
  const hardStates: GroupHardState[] = [];
  for (let index = 0; index < header.hardStates; index++) {
    hardStates.push(readHardState(view, end + index * HARD_STATE.bytes));
  }
  return { position, totalLength: header.totalLength, flags: header.flags, blocks, hardStates };
}

function describeBlock(
  memory: SharedHeap,
  codec: BlockCodec,
  task: ScanTask,
  pointer: number,
  position: number,
): ScannedBlock {
  const { view } = memory;
  const items = view.getUint32(pointer + BLOCK.offset.items, true);
  const group = view.getUint32(pointer + BLOCK.offset.group, true);
  const firstIndex = readU64(view, pointer + BLOCK.offset.firstIndex);
  const payloadLength = view.getUint32(pointer + BLOCK.offset.payloadLength, true);
  const length = BLOCK.bytes + items * ITEM.bytes + payloadLength;
  const kind = view.getUint32(pointer + BLOCK.bytes + ITEM.offset.kind, true);
  const moved = (view.getUint32(pointer + BLOCK.offset.flags, true) & BLOCK_FLAG.moved) !== 0;
  const base = { group, pointer, length, position, moved };
  const recordKind = recordKindOf(kind);
  if (recordKind !== undefined) {
    const term = readU64(view, pointer + BLOCK.bytes + ITEM.offset.term);
    const record = { kind: recordKind, logId: { index: firstIndex, term } };
    const none = { termRuns: [], memberships: [], lastTime: 0 };
    return { ...base, ...none, firstIndex: firstIndex + 1, lastIndex: firstIndex, record };
  }
  // The batch has been verified: for the rest a copy is a block like any other.
  view.setUint32(pointer + BLOCK.offset.flags, 0, true);
  let summary: VerifiedBlocks;
  try {
    summary = codec.verifyBlocks(pointer, length, group, firstIndex);
  } catch (cause) {
    throw unknownRecord(task, position, kind, cause);
  }
  return {
    ...base,
    firstIndex,
    lastIndex: summary.lastIndex,
    record: undefined,
    lastTime: summary.lastTime,
    termRuns: summary.termRuns,
    memberships: summary.memberships.map((place) => ({
      index: place.index,
      payload: new Uint8Array(memory.slice(place.pointer, place.length)),
    })),
  };
}

function recordKindOf(kind: number): LogRecord['kind'] | undefined {
  switch (kind) {
    case ENTRY_KIND.truncateAfter:
      return 'truncateAfter';
    case ENTRY_KIND.purge:
      return 'purge';
    case ENTRY_KIND.reset:
      return 'reset';
    default:
      return undefined;
  }
}

function rescueHardStates(
  memory: SharedHeap,
  task: ScanTask,
  sector: number,
  header: BatchHeader | undefined,
  available: number,
  rescued: RescuedHardState[],
): void {
  const sums = task.scratch + task.scratchBytes - SECTOR_BYTES;
  let limit = SECTOR_BYTES / HARD_STATE.bytes;
  let pointer = sector;
  if (header !== undefined) {
    const start = BATCH.bytes + header.blocksLength;
    limit = Math.min(
      header.hardStates,
      Math.max(0, Math.floor((available - start) / HARD_STATE.bytes)),
    );
    pointer = sector + start;
  }
  for (let index = 0; index < limit; index++, pointer += HARD_STATE.bytes) {
    const state = rescueHardState(memory, pointer, task.epoch, sums);
    if (state !== undefined) rescued.push(state);
    else if (header === undefined) return;
  }
}

function isZero(memory: SharedHeap, sector: number): boolean {
  const { view } = memory;
  for (let at = sector; at < sector + SECTOR_BYTES; at += 8) {
    if (view.getFloat64(at, true) !== 0 || view.getUint32(at + 4, true) !== 0) return false;
  }
  return true;
}

function tooLargeForMemory(task: ScanTask, position: number, bytes: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_INVALID_CONFIG',
    `The batch at ${position} of ${task.path} has ${bytes} bytes and recovery only ` +
      `${task.scratchBytes} bytes of memory. Open the store with a larger ringBytes.`,
    { details: { file: task.path, offset: position, bytes } },
  );
}

function unknownRecord(
  task: ScanTask,
  position: number,
  kind: number,
  cause: unknown,
): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_VERSION',
    `The block at ${position} of ${task.path} is sound but holds a record of kind ${kind} that this ` +
      `program does not understand. Open it with the version that wrote it.`,
    { details: { file: task.path, offset: position, kind }, cause },
  );
}
