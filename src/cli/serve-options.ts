/**
 * The flags of `keelson serve` and what they must look like. Everything is checked before anything
 * is opened, so that a call with a typo leaves no directory behind.
 */
import { type Flag, readFlags, wholeNumberFlag } from './flags.js';
import { UsageError } from './usage.js';

type ServeFlag =
  | 'node-id'
  | 'data-dir'
  | 'listen'
  | 'http'
  | 'initial-cluster'
  | 'cluster-name'
  | 'advertise'
  | 'config'
  | 'log-level';

export const SERVE_FLAGS: Readonly<Record<ServeFlag, Flag>> = {
  'node-id': {
    value: 'N',
    required: true,
    environment: 'KEELSON_NODE_ID',
    about: 'Which of the nodes of the cluster this is: a whole number from 1.',
  },
  'data-dir': {
    value: 'DIR',
    required: true,
    environment: 'KEELSON_DATA_DIR',
    about:
      'Where this node keeps its log. Made when absent; belongs to one node, and to one process at a time.',
  },
  listen: {
    value: 'HOST:PORT',
    required: true,
    environment: 'KEELSON_LISTEN',
    about: 'Address to bind for the other nodes. Unencrypted: a trusted network only.',
  },
  http: {
    value: 'HOST:PORT',
    required: true,
    environment: 'KEELSON_HTTP',
    about: 'Address to bind for clients. Unencrypted and without login: a trusted network only.',
  },
  'initial-cluster': {
    value: '1=HOST:PORT,2=…',
    required: true,
    environment: 'KEELSON_INITIAL_CLUSTER',
    about:
      'The 1 to 7 voters that a new cluster starts with, the same on each of them. Ignored once the node has data.',
  },
  'cluster-name': {
    value: 'NAME',
    environment: 'KEELSON_CLUSTER_NAME',
    about: 'Nodes of clusters with different names refuse one another. Default: keelson.',
  },
  advertise: {
    value: 'HOST:PORT',
    environment: 'KEELSON_ADVERTISE',
    about:
      'Where the other nodes are to reach this one, if it has moved from the address that the cluster knows it by.',
  },
  config: {
    value: 'FILE',
    environment: 'KEELSON_CONFIG',
    about:
      'JSON file with settings; `keelson config --print` shows all of them and their defaults.',
  },
  'log-level': {
    value: 'LEVEL',
    environment: 'KEELSON_LOG_LEVEL',
    about: 'debug, info, warn, error or silent. Logs are lines of JSON on stderr. Default: info.',
  },
};

export interface HostAndPort {
  readonly host: string;
  readonly port: number;
}

export interface ServeOptions {
  readonly nodeId: number;
  readonly dataDir: string;
  readonly listen: string;
  readonly advertise: string | undefined;
  readonly http: HostAndPort;
  readonly voters: Readonly<Record<number, string>>;
  readonly clusterName: string;
  readonly configFile: string | undefined;
  readonly logLevel: string;
}

const MAX_VOTERS = 7;
const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'];

export function readServeOptions(
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): ServeOptions {
  const flags = readFlags(SERVE_FLAGS, args, environment);
  const nodeId = wholeNumberFlag('node-id', flags['node-id'] ?? '', 1, Number.MAX_SAFE_INTEGER);
  const voters = readInitialCluster(flags['initial-cluster'] ?? '');
  if (voters[nodeId] === undefined) {
    throw new UsageError(`--initial-cluster does not name this node (--node-id ${nodeId})`);
  }
  const logLevel = flags['log-level'] ?? 'info';
  if (!LOG_LEVELS.includes(logLevel)) {
    throw new UsageError(`--log-level must be one of ${LOG_LEVELS.join(', ')}, not "${logLevel}"`);
  }
  return {
    nodeId,
    dataDir: flags['data-dir'] ?? '',
    listen: addressText('listen', flags.listen ?? ''),
    advertise:
      flags.advertise === undefined ? undefined : addressText('advertise', flags.advertise),
    http: readAddress('http', flags.http ?? ''),
    voters,
    clusterName: flags['cluster-name'] ?? 'keelson',
    configFile: flags.config,
    logLevel,
  };
}

/** `HOST:PORT`, an IPv6 host in brackets. */
export function readAddress(flag: string, text: string): HostAndPort {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) {
    throw new UsageError(`--${flag} must be HOST:PORT (an IPv6 host in brackets), not "${text}"`);
  }
  return { host, port };
}

function addressText(flag: string, text: string): string {
  readAddress(flag, text);
  return text;
}

function readInitialCluster(text: string): Record<number, string> {
  const voters: Record<number, string> = {};
  for (const part of text.split(',')) {
    const equals = part.indexOf('=');
    const id = part.slice(0, Math.max(equals, 0)).trim();
    const nodeId = wholeNumberFlag('initial-cluster', id, 1, Number.MAX_SAFE_INTEGER);
    if (voters[nodeId] !== undefined) {
      throw new UsageError(`--initial-cluster names node ${nodeId} twice`);
    }
    voters[nodeId] = addressText('initial-cluster', part.slice(equals + 1).trim());
  }
  if (Object.keys(voters).length > MAX_VOTERS) {
    throw new UsageError(`--initial-cluster names more than ${MAX_VOTERS} voters`);
  }
  return voters;
}
