import { invariant } from './invariant.js';
import type { NodeId } from './types.js';

/** What the engine must be told. Ranges are checked for users in the configuration schema. */
export interface EngineConfig {
  readonly nodeId: NodeId;
  readonly seed: number;
  /** Least election timeout; each one is drawn from [t, 2t). */
  readonly electionTimeoutMs: number;
  /** At most half of `electionTimeoutMs`. */
  readonly heartbeatIntervalMs: number;
  /** Ask whether an election could be won before the term is raised (Ongaro's thesis, 9.6). */
  readonly preVote: boolean;
  /** A leader that hears no majority steps down; followers of a live leader ignore candidates. */
  readonly checkQuorum: boolean;
  /** Append messages sent to one follower and not yet answered. */
  readonly maxInflightMessages: number;
  /** Bytes of entries sent to one follower and not yet answered. */
  readonly maxInflightBytes: number;
  /** Bytes of entries in one append message. */
  readonly maxAppendBytes: number;
  /** A leader without a quorum refuses writes beyond this many uncommitted entries. */
  readonly maxUncommittedEntries: number;
  /** Entries kept before those that the oldest kept snapshot makes necessary, for slow followers. */
  readonly keepEntries: number;
}

export function checkConfig(config: EngineConfig): void {
  invariant(Number.isSafeInteger(config.nodeId) && config.nodeId > 0, 'node id', config.nodeId);
  invariant(config.electionTimeoutMs >= 4, 'election timeout', config.electionTimeoutMs);
  invariant(
    config.heartbeatIntervalMs > 0 && config.heartbeatIntervalMs * 2 <= config.electionTimeoutMs,
    'heartbeat interval is at most half an election timeout',
    config.heartbeatIntervalMs,
    config.electionTimeoutMs,
  );
  invariant(config.maxInflightMessages > 0, 'in-flight messages', config.maxInflightMessages);
  invariant(config.maxInflightBytes > 0, 'in-flight bytes', config.maxInflightBytes);
  invariant(config.maxAppendBytes > 0, 'append bytes', config.maxAppendBytes);
  invariant(config.maxUncommittedEntries > 0, 'uncommitted bound', config.maxUncommittedEntries);
  invariant(config.keepEntries >= 0, 'entries kept', config.keepEntries);
}
