/**
 * Moves what is still needed of the oldest segments to the end of the log, so that they can be given up
 * (when, and how far, tells lane-space.ts).
 *
 * ```
 * index: oldest run of a group ─▶ read it from its segment ─▶ a moved block in the open batch ─▶ index
 * ```
 *
 * A copy is read by an index that knows every truncation of its log, and put into a batch only if none has
 * come since. So in the log it stands in front of every truncation that it does not know, and never brings
 * back what one took away.
 * The segment of the first copy is given up only when a header names it no more, which is written after the
 * batch of the second copy is durable.
 *
 * One step is under way at a time, and no step moves more than the log has appended twice over since the
 * last one: clients always have their share of the disk.
 */
import type { Logger } from '../base/logger.js';
import type { LogIndex } from '../engine/types.js';
import type { SegmentRun } from '../wasm/segment-runs.js';
import type { GroupLog } from './group-log.js';
import type { WrittenBatch } from './lane-log.js';
import { MOVED_PER_APPENDED, segmentToReach } from './lane-space.js';
import type { BatchPlace } from './lane-writer.js';
import type { EntriesLease } from './log-store.js';

/** Ranges that one step moves. */
const MAX_STEP_RANGES = 64;
/** What may be under way at a time: of the ring, most is for what clients write. */
const MOVING_SHARE = 1 / 4;
/** Of a batch, what is read at once; entries are not all of one size. */
const RANGE_SHARE = 3 / 4;
/** A step waits until it may move so much. */
const MIN_STEP_BYTES = 64 * 1024;
/** Shares of a segment after which it is asked again whether moving has to begin. */
const CHECKS_PER_SEGMENT = 64;

export interface SegmentRewriteOptions {
  readonly segmentBytes: number;
  readonly ringBytes: number;
  readonly maxBatchBytes: number;
}

export interface SegmentRewriteParts {
  readonly groups: () => Iterable<GroupLog>;
  /** See `SegmentReads.read`. */
  readonly read: (
    log: GroupLog,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ) => Promise<EntriesLease | undefined>;
  /** The disk has no room for copies. */
  readonly isFull: () => boolean;
  /** See `LaneLog.move`. */
  readonly move: (log: GroupLog, block: Uint8Array) => boolean;
  readonly logger: Logger;
}

/** Entries that stand in one segment. */
interface Range {
  readonly log: GroupLog;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
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
  private readonly minStepBytes: number;
  private readonly maxMovingBytes: number;
  private segment = 0;
  private position = 0;
  /** Of the batches in this segment, and in the one before it. */
  private largestBatch = 0;
  private largestBatchBefore = 0;
  /** Where it is asked again what has to be moved. */
  private nextCheck = 0;
  /** What stands before that segment is moved; 0: nothing is. */
  private reach = 0;
  /** Bytes that may be moved now. */
  private credit = 0;
  /** Bytes of blocks on their way to the disk, and where each log goes on behind them. */
  private moving = 0;
  private readonly next: Map<GroupLog, LogIndex> = new Map();
  private step: Promise<void> | undefined;
  /** While the log writes that segment nothing more is tried. */
  private failedIn = 0;
  private stopped = false;

  constructor(options: SegmentRewriteOptions, parts: SegmentRewriteParts) {
    this.options = options;
    this.parts = parts;
    this.maxMovingBytes = MOVING_SHARE * options.ringBytes;
    this.minStepBytes = Math.min(MIN_STEP_BYTES, this.maxMovingBytes / 4);
    // What earlier runs have left is moved even if this one writes little.
    this.credit = this.maxMovingBytes;
  }

  /** The lane has begun, with that segment. */
  begin(segment: number): void {
    this.segment = segment;
    this.goOn();
  }

  /** A batch is durable there. */
  written(place: BatchPlace, { movedBytes }: WrittenBatch): void {
    const { segment, position, totalLength } = place;
    if (segment !== this.segment) {
      this.segment = segment;
      this.largestBatchBefore = this.largestBatch;
      this.largestBatch = 0;
      this.nextCheck = 0;
    }
    this.position = position + totalLength;
    this.largestBatch = Math.max(this.largestBatch, totalLength);
    this.moving -= movedBytes;
    if (this.moving === 0) this.next.clear();
    this.credit += MOVED_PER_APPENDED * Math.max(0, totalLength - movedBytes);
    this.goOn();
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.step;
  }

  private goOn(): void {
    if (this.step !== undefined || this.stopped || this.failedIn === this.segment) return;
    if (this.parts.isFull()) return;
    // A step reads while the blocks of the last one are written.
    const room = this.maxMovingBytes - this.moving;
    if (room < this.minStepBytes) return;
    this.check();
    if (this.reach === 0) {
      this.credit = Math.min(this.credit, this.maxMovingBytes);
      return;
    }
    if (this.credit < this.minStepBytes) return;
    this.credit = Math.min(this.credit, this.maxMovingBytes);
    this.step = this.moveSome(Math.min(this.credit, room)).then(
      () => {
        this.step = undefined;
      },
      (error: unknown) => {
        this.step = undefined;
        this.failedIn = this.segment;
        if (this.stopped) return;
        this.parts.logger.error(
          { event: 'storage.rewrite-failed', error },
          'entries of an old segment could not be moved, so it is kept',
        );
      },
    );
  }

  private check(): void {
    if (this.position < this.nextCheck) return;
    const { segmentBytes } = this.options;
    // While something is moved, each step has changed what is left.
    if (this.reach === 0) this.nextCheck = this.position + segmentBytes / CHECKS_PER_SEGMENT;
    const bySegment = new Map<number, number>();
    for (const { index } of this.parts.groups()) index.addSegmentBytes(bySegment);
    const { segment, position } = this;
    const largestBatchBytes = Math.max(this.largestBatch, this.largestBatchBefore);
    const at = { segment, position, segmentBytes, largestBatchBytes };
    this.reach = segmentToReach(at, bySegment);
  }

  private async moveSome(maxBytes: number): Promise<void> {
    const reads = this.plan(maxBytes).map((range) => this.copy(range));
    for (const { log, generation, lastIndex, block } of (await Promise.all(reads)).flat()) {
      if (this.stopped) return;
      if (log.generation !== generation || lastIndex <= log.purged.index) continue;
      // Without room for it the log is busy, and comes back here.
      if (!this.parts.move(log, block)) return;
      this.next.set(log, lastIndex + 1);
      this.moving += block.length;
      this.movedBytes += block.length;
      this.credit -= block.length;
    }
  }

  /** An empty list when a truncation has overtaken it: what is left there is looked at again. */
  private async copy({ log, firstIndex, lastIndex }: Range): Promise<Copy[]> {
    const { generation } = log;
    const { maxBatchBytes } = this.options;
    const lease = await this.parts.read(log, firstIndex, lastIndex, maxBatchBytes);
    if (lease === undefined) return [];
    const block = lease.parts[0]!;
    lease.release();
    return [{ log, generation, lastIndex: lease.lastIndex, block }];
  }

  /** What comes next, of about so many bytes, in ranges that fit into a batch unless entries differ much. */
  private plan(maxBytes: number): Range[] {
    const ranges: Range[] = [];
    const rangeBytes = this.options.maxBatchBytes * RANGE_SHARE;
    let left = maxBytes;
    for (const log of this.oldestLogs()) {
      const from = this.next.get(log);
      let run = from === undefined ? log.index.oldestRun : log.index.runOf(from);
      let next = from ?? 0;
      for (let runs = 0; run !== undefined && runs < MAX_STEP_RANGES; ) {
        if (left <= 0 || ranges.length === MAX_STEP_RANGES) return ranges;
        const range = this.toMove(log, run, next);
        if (range === undefined) {
          next = run.lastIndex + 1;
        } else {
          const { firstIndex } = range;
          const entryBytes = run.bytes / (run.lastIndex - run.firstIndex + 1);
          const fitting = Math.max(1, Math.floor(Math.min(left, rangeBytes) / entryBytes));
          const lastIndex = Math.min(range.lastIndex, firstIndex + fitting - 1);
          ranges.push({ log, firstIndex, lastIndex });
          left -= (lastIndex - firstIndex + 1) * entryBytes;
          next = lastIndex + 1;
        }
        if (next <= run.lastIndex) continue;
        run = log.index.runOf(next);
        runs++;
      }
    }
    return ranges;
  }

  /** Those of which something has to be moved, the ones with the lowest segments first. */
  private oldestLogs(): GroupLog[] {
    const logs: GroupLog[] = [];
    for (const log of this.parts.groups()) {
      // Until the index has forgotten what was cut off, it would be read as what the log has there now.
      if (log.truncationPending) continue;
      if (log.index.oldestSegment < this.reach) logs.push(log);
    }
    return logs.sort((left, right) => left.index.oldestSegment - right.index.oldestSegment);
  }

  /** What has to be moved of a run, from an index on. */
  private toMove(log: GroupLog, run: SegmentRun, from: LogIndex): Range | undefined {
    if (run.segment >= this.reach) return undefined;
    // The index does not know yet what was cut off since.
    const firstIndex = Math.max(run.firstIndex, log.purged.index + 1, from);
    const last = Math.min(run.lastIndex, log.lastIndex);
    if (firstIndex > last) return undefined;
    return { log, firstIndex, lastIndex: log.termRuns.lastReadable(firstIndex, last) };
  }
}
