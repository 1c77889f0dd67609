/**
 * The snapshots of one group: names in their directory, and what a start finds there.
 *
 * ```
 * snapshot-<index of the last included entry, 16 digits>-<id>.snap             built here, whole and durable
 * snapshot-<index of the last included entry, 16 digits>-<id>.received.snap    the same, from another node
 * build-<id>.tmp, receive-<id>.tmp                                             unfinished, removed at a start
 * ```
 *
 * One that was built here proves that the log of this node was durable up to its index. One that was
 * received says nothing of the log, which it is to replace.
 *
 * A file gets its name only when all of it is synced, and the directory is synced behind the rename; by a
 * start once more, since the process may have been killed between the two.
 */
import { join } from 'node:path';
import { KeelsonError } from '../base/errors.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk } from './disk.js';
import { makeDirectories } from './make-directories.js';
import { SnapshotFileReader } from './snapshot-file.js';
import type { SnapshotHeader, SnapshotInfo } from './snapshot-format.js';

export const SNAPSHOT_FOLDER = 'snapshots';

const GROUP_FOLDER = /^group-(\d+)$/;
const NAME = /^snapshot-\d{16}-[0-9a-f]{32}(\.received)?\.snap$/;
const RECEIVED = '.received.snap';
const TEMPORARY = /^(build|receive)-[0-9a-f]{32}\.tmp$/;

export function snapshotDirectory(dataDirectory: string, group: number): string {
  return join(dataDirectory, SNAPSHOT_FOLDER, `group-${group}`);
}

/** The name of a snapshot that is whole and durable. */
export function isSnapshotName(name: string): boolean {
  return NAME.test(name);
}

/** The group that a folder of snapshots belongs to; undefined for another folder. */
export function groupOfFolder(name: string): number | undefined {
  const match = GROUP_FOLDER.exec(name);
  return match === null ? undefined : Number(match[1]);
}

export function temporaryPath(directory: string, kind: 'build' | 'receive', id: string): string {
  return join(directory, `${kind}-${id}.tmp`);
}

export interface SnapshotDamage {
  readonly file: string;
  readonly offset: number;
  readonly finding: string;
}

/** What a start finds. */
export interface SnapshotScan {
  /** Newest first. The first one was read to its end, the others up to their header. */
  readonly snapshots: readonly SnapshotInfo[];
  readonly damaged: readonly SnapshotDamage[];
}

/**
 * Removes what is unfinished, and looks for the newest snapshot that verifies.
 * @throws KeelsonError STORAGE_VERSION for one that a newer version of Keelson has written
 */
export function scanSnapshots(
  heap: SharedHeap,
  disk: Disk,
  directory: string,
  group: number,
): SnapshotScan {
  makeDirectories(disk, directory);
  const names = disk.list(directory);
  const unfinished = names.filter((name) => TEMPORARY.test(name));
  for (const name of unfinished) disk.remove(join(directory, name));
  // The log may be purged behind what is found.
  disk.syncDirectory(directory);
  const snapshots: SnapshotInfo[] = [];
  const damaged: SnapshotDamage[] = [];
  for (const name of names.filter(isSnapshotName).reverse()) {
    const file = join(directory, name);
    try {
      snapshots.push(readSnapshotFile(heap, disk, file, group, snapshots.length === 0));
    } catch (error) {
      const damage = damageOf(error, file);
      if (damage === undefined) throw error;
      damaged.push(damage);
    }
  }
  return { snapshots, damaged };
}

/**
 * What an error of reading says of the file, if it says anything: a bad sector is as good as a flipped bit,
 * and an older snapshot may do.
 */
export function damageOf(error: unknown, file: string): SnapshotDamage | undefined {
  const { code, message } = error as NodeJS.ErrnoException;
  const { details } = error as Partial<KeelsonError>;
  if (code === 'KEELSON_STORAGE_CORRUPT') return details as unknown as SnapshotDamage;
  if (code !== 'EIO' && details?.systemCode !== 'EIO') return undefined;
  return { file, offset: 0, finding: `it cannot be read: ${message}` };
}

/** @throws KeelsonError STORAGE_CORRUPT with file and offset */
export function readSnapshotFile(
  heap: SharedHeap,
  disk: Disk,
  file: string,
  group: number,
  toItsEnd: boolean,
): SnapshotInfo {
  const reader = new SnapshotFileReader(heap, disk, file);
  try {
    if (toItsEnd) reader.verify();
    const { header, fileBytes } = reader;
    if (header.group !== group) throw foreignGroup(file, header.group, group);
    return { ...header, file, bytes: fileBytes, received: file.endsWith(RECEIVED) };
  } finally {
    reader.close();
  }
}

/** Gives a file that is durable under a temporary name its own; when it cannot, nothing is left of it. */
export function publishSnapshot(
  disk: Disk,
  directory: string,
  temporary: string,
  header: SnapshotHeader,
  bytes: number,
  received: boolean,
): SnapshotInfo {
  const index = String(header.lastIncluded.index).padStart(16, '0');
  const suffix = received ? RECEIVED : '.snap';
  const file = join(directory, `snapshot-${index}-${header.id}${suffix}`);
  try {
    disk.rename(temporary, file);
    disk.syncDirectory(directory);
  } catch (error) {
    for (const path of [temporary, file]) if (disk.exists(path)) disk.remove(path);
    throw error;
  }
  return { ...header, file, bytes, received };
}

function foreignGroup(file: string, found: number, group: number): KeelsonError {
  const finding = `it is of group ${found}, and stands with those of group ${group}`;
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `the snapshot ${file} is misplaced: ${finding}`,
    {
      details: { file, offset: 0, finding },
    },
  );
}
