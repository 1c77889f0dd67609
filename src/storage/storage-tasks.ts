/**
 * The tasks that read the log or prepare files, as plain data, and the object that runs them in
 * whatever thread. Every task names the shared memory it may use; only one task runs at a time.
 */

import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk, DiskFile } from './disk.js';
import type { Inspection, InspectTask } from './lane-inspection.js';
import { inspectLane } from './lane-inspection.js';
import {
  createSparse,
  listSpares,
  removeOnFailure,
  segmentPath,
  sparePath,
  type Zeros,
  zeroFill,
} from './segment-file.js';
import type { GatherTask, ReadTask, ReadTaskResult } from './segment-reader.js';
import { SegmentReader } from './segment-reader.js';
import type { ScanResult, ScanTask } from './segment-scan.js';
import { scanSegment } from './segment-scan.js';

export type StorageTask =
  | InspectTask
  | ScanTask
  | ReadTask
  | GatherTask
  | PrefillTask
  | RetireTask
  | SpaceTask;

export type StorageTaskResult<T extends StorageTask> = T extends InspectTask
  ? Inspection
  : T extends ScanTask
    ? ScanResult
    : T extends ReadTask
      ? ReadTaskResult
      : T extends GatherTask
        ? ReadTaskResult[]
        : T extends SpaceTask
          ? Space
          : number;

/**
 * Makes a slice of a spare file of the lane; the last slice gives the file its name. Answers how many
 * spare files there are.
 */
export interface PrefillTask {
  readonly type: 'prefill';
  readonly directory: string;
  readonly lane: number;
  /** How many write on the disk. */
  readonly lanes: number;
  readonly from: number;
  readonly to: number;
  readonly fileBytes: number;
  /** Fill it with zeros, where the disk has room; otherwise it stays a hole that reads as zero. */
  readonly zeroed: boolean;
  readonly zeros: Zeros;
  readonly direct: boolean;
}

/**
 * Gives up a segment that nothing needs any more: as a spare file, if it has the full length and most of its
 * blocks, and there are not as many as wanted already; spare files beyond that go, but for the one that the lane
 * may be taking. Answers how many there are.
 */
export interface RetireTask {
  readonly type: 'retire';
  readonly directory: string;
  readonly lane: number;
  readonly sequence: number;
  readonly segmentBytes: number;
  readonly maxSpares: number;
}

/** Asks what a lane may still write that has come so far. */
export interface SpaceTask {
  readonly type: 'space';
  readonly directory: string;
  readonly lane: number;
  readonly segment: number;
  readonly position: number;
  /** What a batch that does not fit may leave empty at the end of a file. */
  readonly wasteBytes: number;
}

/** Bytes that the lane may still write. */
export interface Space {
  /** Into blocks that its segment has already. */
  readonly blockBytes: number;
  /** Elsewhere: what the disk has free, or has when spare files are given back. */
  readonly freeBytes: number;
}

/** A flush of the log that comes meanwhile waits for one such write. */
const PREFILL_WRITE_BYTES = 128 * 1024;
/** Of its length. What was left early is a hole for the most part. */
const MIN_SPARE_BLOCKS = 1 / 2;

export class StorageTaskRunner {
  private readonly memory: SharedHeap;
  private readonly disk: Disk;
  private readonly reader: SegmentReader;

  constructor(memory: SharedHeap, disk: Disk) {
    this.memory = memory;
    this.disk = disk;
    this.reader = new SegmentReader(memory, disk);
  }

  run<T extends StorageTask>(task: T): StorageTaskResult<T> {
    return this.dispatch(task) as StorageTaskResult<T>;
  }

  close(): void {
    this.reader.close();
  }

  private dispatch(task: StorageTask): StorageTaskResult<StorageTask> {
    switch (task.type) {
      case 'inspect':
        return inspectLane(this.memory, this.disk, task);
      case 'scan':
        return scanSegment(this.memory, this.disk, task);
      case 'read':
        return this.reader.read(task);
      case 'gather':
        return this.reader.gather(task);
      case 'prefill':
        return prefill(this.memory, this.disk, task);
      case 'space':
        return spaceOf(this.disk, task);
      case 'retire':
        this.reader.forget(segmentPath(task.directory, task.lane, task.sequence));
        return retire(this.disk, task);
    }
  }
}

function spaceOf(disk: Disk, task: SpaceTask): Space {
  const { directory, lane, segment, position, wasteBytes } = task;
  let freeBytes = disk.freeBytes(directory);
  for (const sequence of listSpares(disk, directory, lane)) {
    const path = sparePath(directory, lane, sequence);
    const blockBytes = withFile(disk, path, (file) => file.blockBytes());
    freeBytes += Math.max(0, blockBytes - wasteBytes);
  }
  const path = segmentPath(directory, lane, segment);
  const blockBytes = withFile(disk, path, (file) => file.blockBytes());
  return { blockBytes: Math.max(0, blockBytes - position - wasteBytes), freeBytes };
}

function retire(disk: Disk, task: RetireTask): number {
  const { directory, lane, sequence, segmentBytes } = task;
  const path = segmentPath(directory, lane, sequence);
  // It is gone already when only the sync failed the last time.
  if (disk.exists(path)) {
    const useful = withFile(disk, path, (file) => {
      return file.size() === segmentBytes && file.blockBytes() >= MIN_SPARE_BLOCKS * segmentBytes;
    });
    if (useful && listSpares(disk, directory, lane).length < task.maxSpares) {
      disk.rename(path, sparePath(directory, lane, sequence));
    } else {
      disk.remove(path);
    }
  }
  // The lane takes the last one first, whatever happens here meanwhile.
  const spares = listSpares(disk, directory, lane);
  for (const spare of spares.slice(0, Math.max(0, spares.length - Math.max(1, task.maxSpares)))) {
    disk.remove(sparePath(directory, lane, spare));
  }
  disk.syncDirectory(directory);
  return listSpares(disk, directory, lane).length;
}

function withFile<T>(disk: Disk, path: string, use: (file: DiskFile) => T): T {
  const file = disk.open(path, { access: 'read' });
  try {
    return use(file);
  } finally {
    file.close();
  }
}

function prefill(memory: SharedHeap, disk: Disk, task: PrefillTask): number {
  const spare = sparePath(task.directory, task.lane, 0);
  const temporary = `${spare}.tmp`;
  const { from, to, fileBytes, directory, lanes } = task;
  removeOnFailure(disk, temporary, () => {
    if (from === 0) createSparse(disk, temporary, fileBytes);
    // The segments that lanes write may be holes: the last room is for these, not for zeros.
    if (task.zeroed && disk.freeBytes(directory) >= to - from + lanes * fileBytes) {
      const bytes = Math.min(task.zeros.bytes, PREFILL_WRITE_BYTES);
      const zeros = memory.slice(task.zeros.pointer, bytes);
      zeroFill(disk, temporary, zeros, task.direct, from, to);
    }
    if (to === fileBytes) disk.rename(temporary, spare);
  });
  if (to === fileBytes) disk.syncDirectory(directory);
  return listSpares(disk, directory, task.lane).length;
}
