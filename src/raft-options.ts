/**
 * What `Raft.open` is given. All of it is checked, configuration included, before anything is opened,
 * and everything that is wrong is told at once.
 */
import { KeelsonError } from './base/errors.js';
import type { Logger } from './base/logger.js';
import { checkedConfig } from './config/resolve.js';
import type { Config, ConfigInput } from './config/types.js';
import type { Membership, NodeId } from './engine/types.js';
import { isAddress } from './network/address.js';
import { frozenMembership } from './runtime/membership-codec.js';
import { machineFault } from './state-machine/machine-fault.js';
import type { AnyStateMachine } from './state-machine/state-machine.js';

export interface RaftOptions<Machine = AnyStateMachine | URL> {
  /** This node, 1 or more; fixed for the life of the data directory. */
  readonly nodeId: NodeId;
  /** Nodes of clusters with other names are refused. */
  readonly clusterName: string;
  /** Directory of this node alone; made when absent. */
  readonly dataDir: string;
  /** `host:port` to bind. */
  readonly listen: string;
  /**
   * `host:port` where the other nodes are to reach this one, resolved on every connect. It is told to
   * them in each handshake, and asked for by a node that has moved: the first voters and the
   * membership in the log say it otherwise.
   */
  readonly advertise?: string | undefined;
  /** The first voters, the same on every node. Ignored once there is a log. */
  readonly bootstrap: { readonly voters: Readonly<Record<NodeId, string>> };
  /**
   * An object runs on the main thread; a module URL runs in a worker thread (its default export is a
   * machine, a class, or a function that makes one).
   */
  readonly stateMachine: Machine;
  readonly config?: ConfigInput | undefined;
  /** Any pino-shaped logger. Default: silent. */
  readonly logger?: Logger | undefined;
}

export interface CheckedOptions {
  readonly config: Config;
  /** The first membership; it counts only while there is no log. */
  readonly bootstrap: Membership;
}

const MAX_VOTERS = 7;
const MAX_NAME_LENGTH = 255;
const LOG_METHODS = ['debug', 'info', 'warn', 'error'] as const;

/** @throws KeelsonError KEELSON_INVALID_CONFIG with `details.violations`, every one of them */
export function checkOptions(options: RaftOptions): CheckedOptions {
  if (typeof options !== 'object' || options === null) {
    const message = `Raft.open needs an object with options, not ${String(options)}`;
    throw new KeelsonError('KEELSON_INVALID_CONFIG', message);
  }
  const violations = [...optionViolations(options), ...voterViolations(options)];
  const config = checkedConfig(options.config ?? {}, violations);
  const { voters } = options.bootstrap;
  const ids = Object.keys(voters).map(Number);
  const configs = [ids.sort((a, b) => a - b)];
  return { config, bootstrap: frozenMembership({ configs, learners: [], addresses: voters }) };
}

interface Violation {
  readonly field: string;
  readonly message: string;
}

const isNodeId = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) > 0;

function optionViolations(options: RaftOptions): Violation[] {
  const { nodeId, clusterName, dataDir, listen, advertise, stateMachine, logger } = options;
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
  expect(
    typeof dataDir === 'string' && dataDir !== '' && !dataDir.includes('\0'),
    'dataDir',
    'must name a directory',
  );
  expect(isAddress(listen), 'listen', `must be host:port, not ${String(listen)}`);
  expect(
    advertise === undefined || isAddress(advertise),
    'advertise',
    `must be host:port, not ${String(advertise)}`,
  );
  const fault = stateMachine instanceof URL ? undefined : machineFault(stateMachine);
  expect(
    fault === undefined,
    'stateMachine',
    `must be a machine, or the URL of a module that holds one: ${fault}`,
  );
  expect(
    logger === undefined || LOG_METHODS.every((method) => typeof logger?.[method] === 'function'),
    'logger',
    `must have the methods ${LOG_METHODS.join(', ')}`,
  );
  return violations;
}

function voterViolations(options: RaftOptions): Violation[] {
  const voters: unknown = options.bootstrap?.voters;
  if (typeof voters !== 'object' || voters === null) {
    return [{ field: 'bootstrap.voters', message: 'must map node ids to addresses' }];
  }
  const entries = Object.entries(voters);
  const violations = entries.flatMap(([id, address]) => {
    const field = `bootstrap.voters.${id}`;
    // One node under two spellings of its id would count as two voters.
    if (!isNodeId(Number(id)) || String(Number(id)) !== id) {
      return [{ field, message: 'is not a node id' }];
    }
    return isAddress(address)
      ? []
      : [{ field, message: `must be host:port, not ${String(address)}` }];
  });
  const { nodeId } = options;
  if (entries.length < 1 || entries.length > MAX_VOTERS) {
    const message = `must name 1 to ${MAX_VOTERS} voters, not ${entries.length}`;
    violations.push({ field: 'bootstrap.voters', message });
  } else if (isNodeId(nodeId) && !Object.hasOwn(voters, String(nodeId))) {
    violations.push({ field: 'bootstrap.voters', message: `must name node ${nodeId}` });
  }
  return violations;
}
