/**
 * How much of a disk a lane may take up, and what has to be moved for that.
 *
 * ```
 * files of a lane  ≤  2 × live data + 4 segments
 * ```
 *
 * Segments go in order only, so whatever old entry is needed keeps all segments behind it. Such entries are
 * moved: written once more at the end of the log. As long as every byte that is appended lets two bytes
 * be moved, the log can leave each segment in time, however the entries that are needed lie in the others.
 */

/** The segment that is written and the one that is being left; and as many spare files. */
const MIN_SEGMENTS = 2;
export const MIN_SPARES = 2;
/** Less than 2: live data that goes between a decision and its effect must not break the bound. */
const LIVE_FACTOR = 1.75;
/** Bytes that may be moved for one that is appended. */
export const MOVED_PER_APPENDED = 2;
/** Of the log that moves take up while they last. The pace would allow more, but a step takes its time. */
const MOVED_SHARE = 1 / 2;
/** Of the live data: with less that is dead nothing is moved. */
const MIN_DEAD = 1 / 2;
/** Batches that may be written before the move of one is in the header of a segment. */
const BATCHES_AHEAD = 3;

/** How far a lane has come. */
export interface LanePosition {
  /** The segment that is written, and how much of it is. */
  readonly segment: number;
  readonly position: number;
  readonly segmentBytes: number;
  /** Of a batch, as they have been lately. */
  readonly largestBatchBytes: number;
}

/** How many segments a lane may have, spare files not counted. */
function maxSegments(liveBytes: number, segmentBytes: number): number {
  return MIN_SEGMENTS + Math.floor((LIVE_FACTOR * liveBytes) / segmentBytes);
}

/** How many spare files a lane may keep that has so many segments. */
export function maxSpares(segments: number, liveBytes: number, segmentBytes: number): number {
  return Math.max(MIN_SPARES, maxSegments(liveBytes, segmentBytes) + MIN_SPARES - segments);
}

/** Of a map of segments to what is needed in each. */
export function totalBytes(bySegment: ReadonlyMap<number, number>): number {
  let total = 0;
  for (const bytes of bySegment.values()) total += bytes;
  return total;
}

/**
 * The segment before which nothing may be needed soon, so that moving has to begin now; 0 when there is
 * time. `bySegment` tells how many bytes are needed in each segment.
 */
export function segmentToReach(at: LanePosition, bySegment: ReadonlyMap<number, number>): number {
  const { segment: newest, position, segmentBytes, largestBatchBytes } = at;
  const segments = [...bySegment].sort(([left], [right]) => left - right);
  const span = maxSegments(totalBytes(bySegment), segmentBytes);
  const margin = segmentBytes / 16;
  // What can be moved until the log has left the segment that it writes, then the next one, and so on.
  const overdue = newest + 1 - span;
  // A log that only grows keeps all that it has: there is nothing to be gained.
  const usedBytes = (newest - (segments[0]?.[0] ?? newest)) * segmentBytes + position;
  if (usedBytes - totalBytes(bySegment) < MIN_DEAD * totalBytes(bySegment)) return 0;
  for (const [segment] of segments) if (segment < overdue) return overdue;
  let room = MOVED_SHARE * (segmentBytes - position - BATCHES_AHEAD * largestBatchBytes) - margin;
  let needed = 0;
  let next = 0;
  for (let oldest = newest + 2 - span; oldest <= newest; oldest++) {
    for (; next < segments.length && segments[next]![0] < oldest; next++) {
      needed += segments[next]![1];
    }
    if (needed > 0 && needed >= room) return oldest;
    room += MOVED_SHARE * (segmentBytes - largestBatchBytes);
  }
  return 0;
}
