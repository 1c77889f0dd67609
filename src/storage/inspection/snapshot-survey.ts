/**
 * The snapshots in a data directory, each read to its end. One gets its name when all of it is durable and is
 * never changed, so that a node which makes and removes some meanwhile changes nothing that is read here.
 */
import { join } from 'node:path';
import { KeelsonError } from '../../base/errors.js';
import type { LogId } from '../../engine/types.js';
import type { SharedHeap } from '../../wasm/shared-heap.js';
import type { Disk } from '../disk.js';
import {
  groupOfFolder,
  isSnapshotName,
  readSnapshotFile,
  SNAPSHOT_FOLDER,
  snapshotDirectory,
} from '../snapshot-directory.js';
import type { ReportDamage } from '../sound-segments.js';

export interface SnapshotSurvey {
  readonly group: number;
  readonly file: string;
  readonly fileBytes: number;
  /** The last entry whose effect it holds. */
  readonly lastIncluded: LogId;
  readonly id: string;
  /** ms since the epoch. */
  readonly created: number;
  readonly machineVersion: number;
}

/** Those that verify; what is wrong with the others is reported. */
export function surveySnapshots(
  heap: SharedHeap,
  disk: Disk,
  directory: string,
  report: ReportDamage,
): SnapshotSurvey[] {
  const snapshots: SnapshotSurvey[] = [];
  for (const { group, file, whole } of listSnapshotFiles(disk, directory)) {
    if (!whole) continue;
    try {
      const found = readSnapshotFile(heap, disk, file, group, true);
      const { bytes, lastIncluded, id, created, machineVersion } = found;
      snapshots.push({ group, file, fileBytes: bytes, lastIncluded, id, created, machineVersion });
    } catch (error) {
      if (error instanceof KeelsonError) report(error);
      // It was removed: a newer one has taken its place.
      else if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return snapshots;
}

export interface SnapshotFile {
  readonly group: number;
  readonly file: string;
  /** False for one that is being made or received. */
  readonly whole: boolean;
}

/** Of each group, oldest first. */
export function listSnapshotFiles(disk: Disk, directory: string): SnapshotFile[] {
  const folder = join(directory, SNAPSHOT_FOLDER);
  if (!disk.exists(folder)) return [];
  const groups = disk.list(folder).map(groupOfFolder);
  return groups
    .filter((group) => group !== undefined)
    .flatMap((group) => {
      const own = snapshotDirectory(directory, group);
      const names = disk.list(own);
      return names.map((name) => ({ group, file: join(own, name), whole: isSnapshotName(name) }));
    });
}
