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
import type { Scheduler } from '../base/scheduler.js';
import type { LogIndex } from '../engine/types.js';
import type { GroupLog } from './group-log.js';
import type { WrittenBatch } from './lane-log.js';
import { maxSpares } from './lane-space.js';
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
import { SpaceWatch } from './space-watch.js';
import { SpareSegment, type SpareSegmentOptions } from './spare-segment.js';
import type { StorageExecutor } from './storage-executor.js';

/** The memory that reads use. */
export type ReadMemory = Pick<SegmentReadsOptions, 'scratch' | 'scratchBytes' | 'summary'>;

export type LaneFilesOptions = SpareSegmentOptions & SegmentRewriteOptions;

/** The logs of the lane, how a block of one is written once more, and how a segment is begun. */
export interface LaneLogs
  extends Pick<SegmentRewriteParts, 'groups' | 'usage' | 'move' | 'admitting'> {
  readonly roll: () => void;
  /** The disk is full: who waits for room is to be told. */
  readonly filled: () => void;
  /** The disk was full, and has room again. */
  readonly roomy: () => void;
}

export class LaneFiles {
  private readonly options: LaneFilesOptions;
  private readonly executor: StorageExecutor;
  private readonly spare: SpareSegment;
  private readonly retired: RetiredSegments;
  private readonly rewrite: SegmentRewrite;
  private readonly space: SpaceWatch;
  /** Set once the lane is read. */
  private reads: SegmentReads | undefined;

  constructor(
    options: LaneFilesOptions,
    executor: StorageExecutor,
    logger: Logger,
    logs: LaneLogs,
    scheduler: Scheduler,
  ) {
    this.options = options;
    this.executor = executor;
    const { directory, lane, lanes, segmentBytes } = options;
    this.spare = new SpareSegment(options, executor, logger);
    this.retired = new RetiredSegments({ directory, lane, segmentBytes }, executor, logger, {
      oldestRead: () => this.reads?.oldestSegment ?? 0,
      // A full disk gets them back: the segment that is written may be a hole, and has no use for spare files.
      maxSpares: (usedBytes) => {
        if (this.space.full) return 0;
        const lowBytes = Math.min(this.rewrite.lowBytes, logs.usage.totalBytes());
        return maxSpares(usedBytes, lowBytes, segmentBytes);
      },
      spares: (count) => this.spare.available(count),
      tried: () => this.rewrite.filesChanged(),
    });
    this.space = new SpaceWatch(
      { directory, lane, lanes, segmentBytes },
      {
        executor,
        scheduler,
        logger,
        filled: () => {
          this.rewrite.filled();
          logs.filled();
        },
        roomy: () => {
          this.rewrite.goOn();
          logs.roomy();
        },
        roll: logs.roll,
        makeRoom: () => {
          const begin = this.rewrite.stillFull();
          if (begin || logs.usage.oldest > this.retired.oldestNamed) logs.roll();
        },
      },
    );
    this.rewrite = new SegmentRewrite(options, {
      ...logs,
      logger,
      files: () => this.retired.files,
      isBehind: () => this.retired.isBehind,
      isFull: () => this.space.full,
      read: (ranges, maxBytes) => this.reading((reads) => reads.gather(ranges, maxBytes)),
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

  /** The disk has no room for more entries. */
  get full(): boolean {
    return this.space.full;
  }

  /** Bytes of blocks that were written once more. */
  get movedBytes(): number {
    return this.rewrite.movedBytes;
  }

  /** The first segment of this run is durable; resolves when it is known whether the disk is full. */
  async begin({ start, segments, spares }: RecoveredLane): Promise<void> {
    // The first segment took one, if there was any.
    this.spare.available(Math.max(0, spares - 1));
    this.retired.begin(segments, start.sequence, start.oldestSegment);
    await this.space.begin(start.sequence);
    this.rewrite.begin(start.sequence);
  }

  /** The files are read from now on; `checkUsable` throws when that has come to an end. */
  beginReading(memory: ReadMemory, checkUsable: () => void): void {
    const { directory, lane } = this.options;
    this.reads = new SegmentReads({ directory, lane, ...memory }, this.executor, checkUsable);
  }

  /** A batch is durable there. */
  written(place: BatchPlace, batch: WrittenBatch): void {
    this.spare.written(place);
    this.retired.written(place.segment, batch.oldestSegment);
    this.rewrite.written(place, batch);
    // Behind what gives up a segment.
    this.space.written(place);
  }

  /** See `SegmentReads.read`. */
  read(
    log: GroupLog,
    firstIndex: LogIndex,
    lastIndex: LogIndex,
    maxBytes: number,
  ): Promise<EntriesLease | undefined> {
    return this.reading((reads) => reads.read(log, firstIndex, lastIndex, maxBytes));
  }

  /** Whether the lane has room for so many bytes that are not durable yet. */
  admits(bytes: number): boolean {
    return this.rewrite.admits(bytes);
  }

  /** Something that is to be moved waits for room in memory. */
  get movesWait(): boolean {
    return this.rewrite.waits;
  }

  /** There may be room again for what is moved. */
  goOn(): void {
    this.rewrite.goOn();
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    const { spare, retired, rewrite, space } = this;
    await Promise.all([spare.stop(), retired.stop(), rewrite.stop(), space.stop()]);
  }

  private async reading<T>(work: (reads: SegmentReads) => Promise<T>): Promise<T> {
    const { reads } = this;
    invariant(reads !== undefined, 'the lane is read');
    try {
      return await work(reads);
    } finally {
      this.retired.goOn();
    }
  }
}
