import { KeelsonError } from './base/errors.js';
import type { Membership, NodeId } from './engine/types.js';

/** The options of `Raft.open` that say who is who, and the first membership that follows from them. */
export interface BootstrapOptions {
  /** This node, 1 or more; fixed for the life of the data directory. */
  readonly nodeId: NodeId;
  /** Nodes of clusters with other names are refused. */
  readonly clusterName: string;
  /** Directory of this node alone; made when absent. */
  readonly dataDir: string;
  /** `host:port` to bind. */
  readonly listen: string;
  /** `host:port` that peers connect to; resolved on every connect. Default: `listen`. */
  readonly advertise?: string | undefined;
  /** The first voters, the same on every node. Ignored once there is a log. */
  readonly bootstrap: { readonly voters: Readonly<Record<NodeId, string>> };
}

const MAX_VOTERS = 7;
const MAX_NAME_LENGTH = 255;
/** `host:port`, with an IPv6 host in brackets. */
const ADDRESS = /^(\[[0-9a-fA-F:.]+\]|[^\s:[\]]+):\d{1,5}$/;

/** @throws KeelsonError KEELSON_INVALID_CONFIG with every violation at once */
export function bootstrapMembership(options: BootstrapOptions): Membership {
  const violations = [...optionViolations(options), ...voterViolations(options)];
  if (violations.length > 0) {
    const lines = violations.map(({ field, message }) => `  ${field} ${message}`);
    throw new KeelsonError('KEELSON_INVALID_CONFIG', `invalid options:\n${lines.join('\n')}`, {
      details: { violations },
    });
  }
  const { voters } = options.bootstrap;
  const ids = Object.keys(voters).map(Number);
  return { configs: [ids.sort((a, b) => a - b)], learners: [], addresses: { ...voters } };
}

interface Violation {
  readonly field: string;
  readonly message: string;
}

const isNodeId = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) > 0;
const isAddress = (value: unknown): boolean =>
  typeof value === 'string' && ADDRESS.test(value) && Number(value.split(':').at(-1)) <= 65_535;

function optionViolations(options: BootstrapOptions): Violation[] {
  const { nodeId, clusterName, dataDir, listen, advertise } = options;
  const violations: Violation[] = [];
  const expect = (holds: boolean, field: string, message: string): void => {
    if (!holds) violations.push({ field, message });
  };
  expect(isNodeId(nodeId), 'nodeId', `must be a whole number from 1 on, not ${String(nodeId)}`);
  expect(
    typeof clusterName === 'string' && clusterName !== '' && clusterName.length <= MAX_NAME_LENGTH,
    'clusterName',
    `must be a name of 1 to ${MAX_NAME_LENGTH} characters`,
  );
  expect(typeof dataDir === 'string' && dataDir !== '', 'dataDir', 'must name a directory');
  expect(isAddress(listen), 'listen', `must be host:port, not ${String(listen)}`);
  expect(
    advertise === undefined || isAddress(advertise),
    'advertise',
    `must be host:port, not ${String(advertise)}`,
  );
  return violations;
}

function voterViolations(options: BootstrapOptions): Violation[] {
  const voters: unknown = options.bootstrap?.voters;
  if (typeof voters !== 'object' || voters === null) {
    return [{ field: 'bootstrap.voters', message: 'must map node ids to addresses' }];
  }
  const entries = Object.entries(voters);
  const violations = entries.flatMap(([id, address]) => {
    const field = `bootstrap.voters.${id}`;
    if (!isNodeId(Number(id))) return [{ field, message: 'is not a node id' }];
    return isAddress(address) ? [] : [{ field, message: `must be host:port, not ${address}` }];
  });
  if (entries.length < 1 || entries.length > MAX_VOTERS) {
    const message = `must name 1 to ${MAX_VOTERS} voters, not ${entries.length}`;
    violations.push({ field: 'bootstrap.voters', message });
  }
  if (!Object.hasOwn(voters, String(options.nodeId))) {
    violations.push({ field: 'bootstrap.voters', message: `must name node ${options.nodeId}` });
  }
  return violations;
}
