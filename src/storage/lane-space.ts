/**
 * How much of a disk a lane may take up, and what has to be moved for that.
 *
 * ```
 * files of a lane  ≤  2 × live data + 4 segments
 * ```
 *
 * Segments go in order only, so whatever old entry is needed keeps all segments behind it. Such entries are
 * moved: written once more at the end of the log. Moving begins while half of what can be written until then
 * is enough for it. Clients that are faster than that are refused once the rest is only enough for copies:
 * so the bound does not depend on who is faster.
 */
import { BLOCK, HARD_STATE } from '../wasm/layout.js';
import type { SegmentUsage } from '../wasm/segment-usage.js';

/** The segment that is written and the one that is being left; and as many spare files. */
const MIN_SEGMENTS = 2;
export const MIN_SPARES = 2;
/** Less than 2: live data that goes between a decision and its effect must not break the bound. */
const LIVE_FACTOR = 1.75;
/** Of the log that moves take up while they last: they begin so early that clients keep the other half. */
const MOVED_SHARE = 1 / 2;
/** Of the live data: with less that is dead nothing is moved. */
const MIN_DEAD = 1 / 2;
/** Sectors and ends of segments that copies leave empty, beside their bytes. */
const COPY_COST = 17 / 16;
/** Batches that may be written before the move of one is in the header of a segment. */
const BATCHES_AHEAD = 3;
/** What a copy has around its entries: its header, and the hard state of its group. */
export const COPY_FRAME_BYTES: number = BLOCK.bytes + HARD_STATE.bytes;

/** How far a lane has come. */
export interface LanePosition {
  /** The segment that is written, and how much of it is. */
  readonly segment: number;
  readonly position: number;
  readonly segmentBytes: number;
  /** Of a batch, as they have been lately, and as they may be. */
  readonly largestBatchBytes: number;
  readonly maxBatchBytes: number;
  /** Of the header and the checkpoint of a segment. */
  readonly headBytes: number;
}

export interface LaneNeeds {
  /** The segment before which nothing may be needed soon, so that moving has to begin; 0: there is time. */
  readonly reach: number;
  /** What clients may append before that is done; negative: nothing. Copies have room behind that. */
  readonly clientBytes: number;
  readonly liveBytes: number;
}

/** How many segments a lane may have, spare files not counted. */
function maxSegments(liveBytes: number, segmentBytes: number): number {
  return MIN_SEGMENTS + Math.floor((LIVE_FACTOR * liveBytes) / segmentBytes);
}

/** How many spare files a lane may keep that has so many segments. */
export function maxSpares(segments: number, liveBytes: number, segmentBytes: number): number {
  return Math.max(MIN_SPARES, maxSegments(liveBytes, segmentBytes) + MIN_SPARES - segments);
}

/** What has to be done for the bound; copies of what is used have frames. */
export function laneNeeds(at: LanePosition, usage: SegmentUsage): LaneNeeds {
  const { segment: newest, segmentBytes } = at;
  const segments = usage.list();
  const liveBytes = usage.totalBytes(COPY_FRAME_BYTES);
  const span = maxSegments(liveBytes, segmentBytes);
  // A log that only grows keeps all that it has: there is nothing to be gained.
  const usedBytes = (newest - (segments[0]?.segment ?? newest)) * segmentBytes + at.position;
  if (usedBytes - liveBytes < MIN_DEAD * liveBytes) {
    return { reach: 0, clientBytes: Number.POSITIVE_INFINITY, liveBytes };
  }
  const early = segmentBytes / 16 + BATCHES_AHEAD * at.largestBatchBytes;
  // Behind a batch that does not fit any more the rest of a segment stays empty.
  const rest = Math.max(at.maxBatchBytes, at.largestBatchBytes);
  // What can be written until the log has left the segment that it writes, then the next one, and so on.
  let room = segmentBytes - at.position - rest;
  let clientBytes = Number.POSITIVE_INFINITY;
  let reach = 0;
  let needed = 0;
  let next = 0;
  const take = (before: number): void => {
    for (; next < segments.length && segments[next]!.segment < before; next++) {
      needed += segments[next]!.bytes + segments[next]!.runs * COPY_FRAME_BYTES;
    }
  };
  // There are too many already when what is needed has become less, or starts have made segments.
  take(newest + 1 - span);
  if (needed > 0) reach = newest + 1 - span;
  for (let oldest = newest + 2 - span; oldest <= newest; oldest++) {
    take(oldest);
    const cost = COPY_COST * needed;
    if (needed > 0) {
      if (reach === 0 && cost >= MOVED_SHARE * room - early) reach = oldest;
      clientBytes = Math.min(clientBytes, room - cost);
    }
    room += segmentBytes - at.headBytes - rest;
  }
  // What the segment holds that is written cannot be moved yet: so little is under way that it can be in time.
  clientBytes = Math.min(clientBytes, Math.max(room - COPY_COST * liveBytes, segmentBytes / 4));
  return { reach, clientBytes, liveBytes };
}
