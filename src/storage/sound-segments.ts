/**
 * The segments that a lane must have: from the oldest that the newest one names, without a gap, each with
 * a sound header and checkpoint.
 */
import { KeelsonError } from '../base/errors.js';
import type { GroupCheckpoint } from './hard-state.js';
import type { InspectedSegment } from './lane-inspection.js';
import type { SegmentHeader } from './segment-file.js';

export interface SoundSegment extends InspectedSegment {
  readonly header: SegmentHeader;
  readonly checkpoint: readonly GroupCheckpoint[];
}

/** In order; what stands in front of the oldest that is needed is left out, whatever it is. */
export function soundSegments(inspected: readonly InspectedSegment[]): SoundSegment[] {
  const sound: SoundSegment[] = [];
  const newest = inspected[inspected.length - 1];
  if (newest === undefined) return sound;
  const { oldest } = headerOf(newest);
  for (const segment of inspected) {
    if (segment.sequence < oldest) continue;
    const { path, checkpoint } = segment;
    const header = headerOf(segment);
    if (checkpoint === undefined) {
      throw damage(path, 4096, undefined, 'the checkpoint of the segment is unreadable');
    }
    if (segment.fileBytes < header.fileBytes) {
      throw damage(
        path,
        segment.fileBytes,
        undefined,
        `the file ends there, but was made ${header.fileBytes} bytes long`,
      );
    }
    const before = sound[sound.length - 1]?.sequence ?? oldest - 1;
    if (before + 1 !== segment.sequence) {
      throw damage(
        path,
        0,
        undefined,
        `the segment before it (${segment.sequence - 1}) is missing`,
      );
    }
    sound.push({ ...segment, header, checkpoint });
  }
  return sound;
}

function headerOf({ path, header, newerVersion }: InspectedSegment): SegmentHeader {
  if (newerVersion !== undefined) {
    throw new KeelsonError(
      'KEELSON_STORAGE_VERSION',
      `${path} has format ${newerVersion}, which this program does not know. Use a newer version.`,
      { details: { file: path, version: newerVersion } },
    );
  }
  // A file gets this name only when its header and checkpoint are durable.
  if (header === undefined) {
    throw damage(path, 0, undefined, 'the header of the segment is unreadable');
  }
  return header;
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
