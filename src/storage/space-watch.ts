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
 * comes to none by itself, so it is told to begin one.
 */
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { BatchPlace } from './lane-writer.js';
import type { StorageExecutor } from './storage-executor.js';

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
  /** Begins a segment if that gives up others. */
  readonly makeRoom: () => void;
  /** There is room again. */
  readonly roomy: () => void;
}

export class SpaceWatch {
  full = false;
  private readonly options: SpaceWatchOptions;
  private readonly parts: SpaceWatchParts;
  private segment = 0;
  private nextCheck = 0;
  private check: Promise<void> | undefined;
  private timer: Timer | undefined;
  private stopped = false;

  constructor(options: SpaceWatchOptions, parts: SpaceWatchParts) {
    this.options = options;
    this.parts = parts;
  }

  /** The lane has begun; resolves when it is known whether the disk is full. */
  async begin(): Promise<void> {
    this.look();
    await this.check;
  }

  /** A batch is durable there. */
  written({ segment, position, totalLength }: BatchPlace): void {
    const end = position + totalLength;
    if (segment === this.segment && end < this.nextCheck) return;
    this.segment = segment;
    this.nextCheck = end + this.options.segmentBytes * CHECK;
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
    const { directory, lane, segmentBytes } = this.options;
    this.check = this.parts.executor
      .run({ type: 'space', directory, lane, segmentBytes })
      .then(
        (room) => this.note(room),
        (error: unknown) => {
          // The lane finds out by itself.
          this.parts.logger.warn(
            { event: 'storage.space-unknown', error },
            'the disk does not tell how much room it has',
          );
        },
      )
      .then(() => {
        this.check = undefined;
      });
  }

  private note(room: number): void {
    if (this.stopped) return;
    const { lanes, segmentBytes, directory } = this.options;
    const { logger, scheduler } = this.parts;
    if (!this.full && room < lanes * segmentBytes * KEPT) {
      this.full = true;
      logger.error(
        { event: 'storage.full', directory, room },
        'the disk has no room for more entries: they are refused until it has',
      );
    } else if (this.full && room >= lanes * segmentBytes) {
      this.full = false;
      logger.info({ event: 'storage.roomy', directory, room }, 'the disk has room again');
      this.parts.roomy();
    }
    if (!this.full) return;
    this.parts.makeRoom();
    this.timer?.cancel();
    this.timer = scheduler.setTimer(RETRY_MS, () => this.look());
  }
}
