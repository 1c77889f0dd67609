/**
 * Watches how much room the disk has for a lane. The last half of a segment for each lane is kept for what is
 * never refused: votes, truncations, purges, the entries of a log itself, and the segment that a start makes. So
 * a disk that the log has filled can be opened, and a node on it goes on to vote, to answer and to purge.
 *
 * ```
 * room < 1/2 segment ─▶ full: entries are refused ─▶ asked again every second ─▶ room ≥ 1 segment (× lanes)
 * ```
 *
 * Segments that nothing needs any more are given up only once the header of a new one says so. A full log
 * comes to none by itself, so it is told to begin one. So is one that writes a hole which the disk cannot fill,
 * while spare files wait behind it.
 */
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { BatchPlace } from './lane-writer.js';
import type { StorageExecutor } from './storage-executor.js';
import type { Space } from './storage-tasks.js';

/** Shares of a segment: what is kept for each lane, and how often it is looked at. */
const KEPT = 1 / 2;
const CHECK = 1 / 8;
const RETRY_MS = 1_000;

export interface SpaceWatchOptions {
  /** The folder of the segments. */
  readonly directory: string;
  readonly lane: number;
  /** How many write on the disk. */
  readonly lanes: number;
  readonly segmentBytes: number;
}

export interface SpaceWatchParts {
  readonly executor: StorageExecutor;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  /** Begins a segment. */
  readonly roll: () => void;
  /** The same if that gives up others. */
  readonly makeRoom: () => void;
  /** There is none. */
  readonly filled: () => void;
  /** There is room again. */
  readonly roomy: () => void;
}

export class SpaceWatch {
  full = false;
  private readonly options: SpaceWatchOptions;
  private readonly parts: SpaceWatchParts;
  private segment = 0;
  private position = 0;
  private nextCheck = 0;
  private check: Promise<void> | undefined;
  private timer: Timer | undefined;
  private stopped = false;

  constructor(options: SpaceWatchOptions, parts: SpaceWatchParts) {
    this.options = options;
    this.parts = parts;
  }

  /** The lane has begun, with that segment; resolves when it is known whether the disk is full. */
  async begin(segment: number): Promise<void> {
    this.segment = segment;
    this.look();
    await this.check;
  }

  /** A batch is durable there. */
  written({ segment, position, totalLength }: BatchPlace): void {
    this.position = position + totalLength;
    if (segment === this.segment && this.position < this.nextCheck) return;
    this.segment = segment;
    this.nextCheck = this.position + this.options.segmentBytes * CHECK;
    this.look();
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.timer?.cancel();
    await this.check;
  }

  private look(): void {
    if (this.check !== undefined || this.stopped) return;
    const { segment, position } = this;
    this.check = this.parts.executor
      .run({ type: 'space', ...this.options, segment, position })
      .then(
        (space) => {
          this.check = undefined;
          // It tells nothing of a segment that was begun since.
          if (segment === this.segment) this.note(space);
          else this.look();
        },
        (error: unknown) => {
          this.check = undefined;
          // The lane finds out by itself.
          this.parts.logger.warn(
            { event: 'storage.space-unknown', error },
            'the disk does not tell how much room it has',
          );
          this.lookLater();
        },
      );
  }

  private note({ room, roomBehind }: Space): void {
    if (this.stopped) return;
    const { lanes, segmentBytes, directory } = this.options;
    const { logger } = this.parts;
    const keptBytes = lanes * segmentBytes * KEPT;
    const stranded = room < keptBytes && roomBehind >= keptBytes;
    if (!this.full && room < keptBytes && !stranded) {
      this.full = true;
      logger.error(
        { event: 'storage.full', directory, room },
        'the disk has no room for more entries: they are refused until it has',
      );
      this.parts.filled();
    } else if (this.full && room >= lanes * segmentBytes) {
      this.full = false;
      logger.info({ event: 'storage.roomy', directory, room }, 'the disk has room again');
      this.parts.roomy();
    }
    if (stranded) {
      // Each takes a spare file, so one is enough until the log has begun it.
      this.nextCheck = Number.POSITIVE_INFINITY;
      this.parts.roll();
    } else if (this.full) {
      this.parts.makeRoom();
    }
    if (this.full) this.lookLater();
  }

  private lookLater(): void {
    if (this.stopped) return;
    this.timer?.cancel();
    this.timer = this.parts.scheduler.setTimer(RETRY_MS, () => this.look());
  }
}
