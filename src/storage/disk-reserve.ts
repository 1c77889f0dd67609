/**
 * What is left of a disk that the log has filled, and for what.
 *
 * ```
 * free ─▶ │ entries │ votes, truncations, moves │ purges, the end of a run │ starts │ 0
 * ```
 *
 * Entries are refused while there is room for all that is queued already and for the rest. What votes leave is
 * for what gives room back. In front of the last part the store fails, for without that it could never be
 * opened again.
 *
 * This is room, not a file: other programs can take it. Each of several lanes on one disk needs it for itself.
 */
import { BATCH, HARD_STATE, SECTOR_BYTES } from '../wasm/layout.js';
import { alignToSector } from './sector.js';
import { checkpointBytes } from './segment-file.js';

/** Shares of a segment. */
const ENTRIES_END = 1 / 2;
const VOTES = 1 / 4;
const PURGES = 1 / 32;
/**
 * Once for a segment behind the one that an earlier run has left, which may keep its last batch too; once more for
 * one that takes the place of that: both files are there until the name is durable.
 */
const STARTS = 2;
/** The other files of a node that starts. */
const START_BYTES = 64 * 1024;

/** Of the header and the checkpoint of a segment. */
export function segmentHeadBytes(groups: number): number {
  return SECTOR_BYTES + checkpointBytes(groups);
}

/** What a batch may have beside its blocks, if it touches every group. */
export function batchFrameBytes(groups: number): number {
  const states = groups * HARD_STATE.bytes;
  return alignToSector(BATCH.bytes + states) + alignToSector(states);
}

/** A start needs that: it copies the last batch into a segment of its own. */
export function startReserve(headBytes: number, lastBatchBytes: number): number {
  return STARTS * (headBytes + lastBatchBytes) + START_BYTES;
}

/** Votes leave that beside what a start needs. */
export function purgeReserve(segmentBytes: number, headBytes: number): number {
  return segmentBytes * PURGES + 2 * headBytes;
}

/** Entries leave that, in batches of up to so many bytes. */
export function entryReserve(segmentBytes: number, headBytes: number, batchBytes: number): number {
  const rest = startReserve(headBytes, batchBytes) + purgeReserve(segmentBytes, headBytes);
  return Math.max(segmentBytes * ENTRIES_END, segmentBytes * VOTES + rest);
}
