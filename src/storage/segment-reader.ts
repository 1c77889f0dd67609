/**
 * Serves entries that have left memory: gathers the extents that the index named from segment files
 * into one block, verifies group, indexes and checksums of it, and returns a copy.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { TermRun } from '../engine/types.js';
import { BlockCodec, type VerifiedBlocks } from '../wasm/block-codec.js';
import { BLOCK, ITEM } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk, DiskFile } from './disk.js';
import { segmentPath } from './segment-file.js';
import { writeU64 } from './storage-memory.js';

/** One range of entries in a segment file, as the index tells it. */
export interface SegmentExtent {
  readonly segment: number;
  readonly items: number;
  readonly itemPosition: number;
  readonly payloadPosition: number;
  readonly payloadLength: number;
}

export interface ReadTask {
  readonly type: 'read';
  readonly directory: string;
  readonly lane: number;
  readonly group: number;
  readonly firstIndex: number;
  readonly extents: readonly SegmentExtent[];
  readonly scratch: number;
  readonly scratchBytes: number;
  readonly summary: number;
}

/** Ranges of several logs, each as a `ReadTask` reads it, one after the other in the same memory. */
export interface GatherTask extends Omit<ReadTask, 'type' | 'group' | 'firstIndex' | 'extents'> {
  readonly type: 'gather';
  readonly ranges: readonly Pick<ReadTask, 'group' | 'firstIndex' | 'extents'>[];
}

export interface ReadTaskResult {
  readonly block: Uint8Array;
  readonly lastIndex: number;
  readonly termRuns: readonly TermRun[];
}

const MAX_OPEN_FILES = 8;

export class SegmentReader {
  private readonly memory: SharedHeap;
  private readonly disk: Disk;
  /** By path, least recently used first. */
  private readonly files: Map<string, DiskFile> = new Map();

  constructor(memory: SharedHeap, disk: Disk) {
    this.memory = memory;
    this.disk = disk;
  }

  read(task: ReadTask): ReadTaskResult {
    const { scratch } = task;
    let items = 0;
    let payloadLength = 0;
    for (const extent of task.extents) {
      items += extent.items;
      payloadLength += extent.payloadLength;
    }
    const length = BLOCK.bytes + items * ITEM.bytes + payloadLength;
    invariant(items > 0 && length <= task.scratchBytes, 'a read fits into its memory');
    this.writeHeader(task, items, payloadLength);
    let item = scratch + BLOCK.bytes;
    let payload = item + items * ITEM.bytes;
    for (const extent of task.extents) {
      const path = segmentPath(task.directory, task.lane, extent.segment);
      this.fill(path, item, extent.items * ITEM.bytes, extent.itemPosition);
      this.fill(path, payload, extent.payloadLength, extent.payloadPosition);
      item += extent.items * ITEM.bytes;
      payload += extent.payloadLength;
    }
    const codec = new BlockCodec(this.memory, task.summary);
    let summary: VerifiedBlocks;
    try {
      summary = codec.verifyBlocks(scratch, length, task.group, task.firstIndex);
    } catch (cause) {
      throw damagedEntries(task, cause);
    }
    return {
      block: new Uint8Array(this.memory.bytes.subarray(scratch, scratch + length)),
      lastIndex: summary.lastIndex,
      termRuns: summary.termRuns,
    };
  }

  gather({ ranges, ...task }: GatherTask): ReadTaskResult[] {
    return ranges.map((range) => this.read({ ...task, ...range, type: 'read' }));
  }

  /** Closes a file that is about to be used for something else. */
  forget(path: string): void {
    this.files.get(path)?.close();
    this.files.delete(path);
  }

  close(): void {
    for (const file of this.files.values()) file.close();
    this.files.clear();
  }

  private writeHeader(task: ReadTask, items: number, payloadLength: number): void {
    const { view } = this.memory;
    const { scratch } = task;
    view.setUint32(scratch + BLOCK.offset.magic, BLOCK.magic, true);
    view.setUint32(scratch + BLOCK.offset.group, task.group, true);
    view.setUint32(scratch + BLOCK.offset.items, items, true);
    view.setUint32(scratch + BLOCK.offset.payloadLength, payloadLength, true);
    writeU64(view, scratch + BLOCK.offset.firstIndex, task.firstIndex);
    view.setUint32(scratch + BLOCK.offset.flags, 0, true);
    view.setUint32(scratch + BLOCK.offset.reserved, 0, true);
  }

  private fill(path: string, pointer: number, length: number, position: number): void {
    if (length === 0) return;
    const file = this.open(path);
    const read = file.read(this.memory.bytes.subarray(pointer, pointer + length), position);
    if (read === length) return;
    throw new KeelsonError('KEELSON_STORAGE_CORRUPT', `${path} ends before ${position + length}.`, {
      details: { file: path, offset: position + read },
    });
  }

  private open(path: string): DiskFile {
    let file = this.files.get(path);
    if (file === undefined) {
      file = this.disk.open(path, { access: 'read' });
      if (this.files.size >= MAX_OPEN_FILES) {
        const [oldest] = this.files;
        oldest![1].close();
        this.files.delete(oldest![0]);
      }
    } else {
      this.files.delete(path);
    }
    this.files.set(path, file);
    return file;
  }
}

function damagedEntries(task: ReadTask, cause: unknown): KeelsonError {
  const extent = task.extents[0]!;
  const file = segmentPath(task.directory, task.lane, extent.segment);
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Entries of group ${task.group} from index ${task.firstIndex} on do not verify in ` +
      `${file} at ${extent.itemPosition}. The disk has lost acknowledged data.`,
    {
      details: { file, offset: extent.itemPosition, group: task.group, index: task.firstIndex },
      cause,
    },
  );
}
