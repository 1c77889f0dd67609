/**
 * Moves what is still needed of the oldest segments to the end of the log, so that they can be given up
 * (when, and how far, tells lane-space.ts).
 *
 * ```
 * indexes: what stands in old segments ─▶ one read for many logs ─▶ moved blocks in the open batch ─▶ indexes
 * ```
 *
 * A copy is read by an index that knows every truncation of its log, and put into a batch only if none has
 * come since. So in the log it stands in front of every truncation that it does not know, and never brings
 * back what one took away. The segment of the first copy is given up only when a header names it no more,
 * which is written after the batch of the second copy is durable.
 *
 * Copies of at most one batch are on their way to the disk, and as many are read meanwhile: whatever else is
 * written waits for no more than that. Clients who leave too little of the log to copies are refused.
 */
import { invariant } from '../base/assert.js';
import type { Logger } from '../base/logger.js';
import type { LogIndex } from '../engine/types.js';
import { SECTOR_BYTES } from '../wasm/layout.js';
import type { SegmentRun } from '../wasm/segment-runs.js';
import type { SegmentUsage } from '../wasm/segment-usage.js';
import type { GroupLog } from './group-log.js';
import type { WrittenBatch } from './lane-log.js';
import { COPY_FRAME_BYTES, LowWater, laneNeeds, type SegmentSize } from './lane-space.js';
import type { BatchPlace } from './lane-writer.js';
import { checkpointBytes } from './segment-file.js';
import type { ReadTaskResult } from './segment-reader.js';
import type { LogRange } from './segment-reads.js';

/** What is moved at once, if a batch may be so large. */
const MAX_STEP_BYTES = 1024 * 1024;
/** And of the ring: most is for what clients write. */
const STEP_RING_SHARE = 1 / 8;
/** Entries are not all of one size: so much of a step is read at once of a log. */
const RANGE_SHARE = 3 / 4;
/** Ranges that one read takes together: other reads wait for them. */
const MAX_STEP_RANGES = 512;
/** Stretches of a log in different segments that a step looks at. */
const MAX_LOG_RUNS = 64;
/** Bytes that are moved for each that clients append, while the log takes up too much. */
const MOVED_PER_CLIENT_BYTE = 2;
/** Of a segment: what clients may append of that ahead. As much as they can stage at once. */
const CREDIT_SHARE = 1 / 4;
/** Of a segment: so much may be moved on a full disk, out of the room that is kept. */
const FULL_SHARE = 1 / 8;
/** Shares of a segment after which it is asked again what has to be moved. */
const CHECKS_PER_SEGMENT = 64;

export interface SegmentRewriteOptions {
  readonly segmentBytes: number;
  readonly ringBytes: number;
  readonly maxBatchBytes: number;
  readonly maxStageBytes: number;
}

export interface SegmentRewriteParts {
  readonly groups: () => ReadonlyMap<number, GroupLog>;
  /** What segments hold of all of them. */
  readonly usage: SegmentUsage;
  /** See `SegmentReads.gather`. */
  readonly read: (
    ranges: readonly LogRange[],
    maxBytes: number,
  ) => Promise<readonly ReadTaskResult[]>;
  /** All segments, ascending. */
  readonly files: () => readonly SegmentSize[];
  /** See `RetiredSegments.isBehind`. */
  readonly isBehind: () => boolean;
  /** The disk has no room for copies. */
  readonly isFull: () => boolean;
  /** What is kept on a full disk has room for so many bytes of copies. */
  readonly admitsMove: (bytes: number) => boolean;
  /** See `LaneLog.move`. */
  readonly move: (log: GroupLog, block: Uint8Array) => boolean;
  /** Clients may append more than before. */
  readonly admitting: () => void;
  readonly logger: Logger;
}

/** What was read of a range, and what the log had been cut by then. */
interface Copy {
  readonly log: GroupLog;
  readonly generation: number;
  readonly lastIndex: LogIndex;
  readonly block: Uint8Array;
}

export class SegmentRewrite {
  /** Bytes of blocks that were moved. */
  movedBytes = 0;
  private readonly options: SegmentRewriteOptions;
  private readonly parts: SegmentRewriteParts;
  private readonly stepBytes: number;
  private segment = 0;
  private position = 0;
  /** Of the batches in this segment, and in the one before it. */
  private largestBatch = 0;
  private largestBatchBefore = 0;
  /** Where it is asked again what has to be moved; before anybody is refused, if there is anything new. */
  private nextCheck = 0;
  private anythingNew = false;
  /** What stands before that segment is moved; 0: nothing is. */
  private reach = 0;
  /** The disk is full, and would have room if nothing stood before that segment. */
  private fullReach = 0;
  /** What clients may append behind the last durable batch. */
  private clientBytes: number = Number.POSITIVE_INFINITY;
  /** The same while the log takes up too much. */
  private credit = 0;
  private over = false;
  private readonly low: LowWater;
  /**
   * Bytes that the logs need, and those that were moved since the last entries were appended, less what votes took
   * up: however many votes there are, they must not keep old segments.
   */
  private liveBytes = 0;
  private movedInARow = 0;
  /** Logs that may have something before `reach`, the ones with the lowest segments last. */
  private toLeave: GroupLog[] = [];
  private step: Promise<void> | undefined;
  /** Read, and not yet in a batch. */
  private copies: Copy[] = [];
  /** Bytes of blocks on their way to the disk, and where each log goes on behind them. */
  private moving = 0;
  private readonly next: Map<GroupLog, LogIndex> = new Map();
  /** While the log writes that segment nothing more is tried. */
  private failedIn = 0;
  private stopped = false;

  constructor(options: SegmentRewriteOptions, parts: SegmentRewriteParts) {
    this.options = options;
    this.parts = parts;
    this.low = new LowWater(options.segmentBytes);
    const { maxBatchBytes, ringBytes } = options;
    this.stepBytes = Math.min(MAX_STEP_BYTES, maxBatchBytes, STEP_RING_SHARE * ringBytes);
  }

  /** The lane has begun, with that segment. */
  begin(segment: number): void {
    this.segment = segment;
    this.check();
    this.goOn();
  }

  /** A batch is durable there. */
  written(place: BatchPlace, { movedBytes, entries }: WrittenBatch): void {
    const { segment, position, totalLength } = place;
    if (segment !== this.segment) {
      this.segment = segment;
      this.largestBatchBefore = this.largestBatch;
      this.largestBatch = 0;
      this.nextCheck = 0;
      this.low.rolled();
    }
    this.position = position + totalLength;
    this.largestBatch = Math.max(this.largestBatch, totalLength);
    this.pay(totalLength - movedBytes, movedBytes);
    this.moving -= movedBytes;
    if (entries > 0) this.movedInARow = 0;
    else if (movedBytes > 0) this.movedInARow += movedBytes;
    else this.movedInARow = Math.max(0, this.movedInARow - totalLength);
    if (this.moving === 0) this.next.clear();
    this.anythingNew = true;
    if (this.position >= this.nextCheck) this.check();
    this.goOn();
  }

  /** A segment that is needed no more has gone, or could not. */
  filesChanged(): void {
    if (this.stopped) return;
    this.check();
    this.goOn();
  }

  /** See `LowWater`. */
  get lowBytes(): number {
    return this.low.bytes;
  }

  /** Whether so many bytes may be on their way to the disk, if some are those of clients. */
  admits(bytes: number): boolean {
    if (this.hasRoom(bytes)) return true;
    if (!this.anythingNew) return false;
    this.check();
    this.goOn();
    return this.hasRoom(bytes);
  }

  /** What was read waits for room in a batch. */
  get waits(): boolean {
    return this.copies.length > 0;
  }

  /** Moves what there is to be moved, as far as there is room. */
  goOn(): void {
    if (this.stopped || this.failedIn === this.segment) return;
    const full = this.parts.isFull();
    if (full && !this.isLittle(this.reach)) return;
    if (this.moving === 0) this.moveCopies();
    if (this.step !== undefined || this.copies.length > 0) return;
    // On a full disk the turn would never come.
    if (!full && this.isTurnOfClients()) return;
    let ranges = this.plan();
    if (ranges.length === 0 && this.moving === 0 && this.reach > 0) {
      this.check();
      ranges = this.plan();
    }
    if (ranges.length === 0) return;
    this.step = this.read(ranges).then(
      () => {
        this.step = undefined;
        this.goOn();
      },
      (error: unknown) => {
        this.step = undefined;
        if (!this.stopped) this.fail(error);
      },
    );
  }

  /** The disk is full. */
  filled(): void {
    this.fullReach = this.newest + 1;
  }

  /**
   * The disk is still full. What little is left may be all that keeps it so: that is moved, once in the segment that
   * is behind it. Returns whether that has to be begun first.
   */
  stillFull(): boolean {
    if (this.stopped || this.failedIn === this.segment) return false;
    this.check();
    this.goOn();
    const { oldest } = this.parts.usage;
    return oldest < this.fullReach && this.newest < this.fullReach && this.isLittle(this.fullReach);
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.copies = [];
    await this.step;
  }

  /**
   * All that is needed was moved once since then. Where segments are small for what logs have in them, copies
   * fill one while the last is being left, and would go on like that for ever.
   */
  private isTurnOfClients(): boolean {
    return this.movedInARow > this.liveBytes;
  }

  private get newest(): number {
    return this.parts.files().at(-1)!.sequence;
  }

  private isLittle(before: number): boolean {
    let bytes = 0;
    for (const use of this.parts.usage.list()) {
      if (use.segment < before) bytes += use.bytes + use.runs * COPY_FRAME_BYTES;
    }
    return bytes <= FULL_SHARE * this.options.segmentBytes && this.parts.admitsMove(bytes);
  }

  private hasRoom(bytes: number): boolean {
    return bytes - this.moving <= this.clientBytes || this.isTurnOfClients();
  }

  private fail(error: unknown): void {
    this.failedIn = this.segment;
    this.over = false;
    this.clientBytes = Number.POSITIVE_INFINITY;
    this.parts.logger.error(
      { event: 'storage.rewrite-failed', error },
      'entries of an old segment could not be moved, so it is kept',
    );
    this.parts.admitting();
  }

  private check(): void {
    if (this.failedIn === this.segment) return;
    const { segmentBytes, maxBatchBytes, maxStageBytes } = this.options;
    this.anythingNew = false;
    this.nextCheck = this.position + segmentBytes / CHECKS_PER_SEGMENT;
    const { position } = this;
    const files = this.parts.files();
    const largestBatchBytes = Math.max(this.largestBatch, this.largestBatchBefore);
    const headBytes = SECTOR_BYTES + checkpointBytes(this.parts.groups().size);
    this.low.note(this.parts.usage.totalBytes());
    const { lowBytes, over } = this;
    const limits = { segmentBytes, largestBatchBytes, maxBatchBytes, maxStageBytes, headBytes };
    const needs = laneNeeds({ files, position, lowBytes, over, ...limits }, this.parts.usage);
    const before = this.clientBytes;
    if (needs.over && !over) this.credit = CREDIT_SHARE * segmentBytes;
    const fullReach = this.parts.isFull() ? Math.min(this.fullReach, this.newest) : 0;
    const reach = Math.max(needs.reach, fullReach);
    if (reach !== this.reach) this.toLeave = [];
    this.over = needs.over;
    this.reach = reach;
    this.liveBytes = needs.liveBytes;
    this.clientBytes = needs.over ? this.credit : needs.clientBytes;
    if (this.parts.isBehind()) {
      const rest = segmentBytes - position - Math.max(maxBatchBytes, largestBatchBytes);
      this.clientBytes = Math.min(this.clientBytes, rest);
    }
    if (this.clientBytes > before) this.parts.admitting();
  }

  /** Clients have appended so much, and so much was moved. */
  private pay(clientBytes: number, movedBytes: number): void {
    const most = CREDIT_SHARE * this.options.segmentBytes;
    this.credit = Math.min(most, this.credit + movedBytes / MOVED_PER_CLIENT_BYTE) - clientBytes;
    if (this.over && !this.parts.isBehind()) this.clientBytes = this.credit;
    else this.clientBytes -= clientBytes;
  }

  private async read(ranges: readonly LogRange[]): Promise<void> {
    const generations = ranges.map(({ log }) => log.generation);
    const results = await this.parts.read(ranges, this.stepBytes);
    if (this.stopped) return;
    this.copies = results.map(({ block, lastIndex }, at) => {
      return { log: ranges[at]!.log, generation: generations[at]!, lastIndex, block };
    });
  }

  /** Without room for all of them the log is busy, and comes back here. */
  private moveCopies(): void {
    let done = 0;
    for (const { log, generation, lastIndex, block } of this.copies) {
      const needed = log.generation === generation && lastIndex > log.purged.index;
      if (needed && !this.parts.move(log, block)) break;
      done++;
      if (!needed) continue;
      this.next.set(log, lastIndex + 1);
      this.moving += block.length;
      this.movedBytes += block.length;
    }
    this.copies.splice(0, done);
  }

  /** What comes next, of about so many bytes as one step moves. */
  private plan(): LogRange[] {
    const ranges: LogRange[] = [];
    if (this.toLeave.length === 0) this.toLeave = this.oldestLogs();
    const { toLeave } = this;
    let left = this.stepBytes;
    for (let at = toLeave.length - 1; at >= 0; at--) {
      if (left <= 0 || ranges.length >= MAX_STEP_RANGES) break;
      const before = ranges.length;
      const log = toLeave[at]!;
      // Until the index has forgotten what was cut off, it would be read as what the log has there now.
      if (!log.truncationPending) left = this.planLog(log, left, ranges);
      // If it has anything left later on, it is found again when all that is moving is durable.
      if (ranges.length === before && at === toLeave.length - 1) toLeave.pop();
    }
    return ranges;
  }

  /** Adds what comes next of a log; returns how many bytes are left for others. */
  private planLog(log: GroupLog, maxBytes: number, ranges: LogRange[]): number {
    const rangeBytes = this.stepBytes * RANGE_SHARE;
    let left = maxBytes;
    const from = this.next.get(log);
    let run = from === undefined ? log.index.oldestRun : log.index.runOf(from);
    let next = from ?? 0;
    for (let runs = 0; run !== undefined && runs < MAX_LOG_RUNS && left > 0; ) {
      const range = this.toMove(log, run, next);
      if (range === undefined) {
        next = run.lastIndex + 1;
      } else {
        const { firstIndex } = range;
        const entryBytes = run.bytes / (run.lastIndex - run.firstIndex + 1);
        const fitting = Math.max(1, Math.floor(Math.min(left, rangeBytes) / entryBytes));
        const lastIndex = Math.min(range.lastIndex, firstIndex + fitting - 1);
        ranges.push({ log, firstIndex, lastIndex });
        left -= (lastIndex - firstIndex + 1) * entryBytes + COPY_FRAME_BYTES;
        next = lastIndex + 1;
      }
      if (next <= run.lastIndex) continue;
      run = log.index.runOf(next);
      runs++;
    }
    return left;
  }

  /** All logs are asked only when what is moving cannot be what they have. */
  private oldestLogs(): GroupLog[] {
    if (this.moving > 0 || this.parts.usage.oldest >= this.reach) return [];
    const logs: GroupLog[] = [];
    for (const log of this.parts.groups().values()) {
      if (log.index.oldestSegment < this.reach) logs.push(log);
    }
    return logs.sort((left, right) => right.index.oldestSegment - left.index.oldestSegment);
  }

  /** What has to be moved of a run, from an index on. */
  private toMove(log: GroupLog, run: SegmentRun, from: LogIndex): LogRange | undefined {
    if (run.segment >= this.reach) return undefined;
    invariant(run.lastIndex <= log.lastIndex, 'the index knows what was cut off the log');
    // And maybe not yet what was purged.
    const firstIndex = Math.max(run.firstIndex, log.purged.index + 1, from);
    if (firstIndex > run.lastIndex) return undefined;
    return { log, firstIndex, lastIndex: log.termRuns.lastReadable(firstIndex, run.lastIndex) };
  }
}
