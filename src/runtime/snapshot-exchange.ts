import { invariant } from '../base/assert.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler } from '../base/scheduler.js';
import type { InstallSnapshot, SendSnapshot } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { SnapshotRequest, SnapshotResponse } from '../engine/messages.js';
import type { LogIndex, NodeId } from '../engine/types.js';
import type { Network } from '../network/network.js';
import type { MachineHost } from '../state-machine/machine-host.js';
import type { SnapshotInfo } from '../storage/snapshot-format.js';
import type { SnapshotStore } from '../storage/snapshot-store.js';
import type { ApplyLane } from './apply-lane.js';
import { type ReceiveProgress, SnapshotReceiveLane } from './snapshot-receive-lane.js';
import { type SendProgress, SnapshotSendLane } from './snapshot-send-lane.js';

/**
 * Snapshots between nodes: those that this one sends as a leader, and the one that it receives and
 * restores its state machine from. A snapshot is installed in this order: its file is durable under its
 * name; the log begins anew behind it; the machine holds it. A crash between any two leaves a node that
 * starts from the file.
 */
export interface SnapshotExchangeParts {
  readonly engine: Engine;
  readonly snapshots: SnapshotStore;
  readonly network: Network;
  readonly machine: MachineHost;
  readonly applyLane: ApplyLane;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly limits: ExchangeLimits;
  /** The snapshot that is being built comes too late. */
  readonly onSuperseded: () => void;
  /** The machine holds everything up to `index`, and no entry of it has a later time than `time`. */
  readonly onInstalled: (index: LogIndex, time: number) => void;
  /** The engine was told of something outside of a step. */
  readonly onProgress: () => void;
  readonly onFailure: (error: unknown) => void;
}

export interface ExchangeLimits {
  readonly chunkBytes: number;
  readonly maxInflightBytes: number;
  readonly maxBytesPerSecond: number;
  readonly electionTimeoutMs: number;
}

/** Long enough for a follower to verify what it has received. */
const STALL_MS = 600_000;

export class SnapshotExchange {
  private readonly parts: SnapshotExchangeParts;
  private readonly sendLane: SnapshotSendLane;
  private readonly receiveLane: SnapshotReceiveLane;
  /** Gives the snapshot free whose restore has not begun. */
  private release: (() => Promise<void>) | undefined;

  constructor(parts: SnapshotExchangeParts) {
    const { limits } = parts;
    this.parts = parts;
    this.sendLane = new SnapshotSendLane({
      ...parts,
      limits: {
        ...limits,
        silenceMs: limits.electionTimeoutMs,
        stallMs: Math.max(STALL_MS, limits.electionTimeoutMs * 3),
      },
    });
    this.receiveLane = new SnapshotReceiveLane({
      ...parts,
      maxQueuedBytes: limits.maxInflightBytes,
    });
  }

  send(command: SendSnapshot): void {
    this.sendLane.send(command);
  }

  /** Behind the engine. */
  answered(from: NodeId, response: SnapshotResponse): void {
    this.sendLane.answered(from, response);
  }

  writable(peer: NodeId): void {
    this.sendLane.writable(peer);
  }

  /** Something may have ended a transfer. */
  sweep(): void {
    this.sendLane.sweep();
  }

  piece(from: NodeId, request: SnapshotRequest, pieces: readonly Uint8Array[]): void {
    const { engine } = this.parts;
    if (engine.handleSnapshot(from, request)) this.receiveLane.piece(from, request, pieces);
    else if (request.term === engine.term) this.receiveLane.notNeeded();
  }

  /** This node leads: nobody goes on with what it has received. */
  leads(): void {
    this.receiveLane.notNeeded();
  }

  /** Runs an `InstallSnapshot` command; the log has been reset before. */
  install({ lastIncluded }: InstallSnapshot): void {
    const { snapshots, applyLane, onSuperseded, onFailure } = this.parts;
    const { index } = lastIncluded;
    const info = snapshots.snapshots.find((kept) => kept.lastIncluded.index === index);
    invariant(info !== undefined, `the installed snapshot of index ${index} is kept`);
    onSuperseded();
    this.release?.().catch(onFailure);
    // Another one may be received before the machine has ended what it was given.
    const release = snapshots.hold(info);
    this.release = release;
    applyLane.install(index, () => {
      this.release = undefined;
      this.restore(info).finally(release).catch(onFailure);
    });
  }

  sending(): ReadonlyMap<NodeId, SendProgress> {
    return this.sendLane.progress();
  }

  receiving(): ReceiveProgress | undefined {
    return this.receiveLane.progress();
  }

  stop(): void {
    this.sendLane.stop();
    this.receiveLane.stop();
  }

  private async restore(info: SnapshotInfo): Promise<void> {
    const { snapshots, machine, scheduler, logger, applyLane, onInstalled } = this.parts;
    const { index } = info.lastIncluded;
    const startedMs = scheduler.now();
    await machine.restore(snapshots.payload(info), index);
    const tookMs = Math.round(scheduler.now() - startedMs);
    logger.info(
      { event: 'snapshot.installed', index, bytes: info.bytes, tookMs },
      'the state machine was restored from a snapshot that the leader has sent',
    );
    onInstalled(index, info.time);
    applyLane.installed();
    // The entries between them and the log are gone.
    await snapshots.removeBelow(index);
  }
}
