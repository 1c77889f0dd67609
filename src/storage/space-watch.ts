/**
 * Counts how much room the disk has for the lane, and refuses entries before what is kept for the rest is touched
 * (how much, and for what, tells disk-reserve.ts).
 *
 * ```
 * what the disk said last − written since − queued − reserve
 *   ≥ an entry        ─▶ taken
 *   < an entry        ─▶ full: entries are refused ─▶ asked again every second
 *   ≥ half a segment  ─▶ taken again
 * ```
 *
 * It is counted in the call that brings the entry: the answer of the disk comes a while later, and by then the
 * memory of the lane may hold more entries than are kept. Several lanes on one disk count together.
 *
 * Segments that nothing needs any more are given up only once the header of a new one says so. A full log
 * comes to none by itself, so it is told to begin one.
 */
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import {
  batchFrameBytes,
  entryReserve,
  purgeReserve,
  segmentHeadBytes,
  startReserve,
} from './disk-reserve.js';
import type { DiskUse, DiskUser } from './disk-use.js';
import type { BatchPlace } from './lane-writer.js';
import type { StorageExecutor } from './storage-executor.js';
import type { Space } from './storage-tasks.js';

/** Shares of a segment: what is written until the disk is asked again, and what is worth giving up. */
const CHECK = 1 / 8;
const WORTH = 1 / 16;
/** And what entries need after a start, or when the disk was full. */
const ROOM_AGAIN = 1 / 2;
const RETRY_MS = 1_000;

export interface SpaceWatchOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  readonly segmentBytes: number;
  readonly maxBatchBytes: number;
}

export interface SpaceWatchParts {
  readonly executor: StorageExecutor;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly groups: () => ReadonlyMap<number, unknown>;
  /** Of all lanes on the disk; this one is among them. */
  readonly use: DiskUse;
  /** What the lane has taken and not yet written. */
  readonly queuedBytes: () => number;
  /** Begins a segment if that gives up others. */
  readonly makeRoom: () => void;
  /** There is none: who waits for room in memory is to be told. */
  readonly filled: () => void;
  /** There is room again. */
  readonly roomy: () => void;
}

/** Bytes of a lane, and of all. */
interface Taken {
  readonly bytes: number;
  readonly allBytes: number;
}

export class SpaceWatch implements DiskUser {
  full = false;
  readonly queuedBytes: () => number;
  private readonly options: SpaceWatchOptions;
  private readonly parts: SpaceWatchParts;
  private segment = 0;
  private position = 0;
  /** Where the one before it ended. */
  private leftAt = 0;
  private nextCheck = 0;
  private space: Space = { blockBytes: 0, freeBytes: Number.POSITIVE_INFINITY };
  /** What the lane has taken of the disk in this run; and what it and all lanes had when it was asked last. */
  private takenBytes = 0;
  private before: Taken = { bytes: 0, allBytes: 0 };
  private check: Promise<void> | undefined;
  private timer: Timer | undefined;
  private stopped = false;

  constructor(options: SpaceWatchOptions, parts: SpaceWatchParts) {
    this.options = options;
    this.parts = parts;
    this.queuedBytes = parts.queuedBytes;
    parts.use.join(this);
  }

  /** Its own writes bring a lane to ask the disk again; so do those of others, when it writes nothing. */
  othersTook(): void {
    const { segmentBytes } = this.options;
    const taken = this.parts.use.takenBytes - this.before.allBytes;
    if (this.segment > 0 && taken >= segmentBytes * CHECK) this.look();
  }

  /** The lane has begun, with that segment; resolves when it is known whether the disk is full. */
  async begin(segment: number): Promise<void> {
    this.segment = segment;
    this.look();
    await this.check;
    if (!this.full && !this.hasRoom(0, this.options.segmentBytes * ROOM_AGAIN)) this.becomeFull();
  }

  /** Whether so many bytes of entries may be queued too. Once they may not, none may until there is more room. */
  admits(bytes: number): boolean {
    if (!this.full && !this.hasRoom(bytes)) this.becomeFull();
    return !this.full;
  }

  /** Whether so many bytes may be taken now for what the lane could do without; if so, they are. */
  take(bytes: number): boolean {
    if (this.full || !this.hasRoom(bytes)) return false;
    this.count(bytes);
    return true;
  }

  /** Whether so many bytes may be moved out of what is kept for votes. */
  admitsMove(bytes: number): boolean {
    const groups = this.parts.groups().size;
    const batchBytes = Math.min(bytes, this.options.maxBatchBytes) + batchFrameBytes(groups);
    return this.leavesStart(bytes, batchBytes);
  }

  /** A batch is durable there. */
  written({ segment, position, totalLength }: BatchPlace): void {
    const begun = segment !== this.segment;
    if (begun) {
      this.leftAt = this.position;
      this.count(segmentHeadBytes(this.parts.groups().size));
    }
    this.position = position + totalLength;
    this.count(totalLength);
    if (!this.full && !this.hasRoom(0)) this.becomeFull();
    if (!begun && this.position < this.nextCheck) return;
    this.segment = segment;
    this.nextCheck = this.position + this.options.segmentBytes * CHECK;
    this.look();
  }

  /** So much is in the newest segment, or in the one before it, that it is worth giving up. */
  isWorth(which: 'newest' | 'before'): boolean {
    const bytes = which === 'newest' ? this.position : this.leftAt;
    return bytes >= this.options.segmentBytes * WORTH;
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.timer?.cancel();
    await this.check;
  }

  private count(bytes: number): void {
    this.takenBytes += bytes;
    this.parts.use.take(bytes, this);
  }

  /** Whether so many bytes of entries could be queued too, and all that is kept would be left, and more. */
  private hasRoom(bytes: number, moreBytes = 0): boolean {
    const { segmentBytes, maxBatchBytes } = this.options;
    const { blockBytes, freeBytes } = this.space;
    if (freeBytes === Number.POSITIVE_INFINITY) return true;
    const { lanes, queuedBytes: queuedByAll } = this.parts.use;
    const queuedBytes = queuedByAll + bytes;
    const largest = Math.min(queuedBytes, Math.max(maxBatchBytes, bytes));
    const groups = this.parts.groups().size;
    const batchBytes = largest + batchFrameBytes(groups);
    const reserve = entryReserve(segmentBytes, segmentHeadBytes(groups), batchBytes);
    return (
      blockBytes + freeBytes - this.takenWith(bytes) - this.takenByOthers() >=
        lanes * (reserve + moreBytes) && this.leavesStart(bytes, batchBytes)
    );
  }

  /** Votes may go where the segment has blocks already. A start and a purge may begin another. */
  private leavesStart(bytes: number, batchBytes: number): boolean {
    const { blockBytes, freeBytes } = this.space;
    const headBytes = segmentHeadBytes(this.parts.groups().size);
    const kept =
      startReserve(headBytes, batchBytes) + purgeReserve(this.options.segmentBytes, headBytes);
    const taken = Math.max(0, this.takenWith(bytes) - blockBytes) + this.takenByOthers();
    return freeBytes - taken >= this.parts.use.lanes * kept;
  }

  /** What the lane has taken since the disk was asked, and will have been when so many bytes more are written. */
  private takenWith(bytes: number): number {
    const queuedBytes = this.queuedBytes() + bytes;
    return this.takenBytes - this.before.bytes + queuedBytes + this.framesOf(queuedBytes);
  }

  /** And the other lanes: of what they write nothing goes into blocks that this one has. */
  private takenByOthers(): number {
    const { use } = this.parts;
    if (use.lanes === 1) return 0;
    const taken = use.takenBytes - this.before.allBytes - (this.takenBytes - this.before.bytes);
    const queuedBytes = use.queuedBytes - this.queuedBytes();
    return taken + queuedBytes + (use.lanes - 1) * this.framesOf(queuedBytes);
  }

  /** What stands around so many bytes of entries. */
  private framesOf(queuedBytes: number): number {
    const groups = this.parts.groups().size;
    const heads = 1 + Math.floor(queuedBytes / this.options.segmentBytes);
    return batchFrameBytes(groups) + heads * segmentHeadBytes(groups);
  }

  private look(): void {
    if (this.check !== undefined || this.stopped) return;
    const { directory, lane, segmentBytes } = this.options;
    const { segment, position, takenBytes: bytes } = this;
    const before = { bytes, allBytes: this.parts.use.takenBytes };
    // Nothing larger is staged at once.
    const wasteBytes = segmentBytes / 4;
    this.check = this.parts.executor
      .run({ type: 'space', directory, lane, segment, position, wasteBytes })
      .then(
        (space) => {
          this.check = undefined;
          // It tells nothing of a segment that was begun since.
          if (segment === this.segment) this.note(space, before);
          else this.look();
        },
        (error: unknown) => {
          this.check = undefined;
          // What was said last goes on counting.
          this.parts.logger.warn(
            { event: 'storage.space-unknown', error },
            'the disk does not tell how much room it has',
          );
          this.lookLater();
        },
      );
  }

  private note(space: Space, before: Taken): void {
    if (this.stopped) return;
    this.space = space;
    this.before = before;
    if (!this.full) {
      if (!this.hasRoom(0)) this.becomeFull();
      return;
    }
    const { directory } = this.options;
    if (this.hasRoom(0, this.options.segmentBytes * ROOM_AGAIN)) {
      this.full = false;
      const room = space.freeBytes;
      this.parts.logger.info(
        { event: 'storage.roomy', directory, room },
        'the disk has room again',
      );
      this.parts.roomy();
      return;
    }
    this.parts.makeRoom();
    this.lookLater();
  }

  private becomeFull(): void {
    this.full = true;
    const { directory } = this.options;
    const room = this.space.freeBytes;
    this.parts.logger.error(
      { event: 'storage.full', directory, room },
      'the disk has no room for more entries: they are refused until it has',
    );
    this.parts.filled();
    this.look();
  }

  private lookLater(): void {
    if (this.stopped) return;
    this.timer?.cancel();
    this.timer = this.parts.scheduler.setTimer(RETRY_MS, () => this.look());
  }
}
