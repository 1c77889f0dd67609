import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Calls `measure` with a new directory in `parent`, which is removed when it has ended. */
export async function withWorkDirectory(
  parent: string,
  measure: (directory: string) => Promise<void>,
): Promise<void> {
  mkdirSync(parent, { recursive: true });
  const directory = mkdtempSync(join(parent, 'keelson-bench-'));
  try {
    await measure(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
