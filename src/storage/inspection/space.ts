/** How many bytes the files of a data directory have, by what they are for. */
import { join } from 'node:path';
import { LOG_FOLDER } from '../data-directory.js';
import type { Disk } from '../disk.js';
import { MANIFEST_FILE } from '../manifest.js';
import { PEERS_FILE } from '../peer-registry.js';
import { isSegmentName, isSpareName, isTemporaryName } from '../segment-file.js';
import { withFileIfThere } from './file-if-there.js';
import { listSnapshotFiles } from './snapshot-survey.js';

export interface SpaceByKind {
  readonly segments: number;
  readonly spares: number;
  readonly snapshots: number;
  /** Files that are being made, or that a crash has left unfinished. */
  readonly temporary: number;
  /** Whose directory it is, and whom the node has met. */
  readonly identity: number;
}

export function surveySpace(disk: Disk, directory: string): SpaceByKind {
  const space = { segments: 0, spares: 0, snapshots: 0, temporary: 0, identity: 0 };
  const folder = join(directory, LOG_FOLDER);
  for (const name of disk.exists(folder) ? disk.list(folder) : []) {
    const bytes = sizeOf(disk, join(folder, name));
    if (isSegmentName(name)) space.segments += bytes;
    else if (isSpareName(name)) space.spares += bytes;
    else if (isTemporaryName(name)) space.temporary += bytes;
  }
  for (const { file, whole } of listSnapshotFiles(disk, directory)) {
    space[whole ? 'snapshots' : 'temporary'] += sizeOf(disk, file);
  }
  for (const name of [MANIFEST_FILE, PEERS_FILE]) {
    space.identity += sizeOf(disk, join(directory, name));
    space.temporary += sizeOf(disk, join(directory, `${name}.tmp`));
  }
  return space;
}

/** Nothing, for a file that is not there (any more). */
function sizeOf(disk: Disk, path: string): number {
  return withFileIfThere(disk, path, (file) => file.size()) ?? 0;
}
