/**
 * Reads the files of a lane for a recovery that only looks: nothing is changed, and the lane may be in
 * use all the while.
 *
 * What is read is not of one moment then. A batch that was half written may have a valid one behind it by the
 * time that one is read; a segment may be given up, and its file be used again. Each looks like damage at a
 * place where the next pass meets none: see `verifyDirectory`.
 */
import { KeelsonError } from '../../base/errors.js';
import { BlockCodec } from '../../wasm/block-codec.js';
import { SECTOR_BYTES } from '../../wasm/layout.js';
import type { SharedHeap } from '../../wasm/shared-heap.js';
import type { Disk } from '../disk.js';
import type { InspectedSegment, Inspection, InspectTask } from '../lane-inspection.js';
import { inspectSegment } from '../lane-inspection.js';
import { alignToSector } from '../sector.js';
import { listSegments, listSpares, segmentPath } from '../segment-file.js';
import type { ScanResult, ScanTask } from '../segment-scan.js';
import { scanSegment } from '../segment-scan.js';
import type { ReportDamage } from '../sound-segments.js';
import type { StorageTask, StorageTaskResult } from '../storage-tasks.js';
import { type DamagedBlock, findDamagedBlocks } from './damaged-blocks.js';

/** What was found in one segment. */
export interface ReadSegment {
  readonly batches: number;
  readonly entries: number;
  /** Position behind the last valid batch. */
  readonly end: number;
}

/** Room for a header, a checkpoint of many groups, and checksums. */
const MIN_SCRATCH_BYTES = 4 * 1024 * 1024;

export class LaneReading {
  /** As listed, ascending. */
  segments: readonly InspectedSegment[] = [];
  readonly read: Map<string, ReadSegment> = new Map();
  private readonly heap: SharedHeap;
  private readonly disk: Disk;
  private readonly report: ReportDamage;
  private readonly summary: number;
  private scratch: number;
  private scratchBytes: number = MIN_SCRATCH_BYTES;
  /** What stands in the scratch memory, from position 0 of the file on. */
  private inMemory: { readonly path: string; readonly bytes: number } | undefined;

  constructor(heap: SharedHeap, disk: Disk, report: ReportDamage) {
    this.heap = heap;
    this.disk = disk;
    this.report = report;
    this.summary = heap.reserve(BlockCodec.scratchBytes, 64);
    this.scratch = heap.reserve(this.scratchBytes, SECTOR_BYTES);
  }

  /** The tasks of a recovery, in this thread. */
  async run<T extends StorageTask>(task: T): Promise<StorageTaskResult<T>> {
    if (task.type === 'inspect') return this.inspect(task) as StorageTaskResult<T>;
    if (task.type === 'scan') return this.scan(task) as StorageTaskResult<T>;
    throw new Error(`whoever only looks runs no task '${task.type}'`);
  }

  /** The entries that stand in the segment read last at `offset`, where no batch verifies. */
  damagedBlocks(file: string, offset: number): DamagedBlock[] {
    const { inMemory, heap, summary, scratch } = this;
    if (inMemory?.path !== file || offset >= inMemory.bytes) return [];
    return findDamagedBlocks(heap, summary, scratch + offset, inMemory.bytes - offset);
  }

  private inspect(task: InspectTask): Inspection {
    const { directory, lane } = task;
    const memory = { scratch: this.scratch, scratchBytes: this.scratchBytes };
    const segments: InspectedSegment[] = [];
    for (const sequence of listSegments(this.disk, directory, lane)) {
      const file = segmentPath(directory, lane, sequence);
      const segment = this.guarded(file, 0, () =>
        inspectSegment(this.heap, this.disk, { ...task, ...memory }, sequence),
      );
      if (segment !== undefined) segments.push(segment);
    }
    this.segments = segments;
    const largest = segments.reduce((bytes, each) => Math.max(bytes, each.fileBytes), 0);
    this.makeRoom(alignToSector(largest) + SECTOR_BYTES);
    return { segments, spares: listSpares(this.disk, directory, lane).length };
  }

  private makeRoom(bytes: number): void {
    if (bytes <= this.scratchBytes) return;
    this.scratch = this.heap.reserve(bytes, SECTOR_BYTES);
    this.scratchBytes = bytes;
  }

  private scan(task: ScanTask): ScanResult {
    const { heap, disk, scratch, scratchBytes, summary } = this;
    // The sectors in front of the first batch come along, so that positions are those of the file.
    const whole = {
      ...task,
      memory: {
        window: scratch + task.position,
        windowBytes: scratchBytes - task.position,
        tables: scratch,
        tablesBytes: 0,
        summary,
      },
    };
    this.inMemory = { path: task.path, bytes: Math.min(task.end, scratchBytes - SECTOR_BYTES) };
    const result = this.guarded(task.path, task.position, () => scanSegment(heap, disk, whole));
    if (result === undefined)
      return { batches: [], next: task.end, needsMore: false, dirtyEnd: 0, rescued: [] };
    this.note(task, result);
    return result;
  }

  private note(task: ScanTask, { batches }: ScanResult): void {
    const known = this.read.get(task.path) ?? { batches: 0, entries: 0, end: task.position };
    const last = batches[batches.length - 1];
    let { entries } = known;
    for (const { blocks } of batches) {
      for (const block of blocks) {
        if (block.record === undefined) entries += block.lastIndex - block.firstIndex + 1;
      }
    }
    const end = last === undefined ? known.end : last.position + last.totalLength;
    this.read.set(task.path, { batches: known.batches + batches.length, entries, end });
  }

  /** Undefined when it could not be done: the file has gone, or what is reported. */
  private guarded<T>(file: string, offset: number, work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (error instanceof KeelsonError) {
        this.report(error);
        return undefined;
      }
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === undefined) throw error;
      if (code !== 'ENOENT') this.report(unreadable(file, offset, message, error));
      return undefined;
    }
  }
}

function unreadable(file: string, offset: number, reason: string, cause: unknown): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_FAILED',
    `${file} cannot be read from ${offset} on: ${reason}. Check the disk and the rights of the file.`,
    { details: { file, offset }, cause },
  );
}
