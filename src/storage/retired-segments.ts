/**
 * Which segment files of a lane nothing needs any more, and their way out: they become spare files for
 * the segments to come, or go.
 *
 * A segment is given up when a durable header names an older one no longer, and only in order: what
 * recovery finds is the oldest segment that the newest header names, and all behind it. While a read is
 * under way its files stay.
 */
import type { Logger } from '../base/logger.js';
import type { SegmentSize } from './lane-space.js';
import type { StorageExecutor } from './storage-executor.js';

/** So many go before the log begins another, if there are any: so there are fewer and fewer. */
const GONE_PER_SEGMENT = 2;

export interface RetiredSegmentsOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  readonly segmentBytes: number;
}

export interface RetiredSegmentsParts {
  /** The oldest segment that a reader needs. */
  readonly oldestRead: () => number;
  /** How many spare files a lane may keep whose segments take up so much. */
  readonly maxSpares: (usedBytes: number) => number;
  /** How many spare files there are now. */
  readonly spares: (count: number) => void;
  /** A segment has gone, or could not. */
  readonly tried: () => void;
}

export class RetiredSegments {
  /** How many were given up. */
  retired = 0;
  private readonly options: RetiredSegmentsOptions;
  private readonly executor: StorageExecutor;
  private readonly logger: Logger;
  private readonly parts: RetiredSegmentsParts;
  /** All segment files, ascending. */
  files: SegmentSize[] = [];
  /** As the header of the newest segment says. */
  oldestNamed = 0;
  /** The same, but 0 while nothing is tried. */
  private oldestNeeded = 0;
  private underWay: Promise<void> | undefined;
  private retiredAtRoll = 0;
  private stopped = false;

  constructor(
    options: RetiredSegmentsOptions,
    executor: StorageExecutor,
    logger: Logger,
    parts: RetiredSegmentsParts,
  ) {
    this.options = options;
    this.executor = executor;
    this.logger = logger;
    this.parts = parts;
  }

  /** The segment that the log is written to. */
  get newest(): number {
    return this.files[this.files.length - 1]?.sequence ?? 0;
  }

  /** A file is going, and fewer have gone than should before the log begins another segment. */
  get isBehind(): boolean {
    return this.underWay !== undefined && this.retired - this.retiredAtRoll < GONE_PER_SEGMENT;
  }

  /** The first segment of this run is durable, and its header names that one as the oldest. */
  begin(files: readonly SegmentSize[], first: number, oldestSegment: number): void {
    this.files = files.filter(({ sequence }) => sequence < first);
    this.written(first, oldestSegment);
  }

  /** The log is written to a segment whose header, if it is new, names that one as the oldest. */
  written(segment: number, oldestSegment: number): void {
    if (segment === this.newest) return;
    this.files.push({ sequence: segment, bytes: this.options.segmentBytes });
    this.oldestNamed = oldestSegment;
    this.oldestNeeded = oldestSegment;
    this.retiredAtRoll = this.retired;
    this.goOn();
  }

  /** A read is done. */
  goOn(): void {
    if (this.underWay !== undefined || this.stopped || this.files.length === 0) return;
    const { sequence } = this.files[0]!;
    if (sequence >= Math.min(this.oldestNeeded, this.parts.oldestRead())) return;
    let usedBytes = 0;
    for (const file of this.files) if (file.sequence >= this.oldestNeeded) usedBytes += file.bytes;
    const maxSpares = this.parts.maxSpares(usedBytes);
    this.underWay = this.executor
      .run({ type: 'retire', ...this.options, sequence, maxSpares })
      .then(
        (spares) => {
          this.files.shift();
          this.retired++;
          this.parts.spares(spares);
        },
        (error: unknown) => {
          // The file is tried again when the log has come to its next segment.
          this.oldestNeeded = 0;
          this.logger.warn(
            { event: 'storage.retire-failed', error },
            'a segment that is needed no more could not be given up',
          );
        },
      )
      .then(() => {
        this.underWay = undefined;
        this.goOn();
        this.parts.tried();
      });
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.underWay;
  }
}
