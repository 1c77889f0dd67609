/** Files of a directory in use: one may be gone, or have another name, a moment after it was listed. */
import type { Disk, DiskFile } from '../disk.js';

/** Undefined when there is no such file. */
export function withFileIfThere<T>(
  disk: Disk,
  path: string,
  use: (file: DiskFile) => T,
): T | undefined {
  let file: DiskFile;
  try {
    file = disk.open(path, { access: 'read' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return use(file);
  } finally {
    file.close();
  }
}
