/**
 * Everything that a data directory holds: whose it is, the log of its groups, their snapshots, its files, and what is
 * wrong.
 * Changes nothing and takes no lock, so that a directory may be looked at while a node uses it.
 */
import { join } from 'node:path';
import { KeelsonError } from '../../base/errors.js';
import { SharedHeap } from '../../wasm/shared-heap.js';
import { corrupt } from '../checked-file.js';
import { damageOfLanes, LOG_FOLDER } from '../data-directory.js';
import type { Disk } from '../disk.js';
import { MANIFEST_FILE, type Manifest, readManifest } from '../manifest.js';
import { PeerRegistry } from '../peer-registry.js';
import { laneOf } from '../segment-file.js';
import { type Finding, findingOf, isSameFinding } from './finding.js';
import { type LaneSurvey, surveyLane } from './lane-survey.js';
import { type SnapshotSurvey, surveySnapshots } from './snapshot-survey.js';
import { type SpaceByKind, surveySpace } from './space.js';
import { checkSpare, type SpareSurvey, surveySpares } from './spare-check.js';

export interface DirectorySurvey {
  readonly directory: string;
  /** Absent when it cannot be read. */
  readonly identity: Manifest | undefined;
  /** Which incarnation of each peer the node has met: node id, incarnation. */
  readonly peers: readonly (readonly [number, string])[];
  readonly lanes: readonly LaneSurvey[];
  readonly spares: readonly SpareSurvey[];
  readonly snapshots: readonly SnapshotSurvey[];
  readonly space: SpaceByKind;
  readonly problems: readonly Finding[];
  readonly notes: readonly Finding[];
}

/** The most that a heap can have: what is not touched takes no memory. */
const HEAP_BYTES = 65_535 * 65_536;

/** Memory for the index of any log that this machine could open; belongs to one call at a time. */
export function surveyHeap(): SharedHeap {
  return SharedHeap.create({ maximumBytes: HEAP_BYTES });
}

/** Whether there is anything in it that belongs to a node. */
export function isDataDirectory(disk: Disk, directory: string): boolean {
  return disk.exists(join(directory, MANIFEST_FILE)) || disk.exists(join(directory, LOG_FOLDER));
}

/**
 * Looks at all of it, and once more if anything is found. A batch is written once, and sequences of segments
 * are never used again: what looked damaged because the log went on meanwhile is whole or gone in the second
 * pass, which may meet such a place too, but not the same one. Damage stays where it is.
 */
export async function verifyDirectory(
  heap: SharedHeap,
  disk: Disk,
  directory: string,
): Promise<DirectorySurvey> {
  const first = await surveyDirectory(heap, disk, directory);
  if (first.problems.length + first.notes.length === 0) return first;
  const second = await surveyDirectory(heap, disk, directory);
  return {
    ...second,
    problems: inBoth(first.problems, second.problems),
    notes: inBoth(first.notes, second.notes),
  };
}

function inBoth(first: readonly Finding[], second: readonly Finding[]): Finding[] {
  return second.filter((finding) => first.some((before) => isSameFinding(before, finding)));
}

async function surveyDirectory(
  heap: SharedHeap,
  disk: Disk,
  directory: string,
): Promise<DirectorySurvey> {
  const problems: Finding[] = [];
  const reading = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof KeelsonError)) throw error;
      problems.push(findingOf(error));
      return undefined;
    }
  };
  const identity = reading(() => readManifest(disk, directory));
  const peers = reading(() => PeerRegistry.open(disk, directory).list()) ?? [];
  const folder = join(directory, LOG_FOLDER);
  const lanes: LaneSurvey[] = [];
  const spares: SpareSurvey[] = [];
  for (const lane of lanesOf(disk, folder, identity)) {
    heap.reset();
    const survey = await surveyLane(heap, disk, folder, lane, identity?.laneCount);
    lanes.push(survey);
    problems.push(...survey.problems);
    const ofLane = surveySpares(disk, folder, lane);
    spares.push(...ofLane);
    problems.push(...ofLane.flatMap((spare) => checkSpare(disk, spare)));
  }
  heap.reset();
  const snapshots = surveySnapshots(heap, disk, directory, (error) =>
    problems.push(findingOf(error)),
  );
  problems.push(...checkBelonging(disk, directory, identity, lanes));
  const notes = lanes.flatMap((lane) => lane.notes);
  const space = surveySpace(disk, directory);
  return { directory, identity, peers, lanes, spares, snapshots, space, problems, notes };
}

/** Without a manifest, those that files are named after. */
function lanesOf(disk: Disk, folder: string, identity: Manifest | undefined): number[] {
  if (!disk.exists(folder)) return [];
  if (identity !== undefined) return Array.from({ length: identity.laneCount }, (_, lane) => lane);
  const lanes = disk.list(folder).map(laneOf);
  return [...new Set(lanes)]
    .filter((lane) => lane !== undefined)
    .sort((left, right) => left - right);
}

/** One file without the other has forgotten what the node promised. */
function checkBelonging(
  disk: Disk,
  directory: string,
  identity: Manifest | undefined,
  lanes: readonly LaneSurvey[],
): Finding[] {
  const segments = lanes.reduce((count, lane) => count + lane.segments.length, 0);
  const manifest = join(directory, MANIFEST_FILE);
  if (segments > 0 && !disk.exists(manifest)) {
    return [findingOf(corrupt(manifest, 'it is missing, and there is a log'))];
  }
  if (identity === undefined) return [];
  const folder = join(directory, LOG_FOLDER);
  const names = disk.exists(folder) ? disk.list(folder) : [];
  const damage = damageOfLanes(directory, identity, names);
  return damage === undefined ? [] : [findingOf(damage)];
}
