/**
 * Small files that are replaced as a whole and verify as a whole.
 *
 * ```
 * one line of JSON, its first field "format": a whole number
 * the SHA-256 of that line in hex
 * ```
 *
 * Written to `<name>.tmp`, synced, renamed over the old file, directory synced: after a crash the old
 * or the new file is there, never a part of one.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { KeelsonError } from '../base/errors.js';
import type { Disk } from './disk.js';

export interface CheckedContent {
  /** Version of the file's format. */
  readonly format: number;
  readonly [field: string]: unknown;
}

export function writeCheckedFile(
  disk: Disk,
  directory: string,
  name: string,
  content: CheckedContent,
): void {
  const line = JSON.stringify(content);
  const bytes = new TextEncoder().encode(`${line}\n${sha256(line)}\n`);
  const temporary = join(directory, `${name}.tmp`);
  if (disk.exists(temporary)) disk.remove(temporary);
  const file = disk.open(temporary, { access: 'write', create: true });
  try {
    file.write(bytes, 0);
    file.dataSync();
  } finally {
    file.close();
  }
  disk.rename(temporary, join(directory, name));
  disk.syncDirectory(directory);
}

/**
 * Undefined when there is no such file.
 * @throws KeelsonError STORAGE_CORRUPT when it does not verify, STORAGE_VERSION when its format is
 * newer than `newestFormat`.
 */
export function readCheckedFile(
  disk: Disk,
  directory: string,
  name: string,
  newestFormat: number,
): CheckedContent | undefined {
  const path = join(directory, name);
  if (!disk.exists(path)) return undefined;
  const text = new TextDecoder().decode(disk.readFile(path));
  const [line, checksum, rest, ...more] = text.split('\n');
  if (line === undefined || checksum !== sha256(line) || rest !== '' || more.length > 0) {
    throw corrupt(path, 'its checksum does not match its content');
  }
  const content = JSON.parse(line) as CheckedContent;
  if (!Number.isSafeInteger(content.format)) throw corrupt(path, 'it has no format number');
  if (content.format > newestFormat) {
    throw new KeelsonError(
      'KEELSON_STORAGE_VERSION',
      `${path} has format ${content.format}, this version of Keelson reads up to ${newestFormat}: ` +
        'run the version that wrote it, or a newer one',
      { details: { file: path, found: content.format, expected: newestFormat } },
    );
  }
  return content;
}

export function corrupt(path: string, finding: string): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `${path} is damaged: ${finding}. Restore it from a backup of this node's directory, or replace ` +
      'the node: remove it from the cluster and add it again with an empty directory',
    { details: { file: path } },
  );
}

function sha256(line: string): string {
  return createHash('sha256').update(line).digest('hex');
}
