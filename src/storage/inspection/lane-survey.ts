/**
 * What a lane holds, told by the same recovery that a start runs, which here goes on behind what is wrong
 * instead of refusing the lane.
 */
import type { KeelsonError } from '../../base/errors.js';
import type { LogId, Vote } from '../../engine/types.js';
import type { SharedHeap } from '../../wasm/shared-heap.js';
import type { Disk } from '../disk.js';
import { type RecoveredGroup, recoverLane } from '../recovery.js';
import { type Finding, findingOf } from './finding.js';
import { LaneReading } from './lane-reading.js';

export interface SegmentSurvey {
  readonly sequence: number;
  readonly file: string;
  readonly fileBytes: number;
  /** Up to the end of the last valid batch. */
  readonly usedBytes: number;
  readonly batches: number;
  readonly entries: number;
  /** The file was a segment before. */
  readonly recycled: boolean;
  /** Nothing in it counts any more: it will be given up. */
  readonly superseded: boolean;
}

export interface GroupSurvey {
  readonly group: number;
  readonly vote: Vote;
  readonly committed: number;
  /** The entry before the first one kept. */
  readonly purged: LogId;
  /** `lastIndex` is `firstIndex - 1` when no entry is kept. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly firstTerm: number;
  readonly lastTerm: number;
  /** Indexes of the entries that hold memberships. */
  readonly memberships: readonly number[];
}

export interface LaneSurvey {
  readonly lane: number;
  readonly segments: readonly SegmentSurvey[];
  readonly groups: readonly GroupSurvey[];
  readonly problems: readonly Finding[];
  readonly notes: readonly Finding[];
}

/**
 * `folder`: where the segments stand; `lanes`: how many there are, if anybody knows. The heap belongs to this
 * call alone.
 */
export async function surveyLane(
  heap: SharedHeap,
  disk: Disk,
  folder: string,
  lane: number,
  lanes: number | undefined,
): Promise<LaneSurvey> {
  const problems: Finding[] = [];
  const report = (error: KeelsonError): void => {
    problems.push(...findingsOf(error, reading));
  };
  const reading: LaneReading = new LaneReading(heap, disk, report);
  const recovered = await recoverLane(heap, reading, {
    directory: folder,
    lane,
    lanes,
    mode: 'torn-tail',
    // The tasks run in memory of their own, and nothing is carried over.
    ...{ scratch: 0, scratchBytes: 0, summary: 0, epoch: 0 },
    report,
  });
  const { tornTail } = recovered;
  return {
    lane,
    segments: describeSegments(reading, recovered.start.oldestSegment),
    groups: [...recovered.groups.values()].map(describeGroup),
    problems,
    notes: tornTail === undefined ? [] : [tornTailNote(tornTail)],
  };
}

function describeSegments(reading: LaneReading, oldestNeeded: number): SegmentSurvey[] {
  return reading.segments.map(({ sequence, path, fileBytes, header }) => {
    const read = reading.read.get(path);
    return {
      sequence,
      file: path,
      fileBytes,
      usedBytes: read?.end ?? 0,
      batches: read?.batches ?? 0,
      entries: read?.entries ?? 0,
      recycled: header?.recycled ?? false,
      superseded: sequence < oldestNeeded,
    };
  });
}

function describeGroup({ checkpoint, index, memberships }: RecoveredGroup): GroupSurvey {
  const { group, vote, committed, purged } = checkpoint;
  const { firstIndex, lastIndex } = index;
  return {
    group,
    vote,
    committed,
    purged,
    firstIndex,
    lastIndex,
    firstTerm: index.term(firstIndex),
    lastTerm: index.term(lastIndex),
    memberships: memberships.map((stored) => stored.index),
  };
}

/** One for each block of entries that is lost there, if any can be told. */
function findingsOf(error: KeelsonError, reading: LaneReading): Finding[] {
  const finding = findingOf(error);
  const { file, offset } = finding;
  if (file === undefined || offset === undefined) return [finding];
  const blocks = reading.damagedBlocks(file, offset);
  if (blocks.length === 0) return [finding];
  return blocks.map((block) => ({
    ...finding,
    offset: offset + block.offset,
    group: block.group,
    index: block.firstIndex,
    lastIndex: block.lastIndex,
    meaning:
      `The entries ${block.firstIndex} to ${block.lastIndex} of group ${block.group} do not verify. ` +
      finding.meaning,
  }));
}

function tornTailNote({ file, offset }: { file: string; offset: number }): Finding {
  return {
    code: 'KEELSON_STORAGE_CORRUPT',
    file,
    offset,
    group: undefined,
    index: undefined,
    lastIndex: undefined,
    meaning:
      `${file} has an unreadable tail from ${offset} on, as a crash leaves one. Nothing proves that it was ` +
      "acknowledged: the next start cuts it off, or refuses it in the mode 'strict'.",
  };
}
