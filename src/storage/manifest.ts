/**
 * Whose directory this is. Written when the directory is first used, and once more when its log has
 * begun (see data-directory.ts); verified at every start.
 *
 * The cluster's name and the node id must be the ones expected. The cluster id also covers the
 * initial voters; after the first start the directory's own is the truth and travels in the
 * handshake, so that a changed bootstrap section on restart is no error (the caller compares
 * `clusterId` with its own to warn). The incarnation is random and made with the directory: an empty
 * directory that takes the place of a lost one shows as another incarnation.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { KeelsonError } from '../base/errors.js';
import type { NodeId } from '../engine/types.js';
import { type CheckedContent, corrupt, readCheckedFile, writeCheckedFile } from './checked-file.js';
import type { Disk } from './disk.js';

export const MANIFEST_FILE = 'manifest';
export const STORAGE_FORMAT_VERSION = 1;
const ID_BYTES = 16;
const ID_PATTERN = /^[0-9a-f]{32}$/;

export interface ManifestExpectation {
  readonly clusterName: string;
  /** Taken when the directory is new, see `clusterIdOf`. */
  readonly clusterId: string;
  readonly nodeId: NodeId;
  /** Of the log; 1 where the file says nothing of it. */
  readonly laneCount: number;
  readonly segmentBytes: number;
}

export interface Manifest extends ManifestExpectation {
  readonly formatVersion: number;
  /** 16 random bytes in hex. */
  readonly incarnation: string;
  /** The first segment of the log has been durable. */
  readonly logBegun: boolean;
  /** The directory was new. */
  readonly created: boolean;
}

/** Hash of the cluster's name and its initial voters: 16 bytes in hex, the same on every node. */
export function clusterIdOf(clusterName: string, voters: Readonly<Record<NodeId, string>>): string {
  const sorted = Object.entries(voters)
    .map(([nodeId, address]): [number, string] => [Number(nodeId), address])
    .sort((left, right) => left[0] - right[0]);
  const hash = createHash('sha256')
    .update(JSON.stringify([clusterName, sorted]))
    .digest('hex');
  return hash.slice(0, 2 * ID_BYTES);
}

/**
 * Makes the manifest of a new directory, or verifies the one that is there. The caller holds the
 * directory's lock, and has made sure that a directory without a manifest holds no log.
 *
 * @throws KeelsonError STORAGE_MISMATCH when the directory is another node's or cluster's, or laid out
 * with other sizes; STORAGE_VERSION when a newer Keelson wrote it; STORAGE_CORRUPT when it is damaged.
 */
export function openManifest(
  disk: Disk,
  directory: string,
  expected: ManifestExpectation,
  randomBytes: (length: number) => Uint8Array,
): Manifest {
  const found = readManifest(disk, directory);
  if (found === undefined) return createManifest(disk, directory, expected, randomBytes);
  for (const check of CHECKS) {
    if (found[check.field] !== expected[check.field]) {
      throw mismatch(directory, check, found[check.field], expected[check.field]);
    }
  }
  return found;
}

/**
 * Undefined when there is none.
 * @throws KeelsonError STORAGE_VERSION, STORAGE_CORRUPT
 */
export function readManifest(disk: Disk, directory: string): Manifest | undefined {
  const content = readCheckedFile(disk, directory, MANIFEST_FILE, STORAGE_FORMAT_VERSION);
  return content === undefined ? undefined : decode(content, join(directory, MANIFEST_FILE));
}

interface FieldCheck {
  readonly field: 'clusterName' | 'nodeId' | 'laneCount' | 'segmentBytes';
  readonly subject: string;
  readonly remedy: string;
}

const CHECKS: readonly FieldCheck[] = [
  {
    field: 'clusterName',
    subject: 'cluster',
    remedy: 'give this node the directory of its own cluster, or an empty one',
  },
  {
    field: 'nodeId',
    subject: 'node',
    remedy: 'give this node its own directory, or an empty one',
  },
  {
    field: 'laneCount',
    subject: 'number of lanes',
    remedy: 'it is fixed with the directory: configure the number found',
  },
  {
    field: 'segmentBytes',
    subject: 'segment size',
    remedy: 'it is fixed with the directory: configure the size found',
  },
];

function mismatch(
  directory: string,
  check: FieldCheck,
  found: string | number,
  expected: string | number,
): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_MISMATCH',
    `the data directory ${directory} has ${check.subject} ${JSON.stringify(found)}, ` +
      `expected ${JSON.stringify(expected)}: ${check.remedy}`,
    { details: { directory, field: check.field, found, expected } },
  );
}

function createManifest(
  disk: Disk,
  directory: string,
  expected: ManifestExpectation,
  randomBytes: (length: number) => Uint8Array,
): Manifest {
  const { clusterName, clusterId, nodeId, laneCount, segmentBytes } = expected;
  const incarnation = Buffer.from(randomBytes(ID_BYTES)).toString('hex');
  const identity = { clusterName, clusterId, nodeId, incarnation, laneCount, segmentBytes };
  const manifest: Manifest = {
    formatVersion: STORAGE_FORMAT_VERSION,
    ...identity,
    logBegun: false,
    created: true,
  };
  write(disk, directory, manifest);
  return manifest;
}

/** Durable on return. */
export function recordLogBegun(disk: Disk, directory: string, manifest: Manifest): void {
  write(disk, directory, { ...manifest, logBegun: true });
}

function write(disk: Disk, directory: string, manifest: Manifest): void {
  const { formatVersion: format, created: _, ...fields } = manifest;
  writeCheckedFile(disk, directory, MANIFEST_FILE, { format, ...fields });
}

function decode(content: CheckedContent, path: string): Manifest {
  const { format, clusterName, clusterId, nodeId, incarnation, segmentBytes } = content;
  const { laneCount = 1 } = content;
  const { logBegun } = content;
  if (
    typeof clusterName !== 'string' ||
    !isId(clusterId) ||
    !isCount(nodeId) ||
    !isId(incarnation) ||
    !isCount(laneCount) ||
    !isCount(segmentBytes) ||
    typeof logBegun !== 'boolean'
  ) {
    throw corrupt(path, 'a field is missing or has a value that it cannot have');
  }
  const identity = { clusterName, clusterId, nodeId, incarnation, laneCount, segmentBytes };
  return { formatVersion: format, ...identity, logBegun, created: false };
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && ID_PATTERN.test(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}
