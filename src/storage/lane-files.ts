/**
 * The segment files of a lane beside the one that is written: what is made for the time to come, what is
 * read, and what is given up.
 *
 * ```
 * spare file ─▶ [segment being written] ─▶ read as long as a log needs it ─▶ retired: a spare file again
 * ```
 */
import { invariant } from '../base/assert.js';
import type { Logger } from '../base/logger.js';
import type { LogIndex } from '../engine/types.js';
import type { GroupLog } from './group-log.js';
import type { BatchPlace } from './lane-writer.js';
import type { EntriesLease } from './log-store.js';
import type { RecoveredLane } from './recovery.js';
import { RetiredSegments } from './retired-segments.js';
import { SegmentReads, type SegmentReadsOptions } from './segment-reads.js';
import { SpareSegment, type SpareSegmentOptions } from './spare-segment.js';
import type { StorageExecutor } from './storage-executor.js';

/** The memory that reads use. */
export type ReadMemory = Pick<SegmentReadsOptions, 'scratch' | 'scratchBytes' | 'summary'>;

export class LaneFiles {
  private readonly options: SpareSegmentOptions;
  private readonly executor: StorageExecutor;
  private readonly spare: SpareSegment;
  private readonly retired: RetiredSegments;
  /** Set once the lane has begun. */
  private reads: SegmentReads | undefined;

  constructor(options: SpareSegmentOptions, executor: StorageExecutor, logger: Logger) {
    this.options = options;
    this.executor = executor;
    const { directory, lane, segmentBytes } = options;
    this.spare = new SpareSegment(options, executor, logger);
    this.retired = new RetiredSegments(
      { directory, lane, segmentBytes },
      executor,
      logger,
      () => this.reads?.oldestSegment ?? 0,
      (count) => this.spare.available(count),
    );
  }

  /** The segment that the log is written to. */
  get newest(): number {
    return this.retired.newest;
  }

  /** How many segments were given up. */
  get retiredSegments(): number {
    return this.retired.retired;
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
    this.retired.begin(segments);
    this.retired.written(start.sequence, start.oldestSegment);
  }

  /** The files are read, and stay as they are. */
  beginReading(memory: ReadMemory, checkUsable: () => void): void {
    const { directory, lane } = this.options;
    this.reads = new SegmentReads({ directory, lane, ...memory }, this.executor, checkUsable);
  }

  /** A batch is durable there; the header of its segment, if it is new, names that one as the oldest. */
  written(place: BatchPlace, oldestSegment: number): void {
    this.spare.written(place);
    this.retired.written(place.segment, oldestSegment);
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
    await Promise.all([this.spare.stop(), this.retired.stop()]);
  }
}
