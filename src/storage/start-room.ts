/**
 * Keeps the room that a start needs; lives in the lane's thread, where it is known what is written next.
 *
 * Spare files are room as well, but not for a segment that is a hole: when free bytes run low, they are given
 * back to the disk.
 */
import { KeelsonError } from '../base/errors.js';
import type { Disk } from './disk.js';
import { listSpares, sparePath } from './segment-file.js';

/** Of a segment: the disk is not asked before each batch, and what others take meanwhile is not seen. */
const UNASKED = 1 / 64;

/**
 * Less than a lane ever leaves: others have filled the disk, and nothing is left to be kept. Whether a batch fits
 * where it has blocks already, the disk itself says.
 */
const GONE_BYTES = 8 * 1024;

export interface StartRoomOptions {
  readonly directory: string;
  readonly lane: number;
  /** How many write on the disk. */
  readonly lanes: number;
  readonly segmentBytes: number;
}

export class StartRoom {
  private readonly disk: Disk;
  private readonly directory: string;
  private readonly lane: number;
  private readonly lanes: number;
  private readonly maxUnaskedBytes: number;
  /** As the disk said, less what was claimed since. */
  private freeBytes = 0;
  private unaskedBytes = 0;

  constructor(disk: Disk, { directory, lane, lanes, segmentBytes }: StartRoomOptions) {
    this.maxUnaskedBytes = segmentBytes * UNASKED;
    this.disk = disk;
    this.directory = directory;
    this.lane = lane;
    this.lanes = lanes;
  }

  /**
   * A batch of `totalLength` takes so many bytes of the disk now.
   * @throws KeelsonError STORAGE_FULL when fewer than `keptBytes` would be left; nothing was written then.
   */
  claim(totalLength: number, bytes: number, keptBytes: number): void {
    const unasked = totalLength <= this.unaskedBytes && this.freeBytes - bytes >= keptBytes;
    if (!unasked) this.ask(bytes + keptBytes);
    const gone = this.freeBytes < GONE_BYTES;
    this.freeBytes -= bytes;
    this.unaskedBytes -= totalLength;
    if (!gone && this.freeBytes < keptBytes) throw this.full();
    this.unaskedBytes = Math.min(this.unaskedBytes, (this.freeBytes - keptBytes) / 2 / this.lanes);
  }

  private ask(neededBytes: number): void {
    this.freeBytes = this.disk.freeBytes(this.directory);
    while (this.freeBytes < neededBytes && this.giveBackSpare()) {
      this.freeBytes = this.disk.freeBytes(this.directory);
    }
    this.unaskedBytes = this.maxUnaskedBytes;
  }

  private giveBackSpare(): boolean {
    const [spare] = listSpares(this.disk, this.directory, this.lane);
    if (spare === undefined) return false;
    const path = sparePath(this.directory, this.lane, spare);
    try {
      this.disk.remove(path);
    } catch (error) {
      // Whoever makes and retires files may have been faster.
      if (this.disk.exists(path)) throw error;
    }
    this.disk.syncDirectory(this.directory);
    return true;
  }

  private full(): KeelsonError {
    const { directory } = this;
    return new KeelsonError(
      'KEELSON_STORAGE_FULL',
      `The disk of ${directory} is full: what is left is kept for a start. Free space, then open the store again.`,
      { outcome: 'unknown', details: { directory } },
    );
  }
}
