import { pack, unpack } from 'msgpackr';
import { KeelsonError } from '../base/errors.js';
import type { Membership } from '../engine/types.js';

/**
 * Payload of a membership entry: msgpack of `[version, configs, learners, [[id, address], …]]`, all
 * sorted, so that every node writes identical bytes for the same membership: the bootstrap entry
 * must be the same entry everywhere.
 */
const VERSION = 1;

/** A membership that nobody can change: the engine decides by it, and its users see the same object. */
export function frozenMembership({ configs, learners, addresses }: Membership): Membership {
  return Object.freeze({
    configs: Object.freeze(configs.map((config) => Object.freeze([...config]))),
    learners: Object.freeze([...learners]),
    addresses: Object.freeze({ ...addresses }),
  });
}

/** Of a node that has not been bootstrapped. */
export const NO_MEMBERSHIP: Membership = frozenMembership({
  configs: [[]],
  learners: [],
  addresses: {},
});

const ascending = (a: number, b: number): number => a - b;

export function encodeMembership(membership: Membership): Uint8Array {
  const addresses = Object.entries(membership.addresses)
    .map(([id, address]): [number, string] => [Number(id), address])
    .sort((a, b) => a[0] - b[0]);
  return pack([
    VERSION,
    membership.configs.map((config) => [...config].sort(ascending)),
    [...membership.learners].sort(ascending),
    addresses,
  ]);
}

const isNodeId = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) > 0;

const isNodeIds = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every(isNodeId);

const isAddresses = (value: unknown): value is [number, string][] =>
  Array.isArray(value) &&
  value.every((pair) => Array.isArray(pair) && isNodeId(pair[0]) && typeof pair[1] === 'string');

/** @throws KeelsonError KEELSON_STORAGE_VERSION or KEELSON_STORAGE_CORRUPT */
export function decodeMembership(payload: Uint8Array, index: number): Membership {
  const corrupt = (cause?: unknown): KeelsonError =>
    new KeelsonError(
      'KEELSON_STORAGE_CORRUPT',
      `the membership entry at index ${index} is malformed`,
      { details: { index }, cause },
    );
  let fields: unknown;
  try {
    fields = unpack(payload);
  } catch (cause) {
    throw corrupt(cause);
  }
  if (!Array.isArray(fields)) throw corrupt();
  const [version, configs, learners, addresses] = fields;
  if (version !== VERSION) {
    throw new KeelsonError(
      'KEELSON_STORAGE_VERSION',
      `the membership entry at index ${index} has version ${version}; this release knows ${VERSION}`,
      { details: { index, version } },
    );
  }
  if (
    !Array.isArray(configs) ||
    configs.length < 1 ||
    configs.length > 2 ||
    !configs.every(isNodeIds) ||
    !isNodeIds(learners) ||
    !isAddresses(addresses)
  ) {
    throw corrupt();
  }
  return frozenMembership({ configs, learners, addresses: Object.fromEntries(addresses) });
}

/** All voters of a membership, joint or not, ascending; frozen. */
export function votersOf(membership: Membership): readonly number[] {
  return Object.freeze([...new Set(membership.configs.flat())].sort(ascending));
}
