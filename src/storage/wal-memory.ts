/**
 * The shared memory of a log store: what it reserves when it opens, and how much that is together with
 * everything that it allocates later. A heap of `walMemoryBytes` is never full, whatever is written.
 *
 * | region         | bytes                                       | for                                      |
 * | -------------- | ------------------------------------------- | ---------------------------------------- |
 * | zeros          | 1 MiB                                       | new segment files of all lanes           |
 * | index          | `maxIndexBytes`, allocated as the log grows | where entries stand, see index-budget.ts |
 *
 * Of each lane:
 *
 * | region         | bytes                                       | for                                      |
 * | -------------- | ------------------------------------------- | ---------------------------------------- |
 * | ring           | `ringBytes`, and 16 KiB per control slot    | staging and cache; recovery reads there  |
 * | writer         | 256 KiB                                     | header and checkpoint of a segment       |
 * | summary, codec | `BlockCodec.scratchBytes` each              | what a verification finds                |
 * | read           | a quarter of ring or segment, the smaller   | entries that are read from segments      |
 *
 * Each lane has an equal part of the index for itself. Lanes are recovered side by side, so what they held
 * at a time is never there again: only a lane for itself comes through the same states as before.
 */
import { KeelsonError } from '../base/errors.js';
import { BlockCodec } from '../wasm/block-codec.js';
import { SECTOR_BYTES } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { EntryRing } from './entry-ring.js';
import { indexShare } from './index-budget.js';
import { LANE_CHANNEL_WORDS } from './lane-channel.js';
import type { Zeros } from './segment-file.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';

export interface WalMemoryOptions {
  /** Size of one segment file, from 1 MiB. */
  readonly segmentBytes: number;
  /** Of the log, see `laneOfGroup`: 1 to 4; 1 by default. */
  readonly lanes?: number;
  /** Shared memory of a lane that stages entries and caches the newest part of its log. */
  readonly ringBytes: number;
  readonly maxBatchBytes: number;
  readonly maxQueuedBatches: number;
  /** Shared memory for the indexes of all lanes; 256 MiB by default. */
  readonly maxIndexBytes?: number;
}

export interface LaneMemory {
  readonly ring: { readonly pointer: number; readonly ringBytes: number; controlSlots: number };
  readonly zeros: Zeros;
  readonly writer: { readonly scratch: number; readonly scratchBytes: number };
  readonly summary: number;
}

export const MAX_LANES = 4;
const ZERO_BYTES = 1024 * 1024;
const WRITER_BYTES = 256 * 1024;
const DEFAULT_MAX_INDEX_BYTES = 256 * 1024 * 1024;
/** Constants of the module, alignment, and descriptors and first tables of indexes. */
const SPARE_BYTES = 512 * 1024;

/** Reserves the regions of all lanes that do not depend on what the log holds. */
export function reserveWalMemory(heap: SharedHeap, options: WalMemoryOptions): LaneMemory[] {
  checkOptions(options);
  const zeros = { pointer: heap.reserve(ZERO_BYTES, SECTOR_BYTES), bytes: ZERO_BYTES };
  const { ringBytes } = options;
  const slots = controlSlots(options);
  return Array.from({ length: laneCount(options) }, () => ({
    ring: {
      pointer: heap.reserve(EntryRing.bytes(ringBytes, slots), SECTOR_BYTES),
      ringBytes,
      controlSlots: slots,
    },
    zeros,
    writer: { scratch: heap.reserve(WRITER_BYTES, SECTOR_BYTES), scratchBytes: WRITER_BYTES },
    summary: heap.reserve(BlockCodec.scratchBytes, 64),
  }));
}

/** What recovery has found in a lane. */
export interface LaneExtent {
  readonly largestBlockBytes: number;
  readonly indexBytes: number;
}

/**
 * Room for the largest entry: what the lane takes, or one that a store with a larger ring has written.
 * @throws KeelsonError INVALID_CONFIG when the heap was not made for that, or the index has its room.
 */
export function reserveReadScratch(
  heap: SharedHeap,
  options: WalMemoryOptions,
  { largestBlockBytes, indexBytes }: LaneExtent,
): { readonly scratch: number; readonly scratchBytes: number } {
  const scratchBytes = Math.max(maxStageBytes(options), largestBlockBytes);
  try {
    return { scratch: heap.reserve(scratchBytes, 64), scratchBytes };
  } catch (cause) {
    if (indexBytes > indexShare(maxIndexBytes(options), laneCount(options))) {
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
  const laneBytes =
    EntryRing.bytes(options.ringBytes, controlSlots(options)) +
    WRITER_BYTES +
    2 * BlockCodec.scratchBytes +
    channel +
    maxStageBytes(options);
  return laneCount(options) * laneBytes + ZERO_BYTES + maxIndexBytes(options) + SPARE_BYTES;
}

export function laneCount({ lanes = 1 }: Pick<WalMemoryOptions, 'lanes'>): number {
  return lanes;
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
  const lanes = laneCount(options);
  const problem =
    ringBytes % SECTOR_BYTES !== 0 || segmentBytes % SECTOR_BYTES !== 0
      ? 'ringBytes and segmentBytes are multiples of 4096'
      : maxBatchBytes > ringBytes / 4 || maxBatchBytes > segmentBytes / 4
        ? 'maxBatchBytes is at most a quarter of ringBytes and of segmentBytes'
        : maxQueuedBatches > LANE_QUEUE_LIMIT || maxQueuedBatches < 1
          ? `maxQueuedBatches is between 1 and ${LANE_QUEUE_LIMIT}`
          : !Number.isInteger(lanes) || lanes < 1 || lanes > MAX_LANES
            ? `lanes is between 1 and ${MAX_LANES}`
            : undefined;
  if (problem === undefined) return;
  throw new KeelsonError('KEELSON_INVALID_ARGUMENT', `The log cannot be opened: ${problem}.`);
}
