/**
 * The configuration of a node, complete and frozen. What each field means, its default, range and unit
 * stand in schema.ts (and in docs/configuration.md, which is generated from it). Times are in
 * milliseconds and sizes in bytes unless the name says otherwise.
 */
export interface Config {
  readonly raft: RaftConfig;
  readonly storage: StorageConfig;
  readonly network: NetworkConfig;
  readonly limits: LimitsConfig;
  readonly stateMachine: StateMachineConfig;
  readonly snapshot: SnapshotConfig;
  readonly http: HttpConfig;
}

export interface RaftConfig {
  readonly electionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
  readonly maxAppendBytes: number;
  readonly maxUncommittedEntries: number;
}

export interface StorageConfig {
  readonly segmentBytes: number;
  readonly ringBytes: number;
  readonly maxIndexBytes: number;
  readonly lanes: number;
  readonly maxBatchBytes: number;
  readonly maxBatchEntries: number;
  readonly maxQueuedBatches: number;
  readonly lingerMicros: number;
  readonly directIo: 'auto' | 'off';
  readonly recovery: 'torn-tail' | 'strict' | 'repair';
  readonly flushStallMs: number;
  readonly workerStartTimeoutMs: number;
}

export interface NetworkConfig {
  readonly maxFrameBytes: number;
  readonly maxQueuedBytes: number;
  readonly maxRequests: number;
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  readonly reconnectMinMs: number;
  readonly reconnectMaxMs: number;
}

export interface LimitsConfig {
  readonly maxEntryBytes: number;
  readonly maxPendingWrites: number;
  readonly maxPendingBytes: number;
  readonly maxPendingReads: number;
  readonly callTimeoutMs: number;
  readonly shutdownTimeoutMs: number;
}

export interface StateMachineConfig {
  readonly maxApplyEntries: number;
  readonly maxApplyBytes: number;
  readonly applySliceMs: number;
  readonly maxQueuedApplies: number;
  readonly workerStartTimeoutMs: number;
}

export interface SnapshotConfig {
  readonly everyEntries: number;
  readonly everyBytes: number;
  readonly keep: number;
  readonly keepEntries: number;
  readonly buildTimeoutMs: number;
  readonly chunkBytes: number;
  readonly maxInflightBytes: number;
  readonly maxBytesPerSecond: number;
}

export interface HttpConfig {
  readonly maxKeyBytes: number;
  readonly maxConcurrentRequests: number;
  readonly maxBufferedBodyBytes: number;
  readonly maxBufferedAnswerBytes: number;
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly readyLagEntries: number;
}

/** What a user gives: any part of it; the rest takes its default. */
export type ConfigInput = {
  readonly [Section in keyof Config]?: Partial<Config[Section]> | undefined;
};
