/**
 * Makes a directory and its missing parents, durably, one after the other: each name is synced before
 * the next is made in it. So a process that is killed leaves at most the last directory without its
 * name on the disk, and whoever finds the directory there syncs it again.
 */
import { dirname, resolve } from 'node:path';
import type { Disk } from './disk.js';

export function makeDirectories(disk: Disk, path: string): void {
  const missing: string[] = [];
  let found = resolve(path);
  // A root is its own parent, and a drive may be missing.
  while (!disk.exists(found) && dirname(found) !== found) {
    missing.push(found);
    found = dirname(found);
  }
  disk.syncDirectory(dirname(found));
  for (const directory of missing.reverse()) {
    disk.makeDirectory(directory);
    disk.syncDirectory(dirname(directory));
  }
}
