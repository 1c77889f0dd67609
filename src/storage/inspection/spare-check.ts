/**
 * The files that wait to become segments. One that is told to be all zero must be: as a segment, what
 * stands there would be taken for a tail that a crash has left, or for damage.
 */
import type { Disk, DiskFile } from '../disk.js';
import { listSpares, sparePath } from '../segment-file.js';
import { withFileIfThere } from './file-if-there.js';
import type { Finding } from './finding.js';

export interface SpareSurvey {
  readonly file: string;
  readonly fileBytes: number;
  /** The segment that it was; 0 if it is all zero. */
  readonly sequence: number;
}

const STEP_BYTES = 1024 * 1024;

/** Those that are still there when they are looked at. */
export function surveySpares(disk: Disk, folder: string, lane: number): SpareSurvey[] {
  const spares: SpareSurvey[] = [];
  for (const sequence of listSpares(disk, folder, lane)) {
    const file = sparePath(folder, lane, sequence);
    const fileBytes = withFileIfThere(disk, file, (open) => open.size());
    if (fileBytes !== undefined) spares.push({ file, fileBytes, sequence });
  }
  return spares;
}

export function checkSpare(disk: Disk, { file, sequence }: SpareSurvey): Finding[] {
  if (sequence !== 0) return [];
  const position = withFileIfThere(disk, file, firstByteSet);
  if (position === undefined) return [];
  // The log may have taken it meanwhile: then it has another name by now.
  const stands = withFileIfThere(disk, file, (open) => isSet(open, position));
  if (stands !== true) return [];
  return [
    {
      code: 'KEELSON_STORAGE_CORRUPT',
      file,
      offset: position,
      group: undefined,
      index: undefined,
      lastIndex: undefined,
      meaning:
        `${file} is to hold zeros only, and does not at ${position}: once it is a segment, a start could ` +
        'refuse it. No data is lost. Close the node, then remove this file.',
    },
  ];
}

function firstByteSet(file: DiskFile): number | undefined {
  const bytes = Buffer.alloc(STEP_BYTES);
  const zeros = Buffer.alloc(STEP_BYTES);
  for (let position = 0; ; position += STEP_BYTES) {
    const read = file.read(bytes, position);
    if (bytes.compare(zeros, 0, read, 0, read) !== 0) {
      return position + bytes.findIndex((byte) => byte !== 0);
    }
    if (read < STEP_BYTES) return undefined;
  }
}

function isSet(file: DiskFile, position: number): boolean {
  const byte = new Uint8Array(1);
  return file.read(byte, position) === 1 && byte[0] !== 0;
}
