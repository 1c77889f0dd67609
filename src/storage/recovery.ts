/**
 * Finds out what a lane holds, from its files alone.
 *
 * A batch is sealed after the flush of the one before it, and a segment is named after everything
 * before it. So whatever is bad in front of a valid batch, a checkpoint or the end that the next
 * segment tells (`prevEnd`) was acknowledged once: *proven loss*, and the lane is refused. What is bad
 * with nothing valid behind it is a *torn tail* and is cut off.
 *
 * The last batch is proven by nothing: the page cache may hold what the disk lost. The lane carries
 * it into its next segment, whose header says that the old place is dead.
 */
import { KeelsonError } from '../base/errors.js';
import type { RecoveredLog, TermRun } from '../engine/types.js';
import { BATCH_FLAG } from '../wasm/layout.js';
import { LogIndex } from '../wasm/log-index.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { GroupCheckpoint, GroupHardState } from './hard-state.js';
import { emptyCheckpoint, isHigherVote } from './hard-state.js';
import type { InspectedSegment } from './lane-inspection.js';
import type { BatchPlace, CarriedBatch, LaneStart } from './lane-writer.js';
import type { SegmentHeader } from './segment-file.js';
import type { ScannedBatch, ScannedBlock } from './segment-scan.js';
import type { StorageExecutor } from './storage-executor.js';

export type RecoveryMode = 'torn-tail' | 'strict';

export interface RecoveryOptions {
  readonly directory: string;
  readonly lane: number;
  readonly mode: RecoveryMode;
  /** Shared memory that recovery may use, sector-aligned; the carried batch ends up at its start. */
  readonly scratch: number;
  readonly scratchBytes: number;
  /** `BlockCodec.scratchBytes` of shared memory. */
  readonly summary: number;
  /** Chance for the first epoch, 52 bits. */
  readonly epoch: number;
}

export interface RecoveredGroup {
  checkpoint: GroupCheckpoint;
  readonly index: LogIndex;
  readonly memberships: { index: number; payload: Uint8Array }[];
  /** Of the last entry; after a truncation an upper bound of it. */
  lastTime: number;
}

export interface RecoveredLane {
  readonly start: LaneStart;
  readonly groups: ReadonlyMap<number, RecoveredGroup>;
  /** Position and bytes that were cut off, if any. */
  readonly tornTail: { readonly file: string; readonly offset: number } | undefined;
  readonly batches: number;
  readonly entries: number;
  /** Of all blocks of entries that the lane has. */
  readonly largestBlockBytes: number;
  /** Moves the index of the carried batch to its new place; its bytes stand at `scratch`. */
  placeCarried(place: BatchPlace): void;
}

interface SoundSegment extends InspectedSegment {
  readonly header: SegmentHeader;
  readonly checkpoint: readonly GroupCheckpoint[];
}

interface LastBatch {
  readonly segment: SoundSegment;
  readonly batch: ScannedBatch;
}

export async function recoverLane(
  heap: SharedHeap,
  executor: StorageExecutor,
  options: RecoveryOptions,
): Promise<RecoveredLane> {
  return new LaneRecovery(heap, executor, options).run();
}

class LaneRecovery {
  private readonly heap: SharedHeap;
  private readonly executor: StorageExecutor;
  private readonly options: RecoveryOptions;
  private readonly groups: Map<number, RecoveredGroup> = new Map();
  private last: LastBatch | undefined;
  private tornTail: { file: string; offset: number } | undefined;
  private batches = 0;
  private entries = 0;
  private largestBlockBytes = 0;

  constructor(heap: SharedHeap, executor: StorageExecutor, options: RecoveryOptions) {
    this.heap = heap;
    this.executor = executor;
    this.options = options;
  }

  async run(): Promise<RecoveredLane> {
    const { directory, lane, scratch, scratchBytes, epoch } = this.options;
    const task = { type: 'inspect', directory, lane, scratch, scratchBytes } as const;
    const inspection = await this.executor.run(task);
    const segments = soundSegments(inspection.segments);
    let end = 0;
    for (let at = 0; at < segments.length; at++) {
      end = await this.scan(segments[at]!, segments[at + 1]);
    }
    for (const group of this.groups.values()) {
      const { checkpoint, index } = group;
      if (checkpoint.committed > index.lastIndex) throw committedLoss(group);
    }
    const newest = segments[segments.length - 1];
    const start: LaneStart = {
      sequence: (newest?.sequence ?? 0) + 1,
      epoch,
      startLsn: newest === undefined ? 0 : newest.header.startLsn + newest.header.fileBytes,
      prevEnd: newest === undefined ? 0 : newest.header.startLsn + this.deadFrom(newest, end),
      groups: [...this.groups.values()].map((group) => group.checkpoint),
      carry: this.carry(newest),
    };
    return {
      start,
      groups: this.groups,
      tornTail: this.tornTail,
      batches: this.batches,
      entries: this.entries,
      largestBlockBytes: this.largestBlockBytes,
      placeCarried: (place) => this.placeCarried(place),
    };
  }

  /** Reads one segment; returns the position behind its last valid batch. */
  private async scan(segment: SoundSegment, next: SoundSegment | undefined): Promise<number> {
    const { header, path } = segment;
    for (const state of segment.checkpoint) this.noteCheckpoint(state);
    const end = next === undefined ? segment.fileBytes : next.header.prevEnd - header.startLsn;
    const base = {
      type: 'scan',
      path,
      lane: this.options.lane,
      sequence: header.sequence,
      epoch: header.epoch,
      startLsn: header.startLsn,
      end,
      scratch: this.options.scratch,
      scratchBytes: this.options.scratchBytes,
      summary: this.options.summary,
    } as const;
    let expected = header.dataStart;
    let dirtyEnd = 0;
    for (let position = expected; position < end; ) {
      const result = await this.executor.run({ ...base, position });
      for (const batch of result.batches) {
        if (batch.position !== expected) throw provenLoss(path, expected, batch);
        this.take(segment, batch);
        expected = batch.position + batch.totalLength;
      }
      for (const state of result.rescued) {
        if (state.lsn === header.startLsn + expected) this.noteVote(state);
      }
      dirtyEnd = Math.max(dirtyEnd, result.dirtyEnd);
      position = result.next;
    }
    if (next === undefined) this.noteTail(segment, expected, dirtyEnd);
    else if (expected !== end) throw provenLossAtEnd(path, expected, next.path);
    return expected;
  }

  private take(segment: SoundSegment, batch: ScannedBatch): void {
    this.batches++;
    this.last = { segment, batch };
    for (const block of batch.blocks) this.takeBlock(segment, block);
    for (const state of batch.hardStates) {
      this.noteVote(state);
      const group = this.group(state.group);
      const committed = Math.max(group.checkpoint.committed, state.committed);
      group.checkpoint = { ...group.checkpoint, committed };
    }
  }

  private takeBlock(segment: SoundSegment, block: ScannedBlock): void {
    const group = this.group(block.group);
    const { index, memberships } = group;
    if (block.firstIndex > index.lastIndex + 1) {
      throw damage(
        segment.path,
        block.position,
        block.group,
        `its entries start at ${block.firstIndex}, but the log before them ends at ${index.lastIndex}`,
      );
    }
    while ((memberships[memberships.length - 1]?.index ?? 0) >= block.firstIndex) memberships.pop();
    if (block.truncateAfter) {
      index.truncateAfter(block.lastIndex);
      return;
    }
    try {
      index.appendBlocks(block.pointer, block.length, segment.sequence, block.position);
    } catch (cause) {
      throw tooLargeForIndex(cause, block.group, block.lastIndex);
    }
    memberships.push(...block.memberships);
    group.lastTime = Math.max(group.lastTime, block.lastTime);
    this.largestBlockBytes = Math.max(this.largestBlockBytes, block.length);
    this.entries += block.lastIndex - block.firstIndex + 1;
  }

  private noteTail(segment: SoundSegment, offset: number, dirtyEnd: number): void {
    if (dirtyEnd <= offset) return;
    const file = segment.path;
    if (
      this.last?.segment === segment &&
      (this.last.batch.flags & BATCH_FLAG.cleanShutdown) !== 0
    ) {
      throw damage(file, offset, undefined, 'the log was closed in order in front of it');
    }
    this.tornTail = { file, offset };
    if (this.options.mode !== 'strict') return;
    throw new KeelsonError(
      'KEELSON_STORAGE_CORRUPT',
      `${file} has an unreadable tail from ${offset} on. Nothing proves that it was acknowledged; ` +
        "open the store with recovery 'torn-tail' to cut it off.",
      { details: { file, offset } },
    );
  }

  private noteCheckpoint(state: GroupCheckpoint): void {
    const group = this.group(state.group);
    const known = group.checkpoint;
    const vote = isHigherVote(state.vote, known.vote) ? state.vote : known.vote;
    const committed = Math.max(state.committed, known.committed);
    group.checkpoint = { ...state, vote, committed };
  }

  private noteVote(state: GroupHardState): void {
    const group = this.group(state.group);
    if (!isHigherVote(state.vote, group.checkpoint.vote)) return;
    group.checkpoint = { ...group.checkpoint, vote: state.vote };
  }

  private group(id: number): RecoveredGroup {
    let group = this.groups.get(id);
    if (group === undefined) {
      const index = new LogIndex(this.heap);
      group = { checkpoint: emptyCheckpoint(id), index, memberships: [], lastTime: 0 };
      this.groups.set(id, group);
    }
    return group;
  }

  /** The last batch, if nothing behind it proves it and it says anything that the start does not. */
  private carry(newest: SoundSegment | undefined): CarriedBatch | undefined {
    const { last } = this;
    if (last === undefined || last.segment !== newest || last.batch.blocks.length === 0) {
      return undefined;
    }
    const { position, totalLength } = last.batch;
    return { path: newest.path, position, totalLength, pointer: this.options.scratch };
  }

  /** Where the newest segment ends for ever: before a last batch that is carried or says nothing. */
  private deadFrom(newest: SoundSegment, end: number): number {
    const { last } = this;
    if (last === undefined || last.segment !== newest) return end;
    const repeated = this.carry(newest) !== undefined || last.batch.blocks.length === 0;
    return repeated ? last.batch.position : end;
  }

  /**
   * The index has the batch at its old place. Only blocks of which something is left are moved: one
   * that the batch itself cut away again may not join the log any more.
   */
  private placeCarried(place: BatchPlace): void {
    const { batch } = this.last!;
    const moved: ScannedBlock[] = [];
    const ends = new Map<number, number>();
    for (let at = batch.blocks.length - 1; at >= 0; at--) {
      const block = batch.blocks[at]!;
      const end = ends.get(block.group) ?? this.group(block.group).index.lastIndex;
      if (!block.truncateAfter && block.firstIndex <= end) moved.unshift(block);
      ends.set(block.group, Math.min(end, block.firstIndex - 1));
    }
    const lastIndexes = moved.map((block) => this.group(block.group).index.lastIndex);
    for (let at = 0; at < moved.length; at++) {
      const block = moved[at]!;
      const { index } = this.group(block.group);
      const offset = block.position - batch.position;
      const pointer = this.options.scratch + offset;
      index.appendBlocks(pointer, block.length, place.segment, place.position + offset);
    }
    for (let at = 0; at < moved.length; at++) {
      this.group(moved[at]!.group).index.truncateAfter(lastIndexes[at]!);
    }
  }
}

/** What the engine is told of a group. */
export function describeGroup(
  group: RecoveredGroup,
  decodeMembership: (
    payload: Uint8Array,
    index: number,
  ) => RecoveredLog['memberships'][number]['membership'],
): RecoveredLog {
  const { checkpoint, index } = group;
  const termRuns: readonly TermRun[] = index.lastIndex < index.firstIndex ? [] : index.termRuns();
  return {
    vote: checkpoint.vote,
    purged: checkpoint.purged,
    termRuns,
    lastIndex: index.lastIndex,
    committed: checkpoint.committed,
    memberships: group.memberships.map((stored) => ({
      index: stored.index,
      membership: decodeMembership(stored.payload, stored.index),
    })),
  };
}

/** Segments in order, each with header and checkpoint; refuses a lane in which one is damaged. */
function soundSegments(inspected: readonly InspectedSegment[]): SoundSegment[] {
  const sound: SoundSegment[] = [];
  for (let at = 0; at < inspected.length; at++) {
    const segment = inspected[at]!;
    const { path, header, checkpoint, newerVersion } = segment;
    if (newerVersion !== undefined) {
      throw new KeelsonError(
        'KEELSON_STORAGE_VERSION',
        `${path} has format ${newerVersion}, which this program does not know. Use a newer version.`,
        { details: { file: path, version: newerVersion } },
      );
    }
    // A file gets this name only when its header, checkpoint and zeros are durable.
    if (header === undefined) {
      throw damage(path, 0, undefined, 'the header of the segment is unreadable');
    }
    if (checkpoint === undefined) {
      throw damage(path, 4096, undefined, 'the checkpoint of the segment is unreadable');
    }
    if (segment.fileBytes < header.fileBytes) {
      throw damage(
        path,
        segment.fileBytes,
        undefined,
        `the file ends there, but was made ${header.fileBytes} bytes long`,
      );
    }
    const before = sound[sound.length - 1]?.sequence ?? 0;
    if (before + 1 !== segment.sequence) {
      throw damage(
        path,
        0,
        undefined,
        `the segment before it (${segment.sequence - 1}) is missing`,
      );
    }
    sound.push({ ...segment, header, checkpoint });
  }
  return sound;
}

function provenLoss(file: string, offset: number, proof: ScannedBatch): KeelsonError {
  const group = proof.blocks[0]?.group ?? proof.hardStates[0]?.group;
  return damage(file, offset, group, `a valid batch stands behind it, at ${proof.position}`);
}

function provenLossAtEnd(file: string, offset: number, next: string): KeelsonError {
  return damage(file, offset, undefined, `${next} proves that the segment went on`);
}

/** Only a directory that was written with a larger limit holds more than the index has room for. */
function tooLargeForIndex(cause: unknown, group: number, index: number): unknown {
  if (!(cause instanceof KeelsonError) || cause.code !== 'KEELSON_OVERLOADED') return cause;
  return new KeelsonError(
    'KEELSON_INVALID_CONFIG',
    `The index of the log has no room for group ${group} up to entry ${index}: open the node with a ` +
      'larger storage.maxIndexBytes, as it had when these entries were written.',
    { details: { group, index }, cause },
  );
}

/** A commit is recorded only once the entries up to it are durable. */
function committedLoss({ checkpoint, index }: RecoveredGroup): KeelsonError {
  const { group, committed } = checkpoint;
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Acknowledged data is lost: group ${group} had committed index ${committed}, but its log ends at ` +
      `${index.lastIndex}. Do not go on with this directory.`,
    { details: { group, committed, lastIndex: index.lastIndex } },
  );
}

function damage(
  file: string,
  offset: number,
  group: number | undefined,
  proof: string,
): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Acknowledged data is lost in ${file} at ${offset}: ${proof}. Do not go on with this directory; ` +
      'restore it, or let this node start empty and be readmitted by its peers.',
    { details: { file, offset, group } },
  );
}
