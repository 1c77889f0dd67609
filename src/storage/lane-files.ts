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
import type { DiskUse } from './disk-use.js';
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
  /** What the lane has taken and not yet written. */
  readonly queuedBytes: () => number;
  /** Of all lanes of the store. */
  readonly diskUse: DiskUse;
  /** The disk is full: who waits for room is to be told. */
  readonly filled: () => void;
  /** The disk was full, and has room again. */
  readonly roomy: () => void;
}

export class LaneFiles {
  private readonly options: LaneFilesOptions;
  private readonly executor: StorageExecutor;
  private readonly logs: LaneLogs;
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
    this.logs = logs;
    const { directory, lane, segmentBytes, maxBatchBytes } = options;
    this.spare = new SpareSegment(options, {
      executor,
      logger,
      take: (bytes) => this.space.take(bytes),
    });
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
      { directory, lane, segmentBytes, maxBatchBytes },
      {
        executor,
        scheduler,
        logger,
        filled: () => {
          this.rewrite.filled();
          logs.filled();
        },
        groups: logs.groups,
        queuedBytes: logs.queuedBytes,
        use: logs.diskUse,
        roomy: () => {
          this.rewrite.goOn();
          logs.roomy();
        },
        makeRoom: () => {
          const begin = this.rewrite.stillFull();
          if (begin || this.canGiveUp()) logs.roll();
        },
      },
    );
    this.rewrite = new SegmentRewrite(options, {
      ...logs,
      logger,
      files: () => this.retired.files,
      isBehind: () => this.retired.isBehind,
      isFull: () => this.space.full,
      admitsMove: (bytes) => this.space.admitsMove(bytes),
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

  /** Whether the disk has room for so many bytes of entries more. */
  hasRoom(bytes: number): boolean {
    return this.space.admits(bytes);
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

  /** A segment that is begun gives up others, with more in them than it takes itself. */
  private canGiveUp(): boolean {
    const { newest, oldestNamed } = this.retired;
    const { oldest } = this.logs.usage;
    // Its header names the one that is left for it, which the header behind that gives up.
    if (oldest > newest && this.space.isWorth('newest')) return true;
    if (oldestNamed < newest - 1) return oldest > oldestNamed;
    return oldestNamed < newest && oldest > oldestNamed && this.space.isWorth('before');
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
