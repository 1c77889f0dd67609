/**
 * Second step of recovery: the batches of one segment. They are read and verified in a window of memory so
 * small that it stays in the cache of the processor; what is kept of them are the tables of their blocks.
 *
 * ```
 * memory [tables: header and items of each block, growing ─▶   ][window: some batches, read over and over]
 * ```
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
import type { Disk, DiskFile } from './disk.js';
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
  /** Shared memory of this task alone. */
  readonly memory: ScanMemory;
  /** Another scan runs at the same time, if there is a thread for it. */
  readonly beside: boolean;
}

export interface ScanMemory {
  readonly window: number;
  readonly windowBytes: number;
  /** Directly in front of the window. Without tables, blocks stay in the window, which is read once. */
  readonly tables: number;
  readonly tablesBytes: number;
  /** `BlockCodec.scratchBytes` of shared memory. */
  readonly summary: number;
}

export interface ScanResult {
  readonly batches: readonly ScannedBatch[];
  /** Where to go on. */
  readonly next: number;
  /** The batch there needs more memory than the task had. */
  readonly needsMore: boolean;
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
  /** Where its header and items stand in the memory of the task, until the next one; the payloads may not. */
  readonly pointer: number;
  /** With its payloads. */
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

/** Read at once, unless a batch is larger. */
const WINDOW_BYTES = 1024 * 1024;

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
  const file = disk.open(task.path, { access: 'read' });
  try {
    return new SegmentScan(memory, file, task).run();
  } finally {
    file.close();
  }
}

class SegmentScan {
  private readonly heap: SharedHeap;
  private readonly file: DiskFile;
  private readonly task: ScanTask;
  private readonly codec: BlockCodec;
  /** What of the window is filled at most; behind it is a sector for checksums. */
  private readonly capacity: number;
  private readonly sums: number;
  private readonly batches: ScannedBatch[] = [];
  private readonly rescued: RescuedHardState[] = [];
  private dirtyEnd = 0;
  private needsMore = false;
  /** Of a read. */
  private bytes: number;
  private tables: number;

  constructor(heap: SharedHeap, file: DiskFile, task: ScanTask) {
    this.heap = heap;
    this.file = file;
    this.task = task;
    const { window, windowBytes, tables, tablesBytes, summary } = task.memory;
    this.codec = new BlockCodec(heap, summary);
    this.capacity = windowBytes - SECTOR_BYTES;
    this.sums = window + this.capacity;
    this.bytes = tablesBytes > 0 ? Math.min(WINDOW_BYTES, this.capacity) : this.capacity;
    this.tables = tables;
  }

  run(): ScanResult {
    const { task, batches, rescued } = this;
    const { end } = task;
    let next = task.position;
    do next = this.scanWindow(next);
    while (next < end && !this.needsMore && task.memory.tablesBytes > 0);
    // A caller that gets something goes on there, and then with all of the memory.
    const { needsMore } = this;
    return {
      batches,
      next,
      needsMore: needsMore && batches.length === 0,
      dirtyEnd: this.dirtyEnd,
      rescued,
    };
  }

  /** Reads at a position, and returns where to go on. */
  private scanWindow(from: number): number {
    const { heap, task } = this;
    const { window } = task.memory;
    const room = Math.min(this.bytes, task.end - from);
    const read = this.file.read(heap.bytes.subarray(window, window + room), from);
    const available = Math.floor(read / SECTOR_BYTES) * SECTOR_BYTES;
    // A file shorter than its header says ends here; what is missing counts as not written.
    if (available === 0) return task.end;
    // A batch does not go beyond the end of a file that is too short.
    const end = available < room ? from + available : task.end;
    let at = 0;
    while (at < available) {
      const position = from + at;
      const header = ownHeader(heap, task, position, window + at, this.sums);
      const length = header === undefined ? SECTOR_BYTES : header.totalLength;
      // All of it is looked at together, torn or not: hard states stand at its end.
      const wanted = Math.min(length, end - position);
      if (at + wanted > available) {
        if (at === 0) this.enlarge(wanted);
        break;
      }
      const whole = header !== undefined && wanted === length;
      if (whole && heap.exports.verifyBatch(window + at, length) === 0) {
        if (!this.take(header, position, window + at)) break;
        at += length;
        continue;
      }
      rescueHardStates(heap, task, window + at, header, available - at, this.sums, this.rescued);
      const written = task.recycled ? header !== undefined : !isZero(heap, window + at);
      if (written) this.dirtyEnd = position + SECTOR_BYTES;
      at += SECTOR_BYTES;
    }
    return from + at;
  }

  private enlarge(bytes: number): void {
    if (bytes > this.capacity) this.needsMore = true;
    else this.bytes = bytes;
  }

  /** False when there is no room for its tables. */
  private take(header: BatchHeader, position: number, pointer: number): boolean {
    const { heap, task } = this;
    const { window, tablesBytes } = task.memory;
    const end = pointer + BATCH.bytes + header.blocksLength;
    if (tablesBytes > 0 && this.tables + tableBytes(heap.view, pointer, end) > window) {
      this.needsMore = true;
      return false;
    }
    const blocks: ScannedBlock[] = [];
    for (let at = pointer + BATCH.bytes; at < end; ) {
      const block = describeBlock(heap, this.codec, task, at, position + (at - pointer));
      at += block.length;
      blocks.push(tablesBytes > 0 ? this.keep(block) : block);
    }
    const hardStates: GroupHardState[] = [];
    for (let index = 0; index < header.hardStates; index++) {
      hardStates.push(readHardState(heap.view, end + index * HARD_STATE.bytes));
    }
    const { totalLength, flags } = header;
    this.batches.push({ position, totalLength, flags, blocks, hardStates });
    return true;
  }

  /** The tables, out of the way of the next window. */
  private keep(block: ScannedBlock): ScannedBlock {
    const { exports, view } = this.heap;
    const { pointer } = block;
    const kept = this.tables;
    const length = tableLength(view, pointer);
    exports.copy(kept, pointer, length);
    this.tables += length;
    return { ...block, pointer: kept };
  }
}

/** Of the blocks of a batch. */
function tableBytes(view: DataView, batch: number, end: number): number {
  let bytes = 0;
  for (let at = batch + BATCH.bytes; at < end; ) {
    const length = tableLength(view, at);
    bytes += length;
    at += length + view.getUint32(at + BLOCK.offset.payloadLength, true);
  }
  return bytes;
}

function tableLength(view: DataView, block: number): number {
  return BLOCK.bytes + view.getUint32(block + BLOCK.offset.items, true) * ITEM.bytes;
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
  let summary: VerifiedBlocks;
  try {
    summary = codec.describeBlock(pointer, length, group);
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
  sums: number,
  rescued: RescuedHardState[],
): void {
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
