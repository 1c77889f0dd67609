/**
 * The file of the next segment, made ahead of time beside the log, unless one is there: what the log
 * does not need any more comes back as a spare file (see retired-segments.ts).
 *
 * A write into blocks that the file has already is synced without a journal entry of the file system.
 * So the file is filled with zeros, in small slices, as far behind the log as will bring it to its end
 * in time: a flush that meets a slice waits for it, and meets few.
 *
 * Zeros cost the disk as many bytes as the log itself, and a journal entry costs a flush the same
 * whatever its size. So while flushes are large the rest of the file stays a hole: the disk is better
 * used for the log.
 */
import type { Logger } from '../base/logger.js';
import type { BatchPlace } from './lane-writer.js';
import type { Zeros } from './segment-file.js';
import type { StorageExecutor } from './storage-executor.js';

/** Bytes of a flush from which on the zeros cost more than they save. */
const LARGE_FLUSH_BYTES = 32 * 1024;
const SLICE_BYTES = 256 * 1024;
/** Shares of the log's segment: where the file is begun, once it shows what flushes are like, and done. */
const BEGIN = 1 / 8;
const END = 7 / 8;

export interface SpareSegmentOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  /** How many write on the disk. */
  readonly lanes: number;
  readonly segmentBytes: number;
  readonly direct: boolean;
  readonly zeros: Zeros;
}

export interface SpareSegmentParts {
  readonly executor: StorageExecutor;
  readonly logger: Logger;
  /** See `SpaceWatch.take`. */
  readonly take: (bytes: number) => boolean;
}

export class SpareSegment {
  private readonly options: SpareSegmentOptions;
  private readonly parts: SpareSegmentParts;
  /** The segment that the log writes, and what it has written of it. */
  private segment = 0;
  private flushes = 0;
  private position = 0;
  /** Files that wait for the lane. */
  private waiting = 0;
  /** Bytes that are done of the file being made. */
  private made = 0;
  private slice: Promise<void> | undefined;
  /** While the log writes that segment nothing more is tried. */
  private failedIn = 0;
  private stopped = false;

  constructor(options: SpareSegmentOptions, parts: SpareSegmentParts) {
    this.options = options;
    this.parts = parts;
  }

  /** A batch is durable there. */
  written(place: BatchPlace): void {
    if (place.segment !== this.segment) {
      this.segment = place.segment;
      this.flushes = 0;
      // It was taken for this segment.
      if (this.waiting > 0) this.waiting--;
    }
    this.flushes++;
    this.position = place.position + place.totalLength;
    this.goOn();
  }

  /** So many files wait for the lane now. */
  available(count: number): void {
    this.waiting = count;
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.slice;
  }

  private goOn(): void {
    if (this.slice !== undefined || this.stopped || this.failedIn === this.segment) return;
    if (this.waiting > 0 || this.made >= this.due()) return;
    const { segmentBytes: fileBytes, ...base } = this.options;
    const from = this.made;
    const large = this.position / this.flushes >= LARGE_FLUSH_BYTES;
    const to = large ? fileBytes : Math.min(from + SLICE_BYTES, fileBytes);
    const zeroed = !large && this.parts.take(to - from);
    this.slice = this.parts.executor
      .run({ type: 'prefill', ...base, fileBytes, from, to, zeroed })
      .then(
        (spares) => {
          this.made = to < fileBytes ? to : 0;
          this.waiting = spares;
        },
        (error: unknown) => {
          // The lane makes its next file itself, and fails if it cannot.
          this.made = 0;
          this.failedIn = this.segment;
          this.parts.logger.warn(
            { event: 'storage.prefill-failed', error },
            'no file was made ahead of time',
          );
        },
      )
      .then(() => {
        this.slice = undefined;
        this.goOn();
      });
  }

  /** Bytes that should be done by now, for the file to be whole before the log needs it. */
  private due(): number {
    const { segmentBytes } = this.options;
    const done = (this.position / segmentBytes - BEGIN) / (END - BEGIN);
    return Math.min(1, done) * segmentBytes;
  }
}
