/**
 * First step of recovery: which segments a lane has, what their headers and checkpoints say. Removes
 * its temporary files that a crash left behind; they never held anything that was acknowledged. Makes the
 * names durable that it has found.
 */
import { invariant } from '../base/assert.js';
import { SECTOR_BYTES } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk } from './disk.js';
import type { GroupCheckpoint } from './hard-state.js';
import { makeDirectories } from './make-directories.js';
import type { SegmentHeader } from './segment-file.js';
import {
  isTemporaryName,
  laneOf,
  listSegments,
  listSpares,
  readCheckpoints,
  readSegmentHeader,
  segmentPath,
} from './segment-file.js';

export interface InspectTask {
  readonly type: 'inspect';
  readonly directory: string;
  readonly lane: number;
  readonly scratch: number;
  readonly scratchBytes: number;
}

export interface Inspection {
  /** Ascending by sequence. */
  readonly segments: readonly InspectedSegment[];
  /** How many files wait to become one. */
  readonly spares: number;
}

export interface InspectedSegment {
  readonly sequence: number;
  readonly path: string;
  readonly fileBytes: number;
  /** Undefined when it does not verify. */
  readonly header: SegmentHeader | undefined;
  /** Set when the header is sound but of a format newer than this program. */
  readonly newerVersion: number | undefined;
  /** Undefined when a record of it does not verify. */
  readonly checkpoint: readonly GroupCheckpoint[] | undefined;
}

export function inspectLane(memory: SharedHeap, disk: Disk, task: InspectTask): Inspection {
  const { directory, lane } = task;
  makeDirectories(disk, directory);
  for (const name of disk.list(directory)) {
    if (isTemporaryName(name) && laneOf(name) === lane) disk.remove(`${directory}/${name}`);
  }
  // One that a killed process has left may be lost yet, while that of the segment to come is not.
  disk.syncDirectory(directory);
  const segments = listSegments(disk, directory, lane).map((sequence) =>
    inspectSegment(memory, disk, task, sequence),
  );
  return { segments, spares: listSpares(disk, directory, lane).length };
}

/** Reads header and checkpoint, and changes nothing. */
export function inspectSegment(
  memory: SharedHeap,
  disk: Disk,
  task: InspectTask,
  sequence: number,
): InspectedSegment {
  const path = segmentPath(task.directory, task.lane, sequence);
  const file = disk.open(path, { access: 'read' });
  try {
    const fileBytes = file.size();
    // The last sector of the scratch memory takes checksums, the rest takes what is read.
    const sums = task.scratch + task.scratchBytes - SECTOR_BYTES;
    const room = task.scratchBytes - SECTOR_BYTES;
    const base = { sequence, path, fileBytes };
    const read = file.read(memory.bytes.subarray(task.scratch, task.scratch + SECTOR_BYTES), 0);
    const reading =
      read === SECTOR_BYTES
        ? readSegmentHeader(memory, task.scratch, sums)
        : ({ ok: false, newerVersion: undefined } as const);
    if (!reading.ok || reading.header.sequence !== sequence || reading.header.lane !== task.lane) {
      return {
        ...base,
        header: undefined,
        newerVersion: reading.ok ? undefined : reading.newerVersion,
        checkpoint: undefined,
      };
    }
    const { header } = reading;
    const length = header.dataStart - SECTOR_BYTES;
    invariant(length <= room, 'a checkpoint fits into the memory of recovery');
    const view = memory.bytes.subarray(task.scratch, task.scratch + length);
    const complete = file.read(view, SECTOR_BYTES) === length;
    return {
      ...base,
      header,
      newerVersion: undefined,
      checkpoint: complete ? readCheckpoints(memory, task.scratch, header.groups, sums) : undefined,
    };
  } finally {
    file.close();
  }
}
