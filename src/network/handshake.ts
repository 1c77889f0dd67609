import type { NodeId } from '../engine/types.js';
import { isAddress } from './address.js';
import {
  type FlatRecord,
  integerField,
  packRecord,
  RECORD,
  stringField,
  unpackRecord,
} from './control-codec.js';
import { corruptFrame, WIRE_VERSION } from './frame.js';
import type { NodeIdentity } from './network.js';

/**
 * The handshake. The dialling node sends `hello`, the other answers `welcome` with its own identity,
 * or `refusal` with a reason; the dialling node checks the welcome by the same rules and may refuse
 * too. Nothing else is read before it, and nobody is remembered who did not pass it.
 *
 * A node is told apart from another that took its id by its incarnation: whoever knows another one
 * refuses, because a node that lost its directory has also lost its votes.
 */
export interface VersionRange {
  readonly min: number;
  readonly max: number;
}

export interface NodeVersions {
  readonly wire: VersionRange;
  /** Of entries and records, in the log and on the wire. */
  readonly format: VersionRange;
  /** Of the commands of the state machine. */
  readonly stateMachine: VersionRange;
}

export const WIRE_VERSIONS: VersionRange = { min: WIRE_VERSION, max: WIRE_VERSION };

/** What peers have been seen, durably; implemented beside the data directory. */
export interface PeerRegistry {
  /** `conflict`: another incarnation of this node id is known. */
  check(nodeId: NodeId, incarnation: string): 'new' | 'known' | 'conflict';
  /** Called for `new` only; the handshake waits until it is durable. */
  remember(nodeId: NodeId, incarnation: string): void | Promise<void>;
}

/** A connection carries either what must never wait, or what may be large. */
export type Channel = 'control' | 'bulk';

export interface Hello {
  readonly identity: NodeIdentity;
  readonly versions: NodeVersions;
  readonly channel: Channel;
  /** Whom the sender believes to talk to. */
  readonly target: NodeId;
  /** Where the sender wants to be dialled, if elsewhere than the membership says. */
  readonly advertise: string | undefined;
}

export type RefusalReason =
  | 'cluster'
  | 'node'
  | 'incarnation'
  | 'wire-version'
  | 'format-version'
  | 'state-machine-version'
  | 'registry';

export interface Refusal {
  readonly reason: RefusalReason;
  /** For people: what did not fit, with both values. */
  readonly text: string;
}

/** Why `mine` refuses `theirs`; undefined when it does not. `expected`: whom it dialled, if it did. */
export function refuse(
  mine: Hello,
  theirs: Hello,
  expected: NodeId | undefined,
  registry: PeerRegistry,
): Refusal | undefined {
  const { identity } = theirs;
  const { nodeId } = mine.identity;
  if (identity.clusterId !== mine.identity.clusterId) {
    return {
      reason: 'cluster',
      text: `node ${nodeId} is of cluster ${mine.identity.clusterId}, node ${identity.nodeId} of cluster ${identity.clusterId}`,
    };
  }
  if (theirs.target !== nodeId) {
    return { reason: 'node', text: `this is node ${nodeId}, not node ${theirs.target}` };
  }
  if (identity.nodeId === nodeId || (expected !== undefined && identity.nodeId !== expected)) {
    return {
      reason: 'node',
      text: `node ${nodeId} met a node that calls itself ${identity.nodeId}, expected ${expected ?? 'another'}`,
    };
  }
  const version =
    versionRefusal('wire-version', mine.versions.wire, theirs.versions.wire) ??
    versionRefusal('format-version', mine.versions.format, theirs.versions.format) ??
    versionRefusal(
      'state-machine-version',
      mine.versions.stateMachine,
      theirs.versions.stateMachine,
    );
  if (version !== undefined) return version;
  if (registry.check(identity.nodeId, identity.incarnation) === 'conflict') {
    return {
      reason: 'incarnation',
      text: `node ${nodeId} knows node ${identity.nodeId} under another incarnation than ${identity.incarnation}: it has lost or changed its data directory`,
    };
  }
  return undefined;
}

function versionRefusal(
  reason: RefusalReason,
  mine: VersionRange,
  theirs: VersionRange,
): Refusal | undefined {
  if (mine.min <= theirs.max && theirs.min <= mine.max) return undefined;
  return {
    reason,
    text: `${reason}: ${mine.min} to ${mine.max} here, ${theirs.min} to ${theirs.max} there`,
  };
}

export function packHello(hello: Hello): Uint8Array {
  const { identity, versions } = hello;
  return packRecord({
    wireMin: versions.wire.min,
    wireMax: versions.wire.max,
    formatMin: versions.format.min,
    formatMax: versions.format.max,
    machineMin: versions.stateMachine.min,
    machineMax: versions.stateMachine.max,
    clusterId: identity.clusterId,
    nodeId: identity.nodeId,
    incarnation: identity.incarnation,
    channel: hello.channel,
    target: hello.target,
    advertise: hello.advertise ?? null,
  });
}

/** @throws KeelsonError CORRUPT_FRAME */
export function unpackHello(bytes: Uint8Array): Hello {
  const record = unpackRecord(bytes, RECORD.hello);
  const channel = stringField(record, 'channel');
  if (channel !== 'control' && channel !== 'bulk') throw corruptFrame('an unknown channel');
  return {
    identity: {
      clusterId: idField(record, 'clusterId'),
      nodeId: integerField(record, 'nodeId', 1),
      incarnation: idField(record, 'incarnation'),
    },
    versions: {
      wire: rangeField(record, 'wire'),
      format: rangeField(record, 'format'),
      stateMachine: rangeField(record, 'machine'),
    },
    channel,
    target: integerField(record, 'target', 1),
    advertise: addressField(record, 'advertise'),
  };
}

const MAX_TEXT_CHARACTERS = 512;

export function packRefusal(refusal: Refusal): Uint8Array {
  return packRecord({ reason: refusal.reason, text: refusal.text.slice(0, MAX_TEXT_CHARACTERS) });
}

/** @throws KeelsonError CORRUPT_FRAME */
export function unpackRefusal(bytes: Uint8Array): Refusal {
  const record = unpackRecord(bytes, RECORD.refusal);
  const reason = stringField(record, 'reason');
  const text = stringField(record, 'text');
  if (!/^[a-z-]{1,32}$/.test(reason)) throw corruptFrame('an unknown reason');
  return { reason: reason as RefusalReason, text: text.slice(0, MAX_TEXT_CHARACTERS) };
}

function idField(record: FlatRecord, field: string): string {
  const id = stringField(record, field);
  if (!/^[0-9a-f]{32}$/.test(id))
    throw corruptFrame(`field ${field} is not 16 bytes in hexadecimal`);
  return id;
}

function addressField(record: FlatRecord, field: string): string | undefined {
  const address = record[field];
  if (address === null) return undefined;
  if (!isAddress(address)) throw corruptFrame(`field ${field} is not an address`);
  return address;
}

function rangeField(record: FlatRecord, name: string): VersionRange {
  const min = integerField(record, `${name}Min`, 1);
  const max = integerField(record, `${name}Max`, min);
  return { min, max };
}
