/**
 * Scans the segments of a lane in order, and meanwhile the next one: while one thread verifies what comes
 * next, another gets ahead by as many tables as fit its half of the memory.
 *
 * ```
 * scratch [tables][window][summary] [tables][window][summary]   two segments at once
 *         [window                                           ]   from a batch on that needs more than a half
 * ```
 */
import { KeelsonError } from '../base/errors.js';
import { BlockCodec } from '../wasm/block-codec.js';
import { SECTOR_BYTES } from '../wasm/layout.js';
import type { ScanMemory, ScanResult, ScanTask } from './segment-scan.js';
import type { StorageExecutor } from './storage-executor.js';

/** A segment, from its first batch on. */
export type SegmentToScan = Omit<ScanTask, 'type' | 'memory' | 'beside'>;

export interface ScanAheadMemory {
  /** Sector-aligned. */
  readonly scratch: number;
  readonly scratchBytes: number;
  /** `BlockCodec.scratchBytes`, for scans that take all of the scratch. */
  readonly summary: number;
}

type Outcome = { readonly result: ScanResult } | { readonly error: unknown };

interface Running {
  readonly half: ScanMemory;
  readonly outcome: Promise<Outcome>;
}

/** Smaller halves are not worth it. */
const MIN_HALF_BYTES = 256 * 1024;
const SUMMARY_BYTES = Math.ceil(BlockCodec.scratchBytes / SECTOR_BYTES) * SECTOR_BYTES;

export class ScanAhead {
  private readonly executor: Pick<StorageExecutor, 'run'>;
  private readonly segments: readonly SegmentToScan[];
  private readonly memory: ScanAheadMemory;
  /** None once a batch needed more. */
  private halves: readonly ScanMemory[];
  /** Scans whose results were not asked for yet, by the places of their segments. */
  private readonly running: Map<number, Running> = new Map();

  constructor(
    executor: Pick<StorageExecutor, 'run'>,
    segments: readonly SegmentToScan[],
    memory: ScanAheadMemory,
  ) {
    this.executor = executor;
    this.segments = segments;
    this.memory = memory;
    this.halves = halvesOf(memory);
  }

  /**
   * What stands in a segment from a position on. Segments and positions are asked for in order; the tables of
   * the result before are gone then.
   */
  async next(segment: number, position: number): Promise<ScanResult> {
    if (!this.running.has(segment)) this.start(segment, position);
    const ahead = segment + 1;
    if (this.halves.length > 0 && ahead < this.segments.length && !this.running.has(ahead)) {
      this.start(ahead, this.segments[ahead]!.position);
    }
    const outcome = await this.running.get(segment)!.outcome;
    this.running.delete(segment);
    if ('error' in outcome) throw outcome.error;
    const { result } = outcome;
    if (!result.needsMore) return result;
    if (this.halves.length === 0) throw this.tooLarge(segment, result.next);
    await this.settle();
    this.halves = [];
    return this.next(segment, result.next);
  }

  /** Resolves when nothing uses the memory any more. */
  async settle(): Promise<void> {
    for (const { outcome } of this.running.values()) await outcome;
    this.running.clear();
  }

  private start(segment: number, position: number): void {
    const used = [...this.running.values()].map(({ half }) => half);
    const half = this.halves.find((each) => !used.includes(each)) ?? wholeOf(this.memory);
    const task: ScanTask = {
      type: 'scan',
      ...this.segments[segment]!,
      position,
      memory: half,
      beside: half === this.halves[1],
    };
    const outcome = this.executor.run(task).then(
      (result): Outcome => ({ result }),
      (error: unknown): Outcome => ({ error }),
    );
    this.running.set(segment, { half, outcome });
  }

  private tooLarge(segment: number, position: number): KeelsonError {
    const { path } = this.segments[segment]!;
    return new KeelsonError(
      'KEELSON_INVALID_CONFIG',
      `The batch at ${position} of ${path} does not fit the ${this.memory.scratchBytes} bytes of memory that ` +
        'recovery has. Open the store with a larger ringBytes.',
      { details: { file: path, offset: position } },
    );
  }
}

function wholeOf({ scratch, scratchBytes, summary }: ScanAheadMemory): ScanMemory {
  return { window: scratch, windowBytes: scratchBytes, tables: scratch, tablesBytes: 0, summary };
}

function halvesOf({ scratch, scratchBytes }: ScanAheadMemory): ScanMemory[] {
  const bytes = Math.floor(scratchBytes / 2 / SECTOR_BYTES) * SECTOR_BYTES;
  if (bytes < MIN_HALF_BYTES) return [];
  // The largest batch that may be written with such a scratch, and a sector for checksums.
  const windowBytes = Math.ceil(scratchBytes / 4 / SECTOR_BYTES + 1) * SECTOR_BYTES;
  return [scratch, scratch + bytes].map((tables) => {
    const summary = tables + bytes - SUMMARY_BYTES;
    const window = summary - windowBytes;
    return { window, windowBytes, tables, tablesBytes: window - tables, summary };
  });
}
