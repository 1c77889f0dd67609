/** Keelson: an embeddable, replicated storage engine. The public API; the only barrel. */
export type {
  CallOptions,
  Consistency,
  LogDamage,
  RaftEvents,
  RaftHandle,
  ReadOptions,
  SnapshotOptions,
  SnapshotProgress,
  SnapshotResult,
  SnapshotTransferStatus,
  Status,
  WriteResult,
} from './api.js';
export { type ErrorCode, KeelsonError, type LeaderHint, type Outcome } from './base/errors.js';
export type { LogFields, Logger } from './base/logger.js';
export { explainMemory } from './config/explain.js';
export { loadConfig } from './config/load-config.js';
export { resolveConfig } from './config/resolve.js';
export type { Config, ConfigInput } from './config/types.js';
export type { LogId, LostRange, NodeId, Role } from './engine/types.js';
export { Raft } from './raft.js';
export type { RaftOptions } from './raft-options.js';
export type { LeaderTask } from './runtime/leader-tasks.js';
export { msgpackCodec, rawCodec } from './state-machine/codec.js';
export { KeyValueMachine, keyValueModule } from './state-machine/key-value.js';
export type { Codec, Entry, StateMachine } from './state-machine/state-machine.js';
