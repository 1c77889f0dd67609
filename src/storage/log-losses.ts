/** What a recovery says of data that is lost, and of a tail that may be. */
import { KeelsonError } from '../base/errors.js';
import { laneOfGroup } from './lane-of-group.js';
import type { ScannedBatch } from './segment-scan.js';
import { damage } from './sound-segments.js';

export function provenLoss(file: string, offset: number, proof: ScannedBatch): KeelsonError {
  const group = proof.blocks[0]?.group ?? proof.hardStates[0]?.group;
  return damage(file, offset, group, `a valid batch stands behind it, at ${proof.position}`);
}

export function provenLossAtEnd(file: string, offset: number, next: string): KeelsonError {
  return damage(file, offset, undefined, `${next} proves that the segment went on`);
}

/** Only a directory that was written with a larger limit holds more than the index has room for. */
export function tooLargeForIndex(cause: unknown, group: number, index: number): unknown {
  if (!(cause instanceof KeelsonError) || cause.code !== 'KEELSON_OVERLOADED') return cause;
  return new KeelsonError(
    'KEELSON_INVALID_CONFIG',
    `The index of the log has no room for group ${group} up to entry ${index}: open the node with a ` +
      'larger storage.maxIndexBytes, as it had when these entries were written.',
    { details: { group, index }, cause },
  );
}

/** Its log is looked for in another lane, so here are files of another directory. */
export function foreignGroup(
  directory: string,
  group: number,
  lane: number,
  lanes: number,
): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Lane ${lane} in ${directory} holds group ${group}, which belongs to lane ` +
      `${laneOfGroup(group, lanes)} of ${lanes}: its files are of a directory with another number of lanes. ` +
      'Do not go on with this directory.',
    { details: { directory, lane, group } },
  );
}

/** They were in segments that were given up, and nothing has taken their place. */
export function missingEntries(group: number, first: number, last: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Acknowledged data is lost: the entries ${first} to ${last} of group ${group} are in no segment. ` +
      'Do not go on with this directory.',
    { details: { group, firstIndex: first, lastIndex: last } },
  );
}

/** A commit is recorded only once the entries up to it are durable. */
export function committedLoss(group: number, committed: number, lastIndex: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Acknowledged data is lost: group ${group} had committed index ${committed}, but its log ends at ` +
      `${lastIndex}. Do not go on with this directory.`,
    { details: { group, committed, lastIndex } },
  );
}

export function tornTailRefused(file: string, offset: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `${file} has an unreadable tail from ${offset} on. Nothing proves that it was acknowledged; ` +
      "open the store with recovery 'torn-tail' to cut it off.",
    { details: { file, offset } },
  );
}
