/**
 * How much of a disk a lane may take up, and what has to be moved for that.
 *
 * ```
 * files of a lane  ≤  2 × live data + 4 segments
 * ```
 *
 * This holds whenever the log begins a segment. Live data is the least that was needed of late: what rises and falls
 * by up to a segment, as waves of writes do before they are purged, breaks no bound.
 *
 * Segments go in order only, so whatever old entry is needed keeps all segments behind it. Such entries are
 * moved: written once more at the end of the log. Moving begins while half of what can be written until then
 * is enough for it, or so little is left that a large entry would be refused. Clients that are faster than that
 * are refused once the rest is only enough for copies: so the bound does not depend on who is faster.
 *
 * A purge of more than such a wave may leave too much at once. Until that is gone at least two bytes are moved for
 * each that clients write, beyond a quarter of a segment. So they are slowed down and go on, and the lane
 * takes up at most half of what is moved more than it did, and a segment or two.
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
/** Of what is needed at the least: with less that is dead nothing is moved. */
const MIN_DEAD = 1 / 2;
/** Of a segment: the most that clients may have on its way, for it may be needed no more once it is durable. */
const UNDER_WAY = 1 / 2;
/** The same in all, until the purge of it is durable. */
const WAVE = 2 * UNDER_WAY;
/** So many segments are looked back at for what is needed at the least. */
const LOW_SEGMENTS = 4;
/** What is taken up beyond the bound before it counts as the work of a purge: waves make less. */
const OVER_SEGMENTS = 2;
/** Sectors and ends of segments that copies leave empty, beside their bytes. */
const COPY_COST = 17 / 16;
/** Batches that may be written before the move of one is in the header of a segment. */
const BATCHES_AHEAD = 3;
/** What a copy has around its entries: its header, and the hard state of its group. */
export const COPY_FRAME_BYTES: number = BLOCK.bytes + HARD_STATE.bytes;

/** A segment, and what it takes up. */
export interface SegmentSize {
  readonly sequence: number;
  readonly bytes: number;
}

/**
 * What logs need at the least: what clients write is needed until they purge it, so the need rises and falls
 * with every wave of writes. The least of the last segments counts; but where the need has risen by more than a
 * wave, it is there to stay, and so it is where it has not fallen.
 */
export class LowWater {
  private readonly waveBytes: number;
  /** While each of the last segments was written. */
  private readonly least: number[] = [Number.POSITIVE_INFINITY];
  /** How many segments ago it fell. */
  private fell: number = LOW_SEGMENTS;
  private last = 0;

  constructor(segmentBytes: number) {
    this.waveBytes = WAVE * segmentBytes;
  }

  get bytes(): number {
    if (this.fell >= LOW_SEGMENTS) return this.last;
    return Math.max(Math.min(...this.least), this.last - this.waveBytes);
  }

  /** The log has begun a segment. */
  rolled(): void {
    this.least.push(Number.POSITIVE_INFINITY);
    if (this.least.length > LOW_SEGMENTS) this.least.shift();
    this.fell++;
  }

  /** So much is needed now. */
  note(bytes: number): void {
    const now = this.least.length - 1;
    this.least[now] = Math.min(this.least[now]!, bytes);
    if (bytes < this.last) this.fell = 0;
    this.last = bytes;
  }
}

/** How far a lane has come. */
export interface LanePosition {
  /** All that there are, ascending; the last one is written, and so much of it is. */
  readonly files: readonly SegmentSize[];
  readonly position: number;
  readonly segmentBytes: number;
  /** Of a batch, as they have been lately, and as they may be. */
  readonly largestBatchBytes: number;
  readonly maxBatchBytes: number;
  /** The most that clients append at once: there is room for that as long as nothing is moved. */
  readonly maxStageBytes: number;
  /** Of the header and the checkpoint of a segment. */
  readonly headBytes: number;
  /** What the logs need at the least. */
  readonly lowBytes: number;
  /** More was taken up than the bound allows, and still may be. */
  readonly over: boolean;
}

export interface LaneNeeds {
  /** The segment before which nothing may be needed soon, so that moving has to begin; 0: there is time. */
  readonly reach: number;
  /** More is taken up already than the bound allows. */
  readonly over: boolean;
  /** What clients may append before that is done; negative: nothing. Copies have room behind that. */
  readonly clientBytes: number;
  readonly liveBytes: number;
}

/** What the segments of a lane may take up, spare files not counted. */
function maxSegmentBytes(lowBytes: number, segmentBytes: number): number {
  return MIN_SEGMENTS * segmentBytes + LIVE_FACTOR * lowBytes;
}

/** How many spare files a lane may keep whose segments take up so much. */
export function maxSpares(usedBytes: number, lowBytes: number, segmentBytes: number): number {
  const left = maxSegmentBytes(lowBytes, segmentBytes) - usedBytes;
  return MIN_SPARES + Math.max(0, Math.floor(left / segmentBytes));
}

/** What has to be done for the bound; copies of what is used have frames. */
export function laneNeeds(at: LanePosition, usage: SegmentUsage): LaneNeeds {
  const { files, position, segmentBytes, lowBytes } = at;
  const newest = files[files.length - 1]!.sequence;
  const uses = usage.list();
  const liveBytes = usage.totalBytes(COPY_FRAME_BYTES);
  const oldest = uses[0]?.segment ?? newest;
  let usedBytes = 0;
  let fileBytes = 0;
  for (const { sequence, bytes } of files) {
    if (sequence >= oldest) usedBytes += bytes;
    fileBytes += bytes;
  }
  const mostBytes = UNDER_WAY * segmentBytes;
  // A log that only grows keeps all that it has: there is nothing to be gained.
  if (usedBytes - segmentBytes + position - liveBytes < MIN_DEAD * lowBytes) {
    return { reach: 0, over: false, clientBytes: mostBytes, liveBytes };
  }
  const maxBytes = maxSegmentBytes(lowBytes, segmentBytes);
  const over = usedBytes > maxBytes + (at.over ? 0 : OVER_SEGMENTS * segmentBytes);
  const early = segmentBytes / 16 + BATCHES_AHEAD * at.largestBatchBytes;
  // Behind a batch that does not fit any more the rest of a segment stays empty.
  const rest = Math.max(at.maxBatchBytes, at.largestBatchBytes);
  // What can be written until the log has begun so many segments more.
  let room = 0;
  let clientBytes = mostBytes;
  let reach = 0;
  let late = false;
  let needed = 0;
  let file = 0;
  let use = 0;
  for (let rolls = 0; ; rolls++) {
    for (; file < files.length && fileBytes + rolls * segmentBytes > maxBytes; file++) {
      fileBytes -= files[file]!.bytes;
    }
    // The log cannot leave what it writes.
    const kept = files[file];
    if (kept === undefined) break;
    for (; use < uses.length && uses[use]!.segment < kept.sequence; use++) {
      needed += uses[use]!.bytes + uses[use]!.runs * COPY_FRAME_BYTES;
    }
    const cost = COPY_COST * needed;
    if (rolls === 0) {
      late = needed > 0;
      room = segmentBytes - position - rest;
      continue;
    }
    if (needed > 0) {
      const soon = cost >= MOVED_SHARE * room - early || room - cost < at.maxStageBytes;
      if (reach === 0 && (late || soon)) reach = kept.sequence;
      clientBytes = Math.min(clientBytes, room - cost);
    }
    room += segmentBytes - at.headBytes - rest;
  }
  if (late && reach === 0) reach = newest;
  // What the segment holds that is written cannot be moved yet: so little is under way that it can be in time.
  clientBytes = Math.min(clientBytes, Math.max(room - COPY_COST * liveBytes, segmentBytes / 4));
  return { reach, over, clientBytes, liveBytes };
}
