/**
 * What belongs together in a data directory: the manifest, which says whose it is, and the log in the
 * folder `wal`. One without the other has forgotten what the node promised: it would vote again in
 * terms in which it has voted. Such a directory is refused, and never taken for a new one.
 *
 * ```
 * manifest written ─▶ first segment of each lane durable ─▶ manifest says that the log has begun ─▶ first message
 * ```
 *
 * A crash between any two of these steps leaves a directory that opens: nothing was promised yet.
 */
import { join } from 'node:path';
import { KeelsonError } from '../base/errors.js';
import type { Disk } from './disk.js';
import {
  MANIFEST_FILE,
  type Manifest,
  type ManifestExpectation,
  openManifest,
  recordLogBegun,
} from './manifest.js';
import { isSegmentName, laneOf } from './segment-file.js';

export const LOG_FOLDER = 'wal';

/**
 * Makes the manifest of a new directory, or verifies what is there; the caller holds the lock.
 * @throws KeelsonError as `openManifest`, and STORAGE_CORRUPT when manifest, log or a lane of it is missing.
 */
export function openDataDirectory(
  disk: Disk,
  directory: string,
  expected: ManifestExpectation,
  randomBytes: (length: number) => Uint8Array,
): Manifest {
  const log = join(directory, LOG_FOLDER);
  const names = disk.exists(log) ? disk.list(log) : [];
  if (names.length > 0 && !disk.exists(join(directory, MANIFEST_FILE))) {
    throw new KeelsonError(
      'KEELSON_STORAGE_CORRUPT',
      `${directory} holds a log, but its file '${MANIFEST_FILE}' is missing: restore the whole ` +
        'directory, or start this node with an empty one',
      { details: { directory } },
    );
  }
  const manifest = openManifest(disk, directory, expected, randomBytes);
  const damage = damageOfLanes(directory, manifest, names);
  if (damage !== undefined) throw damage;
  return manifest;
}

/** To be called once the first segment of each lane is durable, and before the node answers anybody. */
export function logHasBegun(disk: Disk, directory: string, manifest: Manifest): void {
  if (!manifest.logBegun) recordLogBegun(disk, directory, manifest);
}

/** What is wrong with the log by the names of its files: a lane is lost, or there is one too many. */
export function damageOfLanes(
  directory: string,
  { laneCount, logBegun }: Manifest,
  names: readonly string[],
): KeelsonError | undefined {
  const present = new Set(names.filter(isSegmentName).map(laneOf));
  const foreign = [...present].find((lane) => lane !== undefined && lane >= laneCount);
  if (foreign !== undefined) return foreignLane(directory, foreign, laneCount);
  if (!logBegun) return undefined;
  const lost: number[] = [];
  for (let lane = 0; lane < laneCount; lane++) if (!present.has(lane)) lost.push(lane);
  return lost.length === 0 ? undefined : lostLog(directory, lost, laneCount);
}

function lostLog(directory: string, lost: readonly number[], laneCount: number): KeelsonError {
  const log = join(directory, LOG_FOLDER);
  const [what, held] =
    lost.length === laneCount
      ? ['its log', 'no segment, though one was begun']
      : [`lane ${lost.join(' and ')} of its log`, 'no segment of that, though it was begun'];
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `${directory} has lost ${what}: ${log} holds ${held}. This node has ` +
      'forgotten what it acknowledged and for whom it voted. Restore the whole directory, or let the ' +
      'node start empty and be readmitted by its peers',
    { details: { directory, lanes: lost } },
  );
}

function foreignLane(directory: string, lane: number, laneCount: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `${directory} has a log of ${laneCount} lanes, numbered from 0, but holds segments of lane ${lane}: the files of two ` +
      'directories were mixed. Restore the whole directory',
    { details: { directory, lane } },
  );
}
