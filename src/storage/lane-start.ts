/** Where a lane goes on after recovery, and what of its files it gives back. */
import type { DeadTail, LaneStart } from './lane-writer.js';
import type { SoundSegment } from './sound-segments.js';

/** More of a file than a batch that does not fit leaves behind the end. */
const DEAD_SHARE = 1 / 4;

/**
 * Where the lane goes on: in a segment behind the newest, or in place of that one when it ends where its
 * batches begin. So a node that is started again and again makes no files.
 */
export function firstSegment(
  newest: SoundSegment | undefined,
  end: number | undefined,
): Pick<LaneStart, 'sequence' | 'startLsn' | 'prevEnd'> {
  if (newest === undefined || end === undefined) return { sequence: 1, startLsn: 0, prevEnd: 0 };
  const { sequence } = newest;
  const { startLsn, prevEnd, fileBytes, dataStart } = newest.header;
  if (end === dataStart) return { sequence, startLsn, prevEnd };
  return { sequence: sequence + 1, startLsn: startLsn + fileBytes, prevEnd: startLsn + end };
}

/** What stands behind the ends of segments that an earlier run has left early. */
export function deadTails(
  segments: readonly SoundSegment[],
  ends: readonly number[],
  oldestSegment: number,
): DeadTail[] {
  const tails: DeadTail[] = [];
  for (const [at, { sequence, path, header, fileBytes }] of segments.entries()) {
    const end = ends[at]!;
    const proven = at + 1 < segments.length;
    if (sequence < oldestSegment || (!proven && end === header.dataStart)) continue;
    // A segment that was left because a batch did not fit is used again as it is.
    if (fileBytes - end > header.fileBytes * DEAD_SHARE) tails.push({ path, end, proven });
  }
  return tails;
}
