/**
 * The shared memory of a log store: what it reserves when it opens, and how much that is together with
 * everything that it allocates later. A heap of `walMemoryBytes` is never full, whatever is written.
 *
 * | region         | bytes                                       | for                                     |
 * | -------------- | ------------------------------------------- | --------------------------------------- |
 * | ring           | `ringBytes`, and 16 KiB per control slot    | staging and cache; recovery reads there |
 * | zeros          | 1 MiB                                       | new segment files                       |
 * | writer         | 256 KiB                                     | header and checkpoint of a segment      |
 * | summary, codec | `BlockCodec.scratchBytes` each              | what a verification finds               |
 * | read           | a quarter of ring or segment, the smaller   | entries that are read from segments     |
 * | index          | `maxIndexBytes`, allocated as the log grows | where entries stand, see index-budget.ts |
 */
import { KeelsonError } from '../base/errors.js';
import { BlockCodec } from '../wasm/block-codec.js';
import { SECTOR_BYTES } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { EntryRing } from './entry-ring.js';
import { LANE_CHANNEL_WORDS } from './lane-channel.js';
import type { Zeros } from './segment-file.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';

export interface WalMemoryOptions {
  /** Size of one segment file, from 1 MiB. */
  readonly segmentBytes: number;
  /** Shared memory that stages entries and caches the newest part of the log. */
  readonly ringBytes: number;
  readonly maxBatchBytes: number;
  readonly maxQueuedBatches: number;
  /** Shared memory for the index of the log; 256 MiB by default. */
  readonly maxIndexBytes?: number;
}

export interface WalMemory {
  readonly ring: { readonly pointer: number; readonly ringBytes: number; controlSlots: number };
  readonly zeros: Zeros;
  readonly writer: { readonly scratch: number; readonly scratchBytes: number };
  readonly summary: number;
}

const ZERO_BYTES = 1024 * 1024;
const WRITER_BYTES = 256 * 1024;
const DEFAULT_MAX_INDEX_BYTES = 256 * 1024 * 1024;
/** Constants of the module, alignment, and descriptors and first tables of indexes. */
const SPARE_BYTES = 512 * 1024;

/** Reserves all regions. */
export function reserveWalMemory(heap: SharedHeap, options: WalMemoryOptions): WalMemory {
  checkOptions(options);
  const { ringBytes } = options;
  const slots = controlSlots(options);
  return {
    ring: {
      pointer: heap.reserve(EntryRing.bytes(ringBytes, slots), SECTOR_BYTES),
      ringBytes,
      controlSlots: slots,
    },
    zeros: { pointer: heap.reserve(ZERO_BYTES, SECTOR_BYTES), bytes: ZERO_BYTES },
    writer: { scratch: heap.reserve(WRITER_BYTES, SECTOR_BYTES), scratchBytes: WRITER_BYTES },
    summary: heap.reserve(BlockCodec.scratchBytes, 64),
  };
}

/** What recovery has found. */
export interface LogExtent {
  readonly largestBlockBytes: number;
  readonly indexBytes: number;
}

/**
 * Room for the largest entry: what this store takes, or one that a store with a larger ring has written.
 * @throws KeelsonError INVALID_CONFIG when the heap was not made for that, or the index has its room.
 */
export function reserveReadScratch(
  heap: SharedHeap,
  options: WalMemoryOptions,
  { largestBlockBytes, indexBytes }: LogExtent,
): { readonly scratch: number; readonly scratchBytes: number } {
  const scratchBytes = Math.max(maxStageBytes(options), largestBlockBytes);
  try {
    return { scratch: heap.reserve(scratchBytes, 64), scratchBytes };
  } catch (cause) {
    if (indexBytes > maxIndexBytes(options)) {
      throw new KeelsonError(
        'KEELSON_INVALID_CONFIG',
        `The index of the log takes ${indexBytes} bytes, more than this configuration has room for: open ` +
          'the node with a larger storage.maxIndexBytes, as it had when the log was written.',
        { details: { bytes: indexBytes }, cause },
      );
    }
    throw new KeelsonError(
      'KEELSON_INVALID_CONFIG',
      `The log holds a block of ${largestBlockBytes} bytes, too large for this configuration: open the ` +
        'node with a larger storage.ringBytes, as it had when that was written.',
      { details: { bytes: largestBlockBytes }, cause },
    );
  }
}

/** The heap that a store with these options needs at most. */
export function walMemoryBytes(options: WalMemoryOptions): number {
  const channel = LANE_CHANNEL_WORDS * Int32Array.BYTES_PER_ELEMENT;
  return (
    EntryRing.bytes(options.ringBytes, controlSlots(options)) +
    ZERO_BYTES +
    WRITER_BYTES +
    2 * BlockCodec.scratchBytes +
    channel +
    maxStageBytes(options) +
    maxIndexBytes(options) +
    SPARE_BYTES
  );
}

export function maxIndexBytes(options: WalMemoryOptions): number {
  return options.maxIndexBytes ?? DEFAULT_MAX_INDEX_BYTES;
}

/** The most that one `stage` or `receive` takes, bytes of blocks. */
export function maxStageBytes({ ringBytes, segmentBytes }: WalMemoryOptions): number {
  return Math.floor(Math.min(ringBytes, segmentBytes) / 4);
}

function controlSlots({ maxQueuedBatches }: WalMemoryOptions): number {
  return maxQueuedBatches + 4;
}

function checkOptions(options: WalMemoryOptions): void {
  const { ringBytes, maxQueuedBatches, maxBatchBytes, segmentBytes } = options;
  const problem =
    ringBytes % SECTOR_BYTES !== 0 || segmentBytes % SECTOR_BYTES !== 0
      ? 'ringBytes and segmentBytes are multiples of 4096'
      : maxBatchBytes > ringBytes / 4 || maxBatchBytes > segmentBytes / 4
        ? 'maxBatchBytes is at most a quarter of ringBytes and of segmentBytes'
        : maxQueuedBatches > LANE_QUEUE_LIMIT || maxQueuedBatches < 1
          ? `maxQueuedBatches is between 1 and ${LANE_QUEUE_LIMIT}`
          : undefined;
  if (problem === undefined) return;
  throw new KeelsonError('KEELSON_INVALID_ARGUMENT', `The log cannot be opened: ${problem}.`);
}
