import type { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler } from '../base/scheduler.js';
import type { Engine } from '../engine/engine.js';
import type { Membership, NodeId } from '../engine/types.js';
import type { Network } from '../network/network.js';
import type { MachineHost } from '../state-machine/machine-host.js';
import type { LogStore } from '../storage/log-store.js';
import type { SnapshotStore } from '../storage/snapshot-store.js';
import type { ApplyLimits } from './apply-lane.js';
import type { SendOn } from './proposals.js';
import type { ProposerLimits } from './proposer.js';
import type { ExchangeLimits } from './snapshot-exchange.js';
import type { SnapshotLimits } from './snapshot-lane.js';

/** What a runtime is put together from, and whom it tells of its group. */
export interface RuntimeParts {
  readonly group: number;
  readonly nodeId: NodeId;
  readonly engine: Engine;
  readonly store: LogStore;
  readonly network: Network;
  readonly snapshots: SnapshotStore;
  readonly machine: MachineHost;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly limits: RuntimeLimits;
  readonly snapshotLimits: SnapshotLimits & ExchangeLimits;
  /** Index that the machine has applied already, by itself or with a snapshot. */
  readonly machineApplied: number;
  /** Time of the snapshot that this node starts from, 0 without one. */
  readonly snapshotTime: number;
  readonly observer: RuntimeObserver;
  /** Why a node whose log is damaged serves nothing but local reads; undefined when it is whole. */
  readonly damage: KeelsonError | undefined;
  /** Takes over writes that this node was given as a leader and may propose no longer. */
  readonly sendOn: SendOn;
}

export interface RuntimeLimits extends ProposerLimits, ApplyLimits {
  readonly callTimeoutMs: number;
  readonly flushStallMs: number;
  readonly maxPendingReads: number;
}

/** What the owner of a runtime is told; each is called between two steps. */
export interface RuntimeObserver {
  /** Role, term, leader, membership or an index has changed. */
  changed(): void;
  leadership(): void;
  membership(membership: Membership): void;
  failed(error: KeelsonError): void;
}
