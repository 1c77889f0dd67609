/** A data directory on a disk in memory, with its manifest, and what a survey of it says. */
import { SeededRandom } from '../../dist/base/random.js';
import type { Disk } from '../../dist/storage/disk.js';
import {
  type DirectorySurvey,
  surveyHeap,
  verifyDirectory,
} from '../../dist/storage/inspection/directory-survey.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { clusterIdOf, openManifest, recordLogBegun } from '../../dist/storage/manifest.js';
import { PeerRegistry } from '../../dist/storage/peer-registry.js';

const heap = surveyHeap();

/** Makes the files that stand beside the log. */
export function makeIdentity(
  disk: Disk,
  segmentBytes: number,
  directory = '/data',
  laneCount = 1,
): void {
  makeDirectories(disk, directory);
  const random = new SeededRandom(1);
  const manifest = openManifest(
    disk,
    directory,
    {
      clusterName: 'tested',
      clusterId: clusterIdOf('tested', { 1: 'a:1' }),
      nodeId: 1,
      laneCount,
      segmentBytes,
    },
    (length) => Uint8Array.from({ length }, () => random.integer(256)),
  );
  recordLogBegun(disk, directory, manifest);
  PeerRegistry.open(disk, directory).remember(2, 'ab'.repeat(16));
}

export function surveyOf(disk: Disk, directory = '/data'): Promise<DirectorySurvey> {
  return verifyDirectory(heap, disk, directory);
}
