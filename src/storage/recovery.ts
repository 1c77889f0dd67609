/**
 * Finds out what a lane holds, from its files alone.
 *
 * A batch is sealed after the flush of the one before it, and a segment is named after everything
 * before it. So whatever is bad in front of a valid batch, a checkpoint or the end that the next
 * segment tells (`prevEnd`) was acknowledged once: *proven loss*, and the lane is refused. What is bad
 * with nothing valid behind it is a *torn tail* and is cut off.
 *
 * A lane begins at the oldest segment that the newest one names; what is older may be gone. Where the
 * logs began by then, the newest checkpoint tells.
 *
 * The last batch is proven by nothing: the page cache may hold what the disk lost. The lane carries
 * it into its next segment, whose header says that the old place is dead.
 */
import type { KeelsonError } from '../base/errors.js';
import type { GroupLoss, LogId, RecoveredLog, TermRun } from '../engine/types.js';
import { BATCH_FLAG } from '../wasm/layout.js';
import { LogIndex } from '../wasm/log-index.js';
import { SegmentUsage } from '../wasm/segment-usage.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { GroupCheckpoint, GroupHardState } from './hard-state.js';
import { emptyCheckpoint, isHigherVote } from './hard-state.js';
import { laneOfGroup } from './lane-of-group.js';
import type { SegmentSize } from './lane-space.js';
import { deadTails, firstSegment } from './lane-start.js';
import type { BatchPlace, CarriedBatch, LaneStart } from './lane-writer.js';
import {
  committedLoss,
  foreignGroup,
  missingEntries,
  provenLoss,
  provenLossAtEnd,
  tooLargeForIndex,
  tornTailRefused,
} from './log-losses.js';
import { LostRanges, MAX_LOST_ENTRIES } from './lost-ranges.js';
import { ScanAhead, type SegmentToScan } from './scan-ahead.js';
import type { ScannedBatch, ScannedBlock } from './segment-scan.js';
import { damage, type ReportDamage, type SoundSegment, soundSegments } from './sound-segments.js';
import type { StorageExecutor } from './storage-executor.js';

export type RecoveryMode = 'torn-tail' | 'strict' | 'repair';

export interface RecoveryOptions {
  readonly directory: string;
  readonly lane: number;
  /** How many there are; a group of another lane is a loss. Undefined when nobody knows. */
  readonly lanes: number | undefined;
  readonly mode: RecoveryMode;
  /** Shared memory that recovery may use, sector-aligned; the carried batch ends up at its start. */
  readonly scratch: number;
  readonly scratchBytes: number;
  /** `BlockCodec.scratchBytes` of shared memory. */
  readonly summary: number;
  /** Chance for the first epoch, 52 bits. */
  readonly epoch: number;
  /** Is told what segments hold of the logs; nobody wants to know when absent. */
  readonly usage?: SegmentUsage;
  /** Takes each loss, for who only looks; the lane is refused at the first one when absent, or repaired. */
  readonly report?: ReportDamage;
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
  /** All segment files, ascending, as the lane leaves them when it begins. */
  readonly segments: readonly SegmentSize[];
  /** Files that wait to become one, before the first of this run. */
  readonly spares: number;
  readonly groups: ReadonlyMap<number, RecoveredGroup>;
  /** Position and bytes that were cut off, if any. */
  readonly tornTail: { readonly file: string; readonly offset: number } | undefined;
  readonly batches: number;
  readonly entries: number;
  /** Of all blocks of entries that the lane has. */
  readonly largestBlockBytes: number;
  /** Found in the mode `repair`: when there is one, nothing may be written to the lane. */
  readonly losses: readonly KeelsonError[];
  readonly lost: readonly GroupLoss[];
  /** Moves the index of the carried batch to its new place; its bytes stand at `scratch`. */
  placeCarried(place: BatchPlace): void;
}

interface LastBatch {
  readonly segment: SoundSegment;
  readonly batch: ScannedBatch;
}

export async function recoverLane(
  heap: SharedHeap,
  executor: Pick<StorageExecutor, 'run'>,
  options: RecoveryOptions,
): Promise<RecoveredLane> {
  return new LaneRecovery(heap, executor, options).run();
}

class LaneRecovery {
  private readonly heap: SharedHeap;
  private readonly executor: Pick<StorageExecutor, 'run'>;
  private readonly options: RecoveryOptions;
  private readonly report: ReportDamage;
  private readonly usage: SegmentUsage;
  private readonly losses: KeelsonError[] = [];
  private damaged = false;
  /** In the mode `repair`. */
  private readonly ranges: LostRanges | undefined;
  private readonly groups: Map<number, RecoveredGroup> = new Map();
  private last: LastBatch | undefined;
  private tornTail: { file: string; offset: number } | undefined;
  private batches = 0;
  private entries = 0;
  private largestBlockBytes = 0;

  constructor(heap: SharedHeap, executor: Pick<StorageExecutor, 'run'>, options: RecoveryOptions) {
    this.heap = heap;
    this.executor = executor;
    this.options = options;
    this.usage = options.usage ?? new SegmentUsage();
    this.ranges = options.mode === 'repair' ? new LostRanges() : undefined;
    const { report = (loss: KeelsonError) => this.lose(loss) } = options;
    this.report = (loss) => {
      this.damaged = true;
      report(loss);
    };
  }

  async run(): Promise<RecoveredLane> {
    const { directory, lane, scratch, scratchBytes, epoch } = this.options;
    const task = { type: 'inspect', directory, lane, scratch, scratchBytes } as const;
    const inspection = await this.executor.run(task);
    const segments = soundSegments(inspection.segments, this.report);
    const newest = segments[segments.length - 1];
    for (const state of newest?.checkpoint ?? []) this.beginBehind(state);
    const ends = await this.scanAll(segments);
    const last = inspection.segments[inspection.segments.length - 1];
    const short = newest !== undefined && newest.fileBytes < newest.header.fileBytes;
    if (short || newest?.sequence !== last?.sequence) this.ranges?.lose(this.groups);
    if (this.ranges?.any !== true) {
      for (const group of this.groups.values()) checkWhole(group, this.report);
    }
    this.checkLane();
    if (newest !== undefined) ends[ends.length - 1] = this.deadFrom(newest, ends.at(-1)!);
    const oldestSegment = this.oldestSegment(newest);
    const start: LaneStart = {
      ...firstSegment(newest, ends.at(-1)),
      epoch,
      oldestSegment,
      groups: [...this.groups.values()].map((group) => group.checkpoint),
      carry: this.carry(newest),
      tails: deadTails(segments, ends, oldestSegment),
    };
    return {
      start,
      segments: inspection.segments.map(({ sequence, path, fileBytes }) => {
        const tail = start.tails.find((dead) => dead.path === path);
        return { sequence, bytes: tail?.end ?? fileBytes };
      }),
      spares: inspection.spares,
      groups: this.groups,
      tornTail: this.tornTail,
      batches: this.batches,
      entries: this.entries,
      largestBlockBytes: this.largestBlockBytes,
      losses: this.losses,
      lost: this.ranges?.finish(this.groups) ?? [],
      placeCarried: (place) => this.placeCarried(place),
    };
  }

  /** Takes over the segments in order; returns where each ends. */
  private async scanAll(segments: readonly SoundSegment[]): Promise<number[]> {
    const toScan = segments.map((segment, at) => this.toScan(segment, segments[at + 1]));
    const scans = new ScanAhead(this.executor, toScan, this.options);
    const ends: number[] = [];
    try {
      for (let at = 0; at < segments.length; at++) {
        const follows = at === 0 || segments[at]!.sequence === segments[at - 1]!.sequence + 1;
        if (!follows) this.ranges?.lose(this.groups);
        ends.push(await this.scan(at, segments, scans));
      }
    } finally {
      await scans.settle();
    }
    return ends;
  }

  /** Refuses the lane, or notes what is lost; what another version has written is no damage. */
  private lose(loss: KeelsonError): void {
    if (this.ranges === undefined || loss.code !== 'KEELSON_STORAGE_CORRUPT') throw loss;
    this.losses.push(loss);
    this.ranges.lose(this.groups);
  }

  /** What was purged before the newest segment was begun counts from the first batch on. */
  private beginBehind(state: GroupCheckpoint): void {
    const group = this.group(state.group);
    const { purged } = state;
    if (purged.index === 0) return;
    group.checkpoint = { ...group.checkpoint, purged };
    group.index.reset(purged.index);
  }

  private oldestSegment(newest: SoundSegment | undefined): number {
    if (newest === undefined) return 1;
    let oldest = newest.sequence;
    for (const { index } of this.groups.values()) oldest = Math.min(oldest, index.oldestSegment);
    // Nothing proves the last batch yet: what it has moved may still be needed where it was.
    const moves = this.last?.batch.blocks.some((block) => block.moved) === true;
    return moves ? Math.min(oldest, newest.header.oldest) : oldest;
  }

  private toScan(segment: SoundSegment, next: SoundSegment | undefined): SegmentToScan {
    const { header, path } = segment;
    const { sequence, epoch, startLsn, recycled, dataStart } = header;
    const end = nextTo(segment, next)?.header.prevEnd;
    return {
      path,
      lane: this.options.lane,
      sequence,
      epoch,
      startLsn,
      position: dataStart,
      end: end === undefined ? segment.fileBytes : end - startLsn,
      recycled,
    };
  }

  /** Takes over one segment; returns the position behind its last valid batch. */
  private async scan(
    at: number,
    segments: readonly SoundSegment[],
    scans: ScanAhead,
  ): Promise<number> {
    const segment = segments[at]!;
    const next = segments[at + 1];
    const { header, path } = segment;
    for (const state of segment.checkpoint) this.noteCheckpoint(state);
    const { end } = this.toScan(segment, next);
    let expected = header.dataStart;
    let dirtyEnd = 0;
    for (let position = expected; position < end; ) {
      const result = await scans.next(at, position);
      for (const batch of result.batches) {
        if (batch.position !== expected) this.report(provenLoss(path, expected, batch));
        this.take(segment, batch);
        expected = batch.position + batch.totalLength;
      }
      for (const state of result.rescued) {
        if (state.lsn === header.startLsn + expected) this.noteVote(state);
      }
      dirtyEnd = Math.max(dirtyEnd, result.dirtyEnd);
      position = result.next;
    }
    const adjacent = nextTo(segment, next);
    if (next === undefined) this.noteTail(segment, expected, dirtyEnd);
    else if (adjacent !== undefined && expected !== end) {
      this.report(provenLossAtEnd(path, expected, adjacent.path));
    }
    return expected;
  }

  private take(segment: SoundSegment, batch: ScannedBatch): void {
    this.batches++;
    this.last = { segment, batch };
    for (const block of batch.blocks) this.takeBlock(segment, block);
    for (const state of batch.hardStates) {
      this.noteVote(state);
      this.ranges?.tell(state.group);
      const group = this.group(state.group);
      const committed = Math.max(group.checkpoint.committed, state.committed);
      group.checkpoint = { ...group.checkpoint, committed };
    }
  }

  private takeBlock(segment: SoundSegment, block: ScannedBlock): void {
    const group = this.group(block.group);
    const { index, memberships } = group;
    try {
      this.ranges?.settle(group, block);
    } catch (cause) {
      throw tooLargeForIndex(cause, block.group, block.lastIndex);
    }
    if (block.record?.kind === 'purge') {
      this.notePurged(group, block.record.logId);
      return;
    }
    if (block.moved) {
      this.takeMoved(group, segment, block);
      return;
    }
    while ((memberships[memberships.length - 1]?.index ?? 0) >= block.firstIndex) memberships.pop();
    if (block.record !== undefined) {
      const { kind, logId } = block.record;
      index.truncateAfter(logId.index);
      if (kind === 'reset') {
        memberships.length = 0;
        this.notePurged(group, logId);
      }
      return;
    }
    try {
      // What would stand in between was in segments that are gone, and has been overwritten since then.
      this.skip(group, block.firstIndex - 1);
      index.appendBlocks(block.pointer, block.length, segment.sequence, block.position);
    } catch (cause) {
      throw tooLargeForIndex(cause, block.group, block.lastIndex);
    }
    memberships.push(...block.memberships.filter((stored) => stored.index >= index.firstIndex));
    this.noteEntries(group, block);
  }

  /** The first copy may have been in a segment that is gone, and what stands in front of it too. */
  private takeMoved(group: RecoveredGroup, segment: SoundSegment, block: ScannedBlock): void {
    const { index, memberships } = group;
    const { pointer, length, position } = block;
    try {
      this.skip(group, block.lastIndex);
      if (!index.recoverBlocks(pointer, length, segment.sequence, position, block)) {
        const entries = `a copy of the entries ${block.firstIndex} to ${block.lastIndex}`;
        this.report(
          damage(segment.path, position, block.group, `${entries} is not what the log has`),
        );
        return;
      }
    } catch (cause) {
      throw tooLargeForIndex(cause, block.group, block.lastIndex);
    }
    for (const stored of block.memberships) {
      if (stored.index < index.firstIndex) continue;
      const at = memberships.findIndex((known) => known.index >= stored.index);
      const known = memberships[at]?.index === stored.index;
      memberships.splice(at < 0 ? memberships.length : at, known ? 1 : 0, stored);
    }
    this.noteEntries(group, block);
  }

  private checkLane(): void {
    const { directory, lane, lanes } = this.options;
    if (lanes === undefined) return;
    for (const group of this.groups.keys()) {
      if (laneOfGroup(group, lanes) !== lane) {
        this.report(foreignGroup(directory, group, lane, lanes));
      }
    }
  }

  private noteEntries(group: RecoveredGroup, block: ScannedBlock): void {
    group.lastTime = Math.max(group.lastTime, block.lastTime);
    this.largestBlockBytes = Math.max(this.largestBlockBytes, block.length);
    this.entries += block.lastIndex - block.firstIndex + 1;
  }

  /** Behind a loss a log may go on so far away that the index has no room for what lies between. */
  private skip({ checkpoint, index }: RecoveredGroup, lastIndex: number): void {
    if (this.damaged && lastIndex - index.lastIndex > MAX_LOST_ENTRIES) {
      this.report(missingEntries(checkpoint.group, index.lastIndex + 1, lastIndex));
      index.reset(lastIndex);
    }
    index.skip(lastIndex);
  }

  private notePurged(group: RecoveredGroup, logId: LogId): void {
    if (logId.index <= group.checkpoint.purged.index) return;
    group.checkpoint = { ...group.checkpoint, purged: logId };
    group.index.purge(logId.index);
    const { memberships } = group;
    while (memberships.length > 0 && memberships[0]!.index <= logId.index) memberships.shift();
  }

  private noteTail(segment: SoundSegment, offset: number, dirtyEnd: number): void {
    if (dirtyEnd <= offset) return;
    const file = segment.path;
    // Whatever stands behind an orderly close, nothing that was acknowledged does.
    if (
      this.ranges === undefined &&
      this.last?.segment === segment &&
      (this.last.batch.flags & BATCH_FLAG.cleanShutdown) !== 0
    ) {
      this.report(damage(file, offset, undefined, 'the log was closed in order in front of it'));
      return;
    }
    this.tornTail = { file, offset };
    if (this.options.mode === 'strict') throw tornTailRefused(file, offset);
  }

  private noteCheckpoint(state: GroupCheckpoint): void {
    const group = this.group(state.group);
    const known = group.checkpoint;
    const vote = isHigherVote(state.vote, known.vote) ? state.vote : known.vote;
    const committed = Math.max(state.committed, known.committed);
    group.checkpoint = { ...known, vote, committed };
    this.ranges?.tell(state.group);
  }

  private noteVote(state: GroupHardState): void {
    const group = this.group(state.group);
    if (!isHigherVote(state.vote, group.checkpoint.vote)) return;
    group.checkpoint = { ...group.checkpoint, vote: state.vote };
  }

  private group(id: number): RecoveredGroup {
    let group = this.groups.get(id);
    if (group === undefined) {
      const index = new LogIndex(this.heap, 1, this.usage);
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

  /** The index has the batch at its old place. What the batch itself cut away again is not there. */
  private placeCarried(place: BatchPlace): void {
    const { batch, segment } = this.last!;
    for (const block of batch.blocks) {
      if (block.record !== undefined) continue;
      const offset = block.position - batch.position;
      const from = { segment: segment.sequence, position: block.position };
      const to = { segment: place.segment, position: place.position + offset };
      const { index } = this.group(block.group);
      index.moveBlocks(this.options.scratch + offset, block.length, from, to);
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

/** The segment that tells where this one ends. */
function nextTo(segment: SoundSegment, next: SoundSegment | undefined): SoundSegment | undefined {
  return next?.sequence === segment.sequence + 1 ? next : undefined;
}

function checkWhole(group: RecoveredGroup, report: ReportDamage): void {
  const { checkpoint, index } = group;
  if (checkpoint.committed > index.lastIndex) {
    report(committedLoss(checkpoint.group, checkpoint.committed, index.lastIndex));
  }
  if (index.lastIndex < index.firstIndex) return;
  const runs = index.termRuns();
  for (const [place, run] of runs.entries()) {
    if (run.term !== 0) continue;
    const last = (runs[place + 1]?.firstIndex ?? index.lastIndex + 1) - 1;
    report(missingEntries(checkpoint.group, run.firstIndex, last));
  }
}
