/**
 * What belongs together in a data directory: the manifest, which says whose it is, and the log in the
 * folder `wal`. One without the other has forgotten what the node promised: it would vote again in
 * terms in which it has voted. Such a directory is refused, and never taken for a new one.
 *
 * ```
 * manifest written ─▶ first segment durable ─▶ manifest says that the log has begun ─▶ first message
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
import { isSegmentName } from './segment-file.js';

export const LOG_FOLDER = 'wal';

/**
 * Makes the manifest of a new directory, or verifies what is there; the caller holds the lock.
 * @throws KeelsonError as `openManifest`, and STORAGE_CORRUPT when manifest or log is missing.
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
  if (manifest.logBegun && !names.some(isSegmentName)) throw lostLog(directory);
  return manifest;
}

/** To be called once the first segment is durable, and before the node answers anybody. */
export function logHasBegun(disk: Disk, directory: string, manifest: Manifest): void {
  if (!manifest.logBegun) recordLogBegun(disk, directory, manifest);
}

export function lostLog(directory: string): KeelsonError {
  const log = join(directory, LOG_FOLDER);
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `${directory} has lost its log: ${log} holds no segment, though one was begun. This node has ` +
      'forgotten what it acknowledged and for whom it voted. Restore the whole directory, or let the ' +
      'node start empty and be readmitted by its peers',
    { details: { directory } },
  );
}
