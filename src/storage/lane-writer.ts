/**
 * Writes the batches of one lane; lives in the lane's thread.
 *
 * Rule: a batch is sealed strictly after the flush of the one before it has returned, and a segment
 * gets its name strictly after everything before it was flushed. So any later valid batch or segment
 * proves everything before it, and recovery can tell loss from a torn tail.
 *
 * One failed write or sync is final: the object throws ever after.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import { BatchCodec, batchBytes } from '../wasm/batch-codec.js';
import {
  BATCH,
  BATCH_FLAG,
  BLOCK,
  ENTRY_KIND,
  HARD_STATE,
  ITEM,
  SECTOR_BYTES,
} from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk, DiskFile } from './disk.js';
import { purgeReserve, segmentHeadBytes, startReserve } from './disk-reserve.js';
import type { GroupCheckpoint } from './hard-state.js';
import { emptyCheckpoint, isHigherVote, readHardState } from './hard-state.js';
import { alignToSector } from './sector.js';
import {
  createSparse,
  listSpares,
  removeOnFailure,
  segmentPath,
  sparePath,
  writeSegmentStart,
  type Zeros,
  zeroFill,
} from './segment-file.js';
import { StartRoom } from './start-room.js';
import { readU64 } from './storage-memory.js';

export interface LaneWriterOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  /** How many write on the disk. */
  readonly lanes: number;
  readonly segmentBytes: number;
  /** Ask for writes that bypass the page cache. */
  readonly direct: boolean;
  /** Sector-aligned shared memory of this writer alone, for headers and checkpoints. */
  readonly scratch: number;
  readonly scratchBytes: number;
  readonly zeros: Zeros;
}

/** Where a lane goes on after recovery. */
export interface LaneStart {
  /** Of the first segment; it takes the place of one that has the number and holds nothing else. */
  readonly sequence: number;
  /** Chance for the epochs; 52 bits. */
  readonly epoch: number;
  readonly startLsn: number;
  readonly prevEnd: number;
  /** The oldest segment that is needed. */
  readonly oldestSegment: number;
  readonly groups: readonly GroupCheckpoint[];
  /** The last unproven batch, copied into the new segment before anything else. */
  readonly carry: CarriedBatch | undefined;
  /** Segments that are needed, with more behind their end than is worth keeping. */
  readonly tails: readonly DeadTail[];
}

export interface DeadTail {
  readonly path: string;
  /** Where the segment ends. */
  readonly end: number;
  /** The segment behind it is durable, and says so; otherwise it is the one that is begun. */
  readonly proven: boolean;
}

export interface CarriedBatch {
  readonly path: string;
  readonly position: number;
  readonly totalLength: number;
  /** Sector-aligned shared memory with room for it. */
  readonly pointer: number;
}

/** A batch that waits in shared memory: header room, blocks and hard states. */
export interface SealCommand {
  readonly pointer: number;
  readonly flags: number;
  readonly blocks: number;
  readonly items: number;
  readonly blocksLength: number;
  readonly hardStates: number;
  /** The oldest segment that is needed, for the header of the next one. */
  readonly oldestSegment: number;
  /** Begin a segment with it, although it has room where the log is. */
  readonly roll: boolean;
}

/** A file that becomes a segment. */
interface TakenFile {
  readonly path: string;
  readonly fileBytes: number;
  /** It holds bytes of an earlier use. */
  readonly recycled: boolean;
}

/** Where a batch stands, durably. */
export interface BatchPlace {
  readonly segment: number;
  readonly position: number;
  readonly totalLength: number;
}

interface NextSegment {
  readonly startLsn: number;
  readonly prevEnd: number;
  readonly oldestSegment: number;
  readonly carry: CarriedBatch | undefined;
  readonly firstBatchBytes: number;
}

const TWO_POW_52 = 2 ** 52;

export class LaneWriter {
  private readonly memory: SharedHeap;
  private readonly codec: BatchCodec;
  private readonly disk: Disk;
  private readonly options: LaneWriterOptions;
  private readonly room: StartRoom;
  private readonly groups: Map<number, GroupCheckpoint> = new Map();
  private file: DiskFile | undefined;
  private sequence = 0;
  private epoch = 0;
  private startLsn = 0;
  private fileBytes = 0;
  /** How far it has blocks of the disk. */
  private blockBytes = 0;
  private position = 0;
  private failure: unknown;

  constructor(memory: SharedHeap, disk: Disk, options: LaneWriterOptions) {
    invariant(options.scratch % SECTOR_BYTES === 0, 'the scratch memory of a lane is aligned');
    this.memory = memory;
    this.codec = new BatchCodec(memory);
    this.disk = disk;
    this.options = options;
    this.room = new StartRoom(disk, options);
  }

  /** Makes the first segment of this run. Returns the place of the carried batch in it, if any. */
  begin(start: LaneStart): BatchPlace | undefined {
    return this.guarded(() => {
      for (const state of start.groups) this.groups.set(state.group, state);
      this.sequence = start.sequence - 1;
      this.epoch = start.epoch;
      const { startLsn, prevEnd, oldestSegment, carry, tails } = start;
      // First, for a full disk has room for the new segment only behind them. The name of the segment that
      // proves an end may be in the page cache only.
      const proven = tails.filter((tail) => tail.proven);
      if (proven.length > 0) this.disk.syncDirectory(this.options.directory);
      for (const tail of proven) this.giveBack(tail);
      const next = { startLsn, prevEnd, oldestSegment, carry, firstBatchBytes: 0 };
      const place = this.openSegment(next);
      for (const tail of tails) if (!tail.proven) this.giveBack(tail);
      return place;
    });
  }

  /** Seals, writes and syncs one batch. */
  write(command: SealCommand): BatchPlace {
    return this.guarded(() => {
      const total = batchBytes(command.blocksLength, command.hardStates, command.flags);
      const rolls = command.roll || this.position + total > this.fileBytes;
      this.claim(command, total, rolls);
      if (rolls) {
        this.openSegment({
          startLsn: this.startLsn + this.fileBytes,
          prevEnd: this.startLsn + this.position,
          oldestSegment: command.oldestSegment,
          carry: undefined,
          firstBatchBytes: total,
        });
      }
      const place = { segment: this.sequence, position: this.position, totalLength: total };
      const sealed = this.seal(command, total, this.startLsn + this.position);
      invariant(sealed === total, 'batch geometry of writer and module agree');
      const { file } = this;
      invariant(file !== undefined, 'the lane has begun');
      file.write(
        this.memory.bytes.subarray(command.pointer, command.pointer + total),
        this.position,
      );
      file.dataSync();
      this.position += total;
      this.noteStates(command);
      return place;
    });
  }

  close(): void {
    this.file?.close();
    this.file = undefined;
  }

  private claim({ flags, roll, hardStates }: SealCommand, total: number, rolls: boolean): void {
    const headBytes = segmentHeadBytes(this.groups.size + hardStates);
    const bytes = rolls
      ? headBytes + total
      : this.position + total - Math.max(this.position, this.blockBytes);
    // What gives room back goes on when votes have to end.
    const last = roll || (flags & (BATCH_FLAG.records | BATCH_FLAG.cleanShutdown)) !== 0;
    const forPurges = last ? 0 : purgeReserve(this.options.segmentBytes, headBytes);
    const kept = startReserve(headBytes, total) + forPurges;
    this.room.claim(total, Math.max(0, bytes), this.options.lanes * kept);
  }

  private giveBack({ path, end }: DeadTail): void {
    const file = this.disk.open(path, { access: 'write' });
    try {
      file.shorten(end);
      file.dataSync();
    } finally {
      file.close();
    }
  }

  private guarded<T>(work: () => T): T {
    if (this.failure !== undefined) throw this.failure;
    try {
      return work();
    } catch (error) {
      this.failure = storageFailure(error, this.options.directory);
      throw this.failure;
    }
  }

  private seal(command: SealCommand, room: number, lsn: number): number {
    const { sequence: segment, epoch } = this;
    const batch = { ...command, lane: this.options.lane, lsn, segment, epoch };
    return this.codec.sealBatch(command.pointer, room, batch);
  }

  /** The next checkpoint tells what the batches of this segment said of votes and purges. */
  private noteStates(command: SealCommand): void {
    if ((command.flags & BATCH_FLAG.records) !== 0) this.notePurges(command);
    const first = command.pointer + BATCH.bytes + command.blocksLength;
    for (let index = 0; index < command.hardStates; index++) {
      const state = readHardState(this.memory.view, first + index * HARD_STATE.bytes);
      const known = this.groups.get(state.group) ?? emptyCheckpoint(state.group);
      // A carried batch may be older than a vote that recovery found in a damaged one.
      const vote = isHigherVote(state.vote, known.vote) ? state.vote : known.vote;
      const committed = Math.max(state.committed, known.committed);
      this.groups.set(state.group, { ...known, vote, committed });
    }
  }

  private notePurges({ pointer, blocks }: SealCommand): void {
    const { view } = this.memory;
    let block = pointer + BATCH.bytes;
    for (let count = 0; count < blocks; count++) {
      const item = block + BLOCK.bytes;
      const kind = view.getUint32(item + ITEM.offset.kind, true);
      if (kind === ENTRY_KIND.purge || kind === ENTRY_KIND.reset) {
        const group = view.getUint32(block + BLOCK.offset.group, true);
        const known = this.groups.get(group) ?? emptyCheckpoint(group);
        const index = readU64(view, item + ITEM.offset.index);
        const purged = { index, term: readU64(view, item + ITEM.offset.term) };
        if (index > known.purged.index) this.groups.set(group, { ...known, purged });
      }
      const items = view.getUint32(block + BLOCK.offset.items, true);
      block = item + items * ITEM.bytes;
      block += view.getUint32(item - BLOCK.bytes + BLOCK.offset.payloadLength, true);
    }
  }

  private openSegment(next: NextSegment): BatchPlace | undefined {
    const { startLsn, prevEnd, oldestSegment: oldest, carry, firstBatchBytes } = next;
    const { directory, lane, scratch, scratchBytes } = this.options;
    const sequence = this.sequence + 1;
    const epoch = this.renewEpoch();
    const groups = [...this.groups.values()];
    const carried = carry === undefined ? undefined : this.readCarried(carry);
    const needed = segmentHeadBytes(groups.length) + (carry?.totalLength ?? firstBatchBytes);
    const { path, fileBytes, recycled } = this.takeFile(needed, this.file === undefined);
    const dataStart = writeSegmentStart(
      this.memory,
      scratch,
      scratchBytes,
      { lane, sequence, epoch, startLsn, prevEnd, fileBytes, oldest, recycled },
      groups,
    );
    const previous = this.file;
    this.file = undefined;
    previous?.close();
    this.sequence = sequence;
    this.epoch = epoch;
    this.startLsn = startLsn;
    this.fileBytes = fileBytes;
    this.position = dataStart;
    const file = this.disk.open(path, { access: 'write', direct: this.options.direct });
    this.file = file;
    this.blockBytes = file.blockBytes();
    file.write(this.memory.bytes.subarray(scratch, scratch + dataStart), 0);
    let place: BatchPlace | undefined;
    if (carried !== undefined) {
      const total = this.seal(carried, carry!.totalLength, startLsn + dataStart);
      file.write(
        this.memory.bytes.subarray(carried.pointer, carried.pointer + total),
        this.position,
      );
      place = { segment: sequence, position: this.position, totalLength: total };
      this.position += total;
      this.noteStates(carried);
    }
    file.dataSync();
    this.disk.rename(path, segmentPath(directory, lane, sequence));
    this.disk.syncDirectory(directory);
    return place;
  }

  /**
   * A spare file, if one is there and large enough; else a new one. Filling that one with zeros would
   * hold up the batch that needs it.
   */
  private takeFile(neededBytes: number, zeroed: boolean): TakenFile {
    const { directory, lane, lanes, segmentBytes } = this.options;
    const path = `${directory}/lane-${lane}-next.tmp`;
    // One that was a segment has blocks for all of its length.
    for (const sequence of listSpares(this.disk, directory, lane).reverse()) {
      const spare = sparePath(directory, lane, sequence);
      const file = this.disk.open(spare, { access: 'read' });
      const fileBytes = Math.floor(file.size() / SECTOR_BYTES) * SECTOR_BYTES;
      file.close();
      if (fileBytes >= neededBytes) {
        if (this.disk.exists(path)) this.disk.remove(path);
        this.disk.rename(spare, path);
        // Were only this lost in a crash, the next start would take what is written now for zeros.
        this.disk.syncDirectory(directory);
        return { path, fileBytes, recycled: sequence > 0 };
      }
      this.disk.remove(spare);
    }
    const fileBytes = Math.max(alignToSector(segmentBytes), alignToSector(neededBytes));
    createSparse(this.disk, path, fileBytes);
    // The last room is for the log, not for zeros.
    if (zeroed && this.disk.freeBytes(directory) >= (1 + lanes) * fileBytes)
      this.fill(path, fileBytes);
    return { path, fileBytes, recycled: false };
  }

  private fill(path: string, fileBytes: number): void {
    const { direct } = this.options;
    const zeros = this.memory.slice(this.options.zeros.pointer, this.options.zeros.bytes);
    try {
      removeOnFailure(this.disk, path, () =>
        zeroFill(this.disk, path, zeros, direct, 0, fileBytes),
      );
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      // The log may take up less than a segment: as a hole it has what room there is.
      createSparse(this.disk, path, fileBytes);
    }
  }

  private readCarried(carry: CarriedBatch): SealCommand {
    const { bytes, view } = this.memory;
    const { pointer, totalLength } = carry;
    const file = this.disk.open(carry.path, { access: 'read' });
    const read = file.read(bytes.subarray(pointer, pointer + totalLength), carry.position);
    file.close();
    const sound =
      read === totalLength && this.codec.verifyBatch(pointer, totalLength) === undefined;
    if (!sound) {
      throw new KeelsonError(
        'KEELSON_STORAGE_CORRUPT',
        `The last batch of ${carry.path} at ${carry.position} read well once and not again. ` +
          'The disk is failing; replace it and restore this node from its peers.',
        { details: { file: carry.path, offset: carry.position } },
      );
    }
    const { offset } = BATCH;
    return {
      pointer,
      flags: view.getUint16(pointer + offset.flags, true),
      blocks: view.getUint32(pointer + offset.blocks, true),
      items: view.getUint32(pointer + offset.items, true),
      blocksLength: view.getUint32(pointer + offset.blocksLength, true),
      hardStates: view.getUint32(pointer + offset.hardStates, true),
      oldestSegment: 0,
      roll: false,
    };
  }

  /** A new epoch for each use of a file: a hash of the last one and the segment's number. */
  private renewEpoch(): number {
    const { view, exports } = this.memory;
    const { scratch } = this.options;
    view.setFloat64(scratch, this.epoch, true);
    view.setFloat64(scratch + 8, this.sequence + 1, true);
    exports.xxh3(scratch, 16, scratch + 16);
    return readU64(view, scratch + 16) % TWO_POW_52;
  }
}

/** What a failed write, sync or file operation means to the owner of the store. */
export function storageFailure(error: unknown, directory: string): KeelsonError {
  if (error instanceof KeelsonError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  if (isDiskFull(error)) {
    return new KeelsonError(
      'KEELSON_STORAGE_FULL',
      `No space for the log in ${directory}: ${reason}. Free space, then open the store again.`,
      { outcome: 'unknown', details: { directory }, cause: error },
    );
  }
  return new KeelsonError(
    'KEELSON_STORAGE_FAILED',
    `Writing the log in ${directory} failed: ${reason}. What was being written may or may not be ` +
      'durable; nothing more is acknowledged. Check the disk, then open the store again.',
    { outcome: 'unknown', details: { directory }, cause: error },
  );
}

function isDiskFull(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ENOSPC' || code === 'EDQUOT';
}
