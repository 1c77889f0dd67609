import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { SendSnapshot } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { SnapshotResponse } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import type { Network } from '../network/network.js';
import type { SnapshotInfo } from '../storage/snapshot-format.js';
import type { SnapshotStore } from '../storage/snapshot-store.js';
import { SnapshotTransfer, type TransferLimits } from './snapshot-transfer.js';

/**
 * Runs `SendSnapshot` commands: one transfer for each follower that needs purged entries, in its own
 * time. The engine decides when one is over; this lane asks it after whatever may have ended one.
 *
 * What came to nothing is tried again at once, and then less and less often: a follower whose disk is full
 * would otherwise be sent the same gigabytes for ever.
 */
export interface SnapshotSendParts {
  readonly engine: Engine;
  readonly snapshots: SnapshotStore;
  readonly network: Network;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly limits: TransferLimits;
  /** The engine was told of something outside of a step. */
  readonly onProgress: () => void;
  /** A broken invariant. */
  readonly onFailure: (error: unknown) => void;
}

export interface SendProgress {
  /** The last entry that the snapshot includes. */
  readonly index: number;
  /** Bytes that the follower has in its file. */
  readonly bytes: number;
  readonly totalBytes: number;
}

/** What was asked for and waits, because the last one came to nothing. */
interface Waiting {
  readonly session: number;
  readonly timer: Timer;
}

interface Setbacks {
  /** In a row. */
  readonly count: number;
  /** The next one does not begin before. */
  readonly untilMs: number;
}

const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 60_000;

export class SnapshotSendLane {
  private readonly parts: SnapshotSendParts;
  private readonly transfers = new Map<NodeId, SnapshotTransfer>();
  private readonly waiting = new Map<NodeId, Waiting>();
  private readonly setbacks = new Map<NodeId, Setbacks>();
  /** Id of the snapshot that was last sent to a peer, and did not arrive: it may have a part of it. */
  private readonly broken = new Map<NodeId, string>();
  /** Id of one that a follower could not take: it may have been damaged here. */
  private suspected: string | undefined;

  constructor(parts: SnapshotSendParts) {
    this.parts = parts;
  }

  send(command: SendSnapshot): void {
    const { target, session } = command;
    const { scheduler } = this.parts;
    this.end(target);
    const untilMs = this.setbacks.get(target)?.untilMs ?? 0;
    const waitMs = untilMs - scheduler.now();
    if (waitMs <= 0) {
      this.begin(command);
      return;
    }
    const timer = scheduler.setTimer(waitMs, () => {
      this.waiting.delete(target);
      this.guarded(() => {
        this.begin(command);
        this.parts.onProgress();
      });
    });
    this.waiting.set(target, { session, timer });
  }

  private begin(command: SendSnapshot): void {
    const { target, session } = command;
    const info = this.choose(command);
    if (info === undefined) {
      const { index } = command.lastIncluded;
      this.setBack(target);
      this.parts.logger.warn(
        { event: 'snapshot.missing', target, index },
        'a follower needs a snapshot, and none that is usable leads to the log: it is asked again later',
      );
      this.parts.engine.snapshots.sendFailed(target, session);
      return;
    }
    const transfer = new SnapshotTransfer(command, info, this.parts, (error) =>
      this.failed(transfer, error),
    );
    this.transfers.set(target, transfer);
    const { totalBytes } = transfer;
    this.parts.logger.info(
      { event: 'snapshot.sending', target, index: info.lastIncluded.index, totalBytes },
      'sending a snapshot to a follower that needs purged entries',
    );
    const suspected = info.id === this.suspected;
    if (suspected) this.suspected = undefined;
    transfer.begin(suspected);
  }

  /** The engine has seen this answer already. */
  answered(from: NodeId, response: SnapshotResponse): void {
    const transfer = this.transfers.get(from);
    if (transfer === undefined || transfer.session !== response.session) return;
    if (response.state === 'receiving') transfer.answered(response.offset);
    else if (response.state === 'failed') {
      this.suspected = transfer.info.id;
      this.setBack(from);
    } else {
      this.setbacks.delete(from);
      const { index } = transfer.info.lastIncluded;
      this.parts.logger.info(
        { event: 'snapshot.sent', target: from, index, totalBytes: transfer.totalBytes },
        'a follower has installed a snapshot',
      );
    }
    this.sweep();
    if (response.state !== 'receiving') this.broken.delete(from);
  }

  writable(target: NodeId): void {
    this.transfers.get(target)?.pump();
  }

  /** Ends what the engine sends no longer: it has arrived, the peer is gone, or another node leads. */
  sweep(): void {
    for (const begun of [this.transfers, this.waiting]) {
      for (const [target, { session }] of begun) {
        if (!this.parts.engine.snapshots.sends(target, session)) this.end(target);
      }
    }
  }

  /** To whom a snapshot is under way, and how far it has come. */
  progress(): ReadonlyMap<NodeId, SendProgress> {
    const progress = new Map<NodeId, SendProgress>();
    for (const [target, transfer] of this.transfers) {
      const { index } = transfer.info.lastIncluded;
      const { acknowledged: bytes, totalBytes } = transfer;
      progress.set(target, { index, bytes, totalBytes });
    }
    return progress;
  }

  stop(): void {
    for (const begun of [this.transfers, this.waiting]) {
      for (const target of begun.keys()) this.end(target);
    }
  }

  /**
   * The newest, unless the follower may have a part of another one that still leads to the log. A file
   * that was found damaged is not among them.
   */
  private choose({ target, session, lastIncluded }: SendSnapshot): SnapshotInfo | undefined {
    const { engine, snapshots } = this.parts;
    const usable = snapshots.snapshots.filter(
      (info) => info.lastIncluded.index >= engine.purgedIndex,
    );
    const broken = this.broken.get(target);
    const info = usable.find(({ id }) => id === broken) ?? usable[0];
    if (info === undefined || info.lastIncluded.index === lastIncluded.index) return info;
    const { index } = info.lastIncluded;
    return engine.snapshots.sendsInstead(target, session, index) ? info : undefined;
  }

  private failed(transfer: SnapshotTransfer, err: unknown): void {
    const { target, session, info } = transfer;
    if (this.transfers.get(target) !== transfer) return;
    this.end(target);
    if (!(err instanceof KeelsonError)) {
      this.parts.onFailure(err);
      return;
    }
    // A follower that has taken nothing for long may still go on with what it has.
    if (err.code !== 'KEELSON_TIMEOUT') this.broken.delete(target);
    this.setBack(target);
    this.parts.logger.warn(
      { event: 'snapshot.send-failed', target, file: info.file, err },
      'a snapshot could not be sent: it is tried again when the follower next answers',
    );
    this.guarded(() => {
      this.parts.engine.snapshots.sendFailed(target, session);
      this.parts.onProgress();
    });
  }

  private setBack(target: NodeId): void {
    const count = (this.setbacks.get(target)?.count ?? 0) + 1;
    const waitMs = count === 1 ? 0 : Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** (count - 2));
    this.setbacks.set(target, { count, untilMs: this.parts.scheduler.now() + waitMs });
  }

  /** Outside of a step of the runtime. */
  private guarded(go: () => void): void {
    try {
      go();
    } catch (error) {
      this.parts.onFailure(error);
    }
  }

  private end(target: NodeId): void {
    this.waiting.get(target)?.timer.cancel();
    this.waiting.delete(target);
    const transfer = this.transfers.get(target);
    if (transfer === undefined) return;
    this.transfers.delete(target);
    if (transfer.acknowledged > 0) this.broken.set(target, transfer.info.id);
    transfer.end();
  }
}
