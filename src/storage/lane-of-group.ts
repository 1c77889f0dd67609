/**
 * Which lane the log of a group is in: fixed for ever by the number of lanes, so part of the format of a data
 * directory (docs/storage-format.md). Consecutive ids are spread evenly.
 */

/** 2^32 divided by the golden ratio. */
const MULTIPLIER = 2_654_435_769;

/** `group`: an unsigned number of 32 bits. */
export function laneOfGroup(group: number, lanes: number): number {
  return Math.floor(((Math.imul(group, MULTIPLIER) >>> 0) * lanes) / 2 ** 32);
}
