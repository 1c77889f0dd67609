/**
 * Which segment files of a lane nothing needs any more, and their way out: they become spare files for
 * the segments to come, or go.
 *
 * A segment is given up when a durable header names an older one no longer, and only in order: what
 * recovery finds is the oldest segment that the newest header names, and all behind it. While a read is
 * under way its files stay.
 */
import type { Logger } from '../base/logger.js';
import type { StorageExecutor } from './storage-executor.js';

export interface RetiredSegmentsOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  readonly segmentBytes: number;
}

export interface RetiredSegmentsParts {
  /** The oldest segment that a reader needs. */
  readonly oldestRead: () => number;
  /** How many spare files a lane may keep that has so many segments. */
  readonly maxSpares: (segments: number) => number;
  /** How many spare files there are now. */
  readonly spares: (count: number) => void;
}

export class RetiredSegments {
  /** How many were given up. */
  retired = 0;
  private readonly options: RetiredSegmentsOptions;
  private readonly executor: StorageExecutor;
  private readonly logger: Logger;
  private readonly parts: RetiredSegmentsParts;
  /** All segment files, ascending. */
  private files: number[] = [];
  /** As the header of the newest segment says. */
  oldestNamed = 0;
  /** The same, but 0 while nothing is tried. */
  private oldestNeeded = 0;
  private underWay: Promise<void> | undefined;
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
    return this.files[this.files.length - 1] ?? 0;
  }

  /** The first segment of this run is durable, and its header names that one as the oldest. */
  begin(files: readonly number[], first: number, oldestSegment: number): void {
    this.files = [...files.filter((sequence) => sequence < first), first];
    this.oldestNamed = oldestSegment;
    this.oldestNeeded = oldestSegment;
    this.goOn();
  }

  /** The log is written to a segment whose header, if it is new, names that one as the oldest. */
  written(segment: number, oldestSegment: number): void {
    if (segment === this.files[this.files.length - 1]) return;
    this.files.push(segment);
    this.oldestNamed = oldestSegment;
    this.oldestNeeded = oldestSegment;
    this.goOn();
  }

  /** A read is done. */
  goOn(): void {
    const [oldest] = this.files;
    if (this.underWay !== undefined || this.stopped || oldest === undefined) return;
    if (oldest >= Math.min(this.oldestNeeded, this.parts.oldestRead())) return;
    const maxSpares = this.parts.maxSpares(this.newest - this.oldestNeeded + 1);
    this.underWay = this.executor
      .run({ type: 'retire', ...this.options, sequence: oldest, maxSpares })
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
      });
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.underWay;
  }
}
