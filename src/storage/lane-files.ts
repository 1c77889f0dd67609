/**
 * The segment files of a lane beside the one that is written: what is made for the time to come, what is
 * read, what is moved out of the oldest, and what is given up.
 *
 * ```
 * spare file ─▶ [segment being written] ─▶ read as long as a log needs it ─▶ retired: a spare file again
 *                          ↑ moved: what is left of the oldest ──┘
 * ```
 */
import { invariant } from '../base/assert.js';
import type { Logger } from '../base/logger.js';
import type { LogIndex } from '../engine/types.js';
import type { GroupLog } from './group-log.js';
import type { WrittenBatch } from './lane-log.js';
import { maxSpares, totalBytes } from './lane-space.js';
import type { BatchPlace } from './lane-writer.js';
import type { EntriesLease } from './log-store.js';
import type { RecoveredLane } from './recovery.js';
import { RetiredSegments } from './retired-segments.js';
import { SegmentReads, type SegmentReadsOptions } from './segment-reads.js';
import {
  SegmentRewrite,
  type SegmentRewriteOptions,
  type SegmentRewriteParts,
} from './segment-rewrite.js';
import { SpareSegment, type SpareSegmentOptions } from './spare-segment.js';
import type { StorageExecutor } from './storage-executor.js';

/** The memory that reads use. */
export type ReadMemory = Pick<SegmentReadsOptions, 'scratch' | 'scratchBytes' | 'summary'>;

export type LaneFilesOptions = SpareSegmentOptions & SegmentRewriteOptions;

/** The logs of the lane, and how a block of one is written once more. */
export type LaneLogs = Pick<SegmentRewriteParts, 'groups' | 'move'>;

export class LaneFiles {
  private readonly options: LaneFilesOptions;
  private readonly executor: StorageExecutor;
  private readonly logs: LaneLogs;
  private readonly spare: SpareSegment;
  private readonly retired: RetiredSegments;
  private readonly rewrite: SegmentRewrite;
  /** Set once the lane has begun. */
  private reads: SegmentReads | undefined;

  constructor(
    options: LaneFilesOptions,
    executor: StorageExecutor,
    logger: Logger,
    logs: LaneLogs,
  ) {
    this.options = options;
    this.executor = executor;
    this.logs = logs;
    const { directory, lane, segmentBytes } = options;
    this.spare = new SpareSegment(options, executor, logger);
    this.retired = new RetiredSegments({ directory, lane, segmentBytes }, executor, logger, {
      oldestRead: () => this.reads?.oldestSegment ?? 0,
      maxSpares: (count) => maxSpares(count, this.liveBytes(), segmentBytes),
      spares: (count) => this.spare.available(count),
    });
    this.rewrite = new SegmentRewrite(options, {
      ...logs,
      logger,
      read: (log, firstIndex, lastIndex, maxBytes) =>
        this.read(log, firstIndex, lastIndex, maxBytes),
    });
  }

  /** The segment that the log is written to. */
  get newest(): number {
    return this.retired.newest;
  }

  /** How many segments were given up. */
  get retiredSegments(): number {
    return this.retired.retired;
  }

  /** Bytes of blocks that were written once more. */
  get movedBytes(): number {
    return this.rewrite.movedBytes;
  }

  /** The first segment of this run is durable. `checkUsable` throws when reads have come to an end. */
  begin(
    { start, segments, spares }: RecoveredLane,
    memory: ReadMemory,
    checkUsable: () => void,
  ): void {
    this.beginReading(memory, checkUsable);
    // The first segment took one, if there was any.
    this.spare.available(Math.max(0, spares - 1));
    this.retired.begin(segments, start.sequence, start.oldestSegment);
    this.rewrite.begin(start.sequence);
  }

  /** The files are read, and stay as they are. */
  beginReading(memory: ReadMemory, checkUsable: () => void): void {
    const { directory, lane } = this.options;
    this.reads = new SegmentReads({ directory, lane, ...memory }, this.executor, checkUsable);
  }

  /** A batch is durable there. */
  written(place: BatchPlace, batch: WrittenBatch): void {
    this.spare.written(place);
    this.retired.written(place.segment, batch.oldestSegment);
    this.rewrite.written(place, batch);
  }

  /** See `SegmentReads.read`. */
  async read(
    log: GroupLog,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): Promise<EntriesLease | undefined> {
    const { reads } = this;
    invariant(reads !== undefined, 'the lane has begun');
    try {
      return await reads.read(log, firstIndex, lastIndex, maxBytes);
    } finally {
      this.retired.goOn();
    }
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    await Promise.all([this.spare.stop(), this.retired.stop(), this.rewrite.stop()]);
  }

  /** Bytes of entries that the logs have in segments. */
  private liveBytes(): number {
    const bySegment = new Map<number, number>();
    for (const { index } of this.logs.groups()) index.addSegmentBytes(bySegment);
    return totalBytes(bySegment);
  }
}
