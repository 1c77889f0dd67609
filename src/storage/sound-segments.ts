/**
 * The segments that a lane must have: from the oldest that the newest one names, without a gap, each with
 * a sound header and checkpoint.
 *
 * What is wrong is reported. Recovery refuses the lane there and then; who wants to know all of it goes on
 * with the segments that are sound.
 */
import { KeelsonError } from '../base/errors.js';
import type { GroupCheckpoint } from './hard-state.js';
import type { InspectedSegment } from './lane-inspection.js';
import type { SegmentHeader } from './segment-file.js';

export interface SoundSegment extends InspectedSegment {
  readonly header: SegmentHeader;
  readonly checkpoint: readonly GroupCheckpoint[];
}

/** Takes what is wrong with a lane; recovery throws it. */
export type ReportDamage = (damage: KeelsonError) => void;

/** In order; what stands in front of the oldest that is needed is left out, whatever it is. */
export function soundSegments(
  inspected: readonly InspectedSegment[],
  report: ReportDamage,
): SoundSegment[] {
  const sound: SoundSegment[] = [];
  const oldest = oldestNeeded(inspected);
  let before = oldest - 1;
  for (const [at, segment] of inspected.entries()) {
    const { sequence, path, header, checkpoint, fileBytes } = segment;
    if (sequence < oldest) continue;
    if (before + 1 !== sequence) {
      report(damage(path, 0, undefined, `the segment before it (${sequence - 1}) is missing`));
    }
    before = sequence;
    if (header === undefined) {
      report(withoutHeader(segment));
    } else if (checkpoint === undefined) {
      report(damage(path, 4096, undefined, 'the checkpoint of the segment is unreadable'));
    } else {
      const needed = bytesNeeded(header, inspected[at + 1]);
      if (fileBytes < needed) {
        const proof = `the file ends there, but was made ${header.fileBytes} bytes long, and ${needed} are needed`;
        report(damage(path, fileBytes, undefined, proof));
      }
      sound.push({ ...segment, header, checkpoint });
    }
  }
  return sound;
}

/** What stands behind the end of a segment is given back once the next one tells where that is. */
function bytesNeeded(
  { sequence, startLsn, fileBytes }: SegmentHeader,
  next: InspectedSegment | undefined,
): number {
  if (next === undefined) return fileBytes;
  if (next.header === undefined || next.sequence !== sequence + 1) return 0;
  return Math.min(fileBytes, next.header.prevEnd - startLsn);
}

/** As the newest segment with a header says. */
function oldestNeeded(inspected: readonly InspectedSegment[]): number {
  const newest = inspected.findLast(({ header }) => header !== undefined);
  return newest?.header?.oldest ?? inspected[0]?.sequence ?? 1;
}

/** A file gets this name only when its header and checkpoint are durable. */
function withoutHeader({ path, newerVersion }: InspectedSegment): KeelsonError {
  if (newerVersion === undefined) {
    return damage(path, 0, undefined, 'the header of the segment is unreadable');
  }
  return new KeelsonError(
    'KEELSON_STORAGE_VERSION',
    `${path} has format ${newerVersion}, which this program does not know. Use a newer version.`,
    { details: { file: path, version: newerVersion } },
  );
}

/** Says that acknowledged data is lost, and what proves it. */
export function damage(
  file: string,
  offset: number,
  group: number | undefined,
  proof: string,
): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `Acknowledged data is lost in ${file} at ${offset}: ${proof}. Do not go on with this directory; ` +
      'restore it, or let this node start empty and be readmitted by its peers.',
    { details: { file, offset, group } },
  );
}
