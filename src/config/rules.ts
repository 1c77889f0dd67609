/**
 * What must hold between fields. Entry < append < frame ≤ ring/4 and ≤ segment/4 is one chain: an
 * entry that is accepted must fit into a message, into the ring of every node, and into a segment.
 *
 * A rule is skipped when one of its fields is invalid by itself: its message would only confuse.
 */
import type { Violation } from './schema.js';
import type { Config } from './types.js';

/** What framing and block headers add to an entry; generous. */
export const FRAME_OVERHEAD_BYTES = 4096;

interface Rule {
  /** The first one is named by the violation. */
  readonly fields: readonly [string, ...string[]];
  holds(config: Config): boolean;
  message(config: Config): string;
}

const rules: readonly Rule[] = [
  {
    fields: ['raft.heartbeatIntervalMs', 'raft.electionTimeoutMs'],
    holds: ({ raft }) => raft.heartbeatIntervalMs * 3 <= raft.electionTimeoutMs,
    message: ({ raft }) =>
      `must be at most a third of raft.electionTimeoutMs (${raft.electionTimeoutMs}), so that two lost heartbeats start no election`,
  },
  {
    fields: ['limits.maxEntryBytes', 'network.maxFrameBytes'],
    holds: ({ limits, network }) =>
      limits.maxEntryBytes + FRAME_OVERHEAD_BYTES <= network.maxFrameBytes,
    message: ({ network }) =>
      `must be at least ${FRAME_OVERHEAD_BYTES} below network.maxFrameBytes (${network.maxFrameBytes})`,
  },
  {
    fields: ['raft.maxAppendBytes', 'network.maxFrameBytes'],
    holds: ({ raft, network }) =>
      raft.maxAppendBytes + FRAME_OVERHEAD_BYTES <= network.maxFrameBytes,
    message: ({ network }) =>
      `must be at least ${FRAME_OVERHEAD_BYTES} below network.maxFrameBytes (${network.maxFrameBytes})`,
  },
  atMost('snapshot.chunkBytes', 'snapshot.maxInflightBytes'),
  {
    fields: ['snapshot.chunkBytes', 'network.maxFrameBytes'],
    holds: ({ snapshot, network }) =>
      snapshot.chunkBytes + FRAME_OVERHEAD_BYTES <= network.maxFrameBytes,
    message: ({ network }) =>
      `must be at least ${FRAME_OVERHEAD_BYTES} below network.maxFrameBytes (${network.maxFrameBytes})`,
  },
  quarter('network.maxFrameBytes', 'storage.ringBytes'),
  quarter('network.maxFrameBytes', 'storage.segmentBytes'),
  quarter('storage.maxBatchBytes', 'storage.ringBytes'),
  quarter('storage.maxBatchBytes', 'storage.segmentBytes'),
  {
    fields: ['raft.maxInflightBytes', 'storage.ringBytes'],
    holds: ({ raft, storage }) => raft.maxInflightBytes * 2 <= storage.ringBytes,
    message: ({ storage }) => `must be at most half of storage.ringBytes (${storage.ringBytes})`,
  },
  atMost('raft.maxAppendBytes', 'raft.maxInflightBytes'),
  // Otherwise one batch could be refused by a log in which nothing waits, with nothing to wait for.
  atMost('storage.maxBatchEntries', 'raft.maxUncommittedEntries'),
  atMost('network.maxFrameBytes', 'network.maxQueuedBytes'),
  atMost('limits.maxEntryBytes', 'limits.maxPendingBytes'),
  atMost('network.reconnectMinMs', 'network.reconnectMaxMs'),
  atMost('limits.maxEntryBytes', 'http.maxBufferedBodyBytes'),
  // A key may be percent-encoded, three bytes for one, and there are other headers.
  quarter('http.maxKeyBytes', 'http.maxHeaderBytes'),
  atMost('http.headersTimeoutMs', 'http.requestTimeoutMs'),
  {
    fields: ['storage.ringBytes', 'storage.maxIndexBytes', 'storage.segmentBytes', 'storage.lanes'],
    holds: ({ storage }) => sharedMemoryBytes(storage) <= MAX_SHARED_BYTES,
    message: ({ storage }) =>
      `and a quarter of it or of storage.segmentBytes (${storage.segmentBytes}), both times storage.lanes (${storage.lanes}), with storage.maxIndexBytes (${storage.maxIndexBytes}), must stay below ${MAX_SHARED_BYTES}: shared memory ends at 4 GiB`,
  },
  // Otherwise a part would be no more than what is kept of it for the log itself.
  {
    fields: ['storage.maxIndexBytes', 'storage.lanes'],
    holds: ({ storage }) => storage.maxIndexBytes >= storage.lanes * MIN_LANE_INDEX_BYTES,
    message: ({ storage }) =>
      `must be at least ${MIN_LANE_INDEX_BYTES} for each of storage.lanes (${storage.lanes})`,
  },
];

const MIN_LANE_INDEX_BYTES = 1024 ** 2;
/** 4 GiB, less what batch headers, descriptors and scratch areas take. */
const MAX_SHARED_BYTES = 4 * 1024 ** 3 - 64 * 1024 ** 2;

export function ruleViolations(config: Config, invalid: ReadonlySet<string>): Violation[] {
  return rules
    .filter((rule) => !rule.fields.some((field) => invalid.has(field)) && !rule.holds(config))
    .map((rule) => ({ field: rule.fields[0], message: rule.message(config) }));
}

/** Ring and room to read the largest entry from a segment, for each lane; index. */
function sharedMemoryBytes(storage: Config['storage']): number {
  const { ringBytes, segmentBytes, lanes, maxIndexBytes } = storage;
  return (ringBytes + Math.min(ringBytes, segmentBytes) / 4) * lanes + maxIndexBytes;
}

function quarter(field: string, whole: string): Rule {
  return {
    fields: [field, whole],
    holds: (config) => numberAt(config, field) * 4 <= numberAt(config, whole),
    message: (config) => `must be at most a quarter of ${whole} (${numberAt(config, whole)})`,
  };
}

function atMost(field: string, limit: string): Rule {
  return {
    fields: [field, limit],
    holds: (config) => numberAt(config, field) <= numberAt(config, limit),
    message: (config) => `must be at most ${limit} (${numberAt(config, limit)})`,
  };
}

function numberAt(config: Config, field: string): number {
  const [section, name] = field.split('.') as [keyof Config, string];
  return (config[section] as unknown as Record<string, number>)[name]!;
}
