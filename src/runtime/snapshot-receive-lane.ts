import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { Engine } from '../engine/engine.js';
import type { SnapshotRequest } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import type { MachineHost } from '../state-machine/machine-host.js';
import type { SnapshotInfo } from '../storage/snapshot-format.js';
import type { SnapshotReceiver, SnapshotStore } from '../storage/snapshot-store.js';
import { decodeMembership } from './membership-codec.js';

/**
 * Takes the pieces of a snapshot that the leader sends, one snapshot at a time: the offer of another
 * one begins anew. At most `maxQueuedBytes` wait for the file; what comes beyond is dropped, and the answer
 * tells where to go on. The file counts only when all of it is verified and durable; then the engine is
 * told, and nothing was changed before.
 */
export interface SnapshotReceiveParts {
  readonly engine: Engine;
  readonly snapshots: SnapshotStore;
  readonly machine: Pick<MachineHost, 'version'>;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly maxQueuedBytes: number;
  /** The engine was told of something outside of a step. */
  readonly onProgress: () => void;
  /** A broken invariant. */
  readonly onFailure: (error: unknown) => void;
}

export interface ReceiveProgress {
  readonly from: NodeId;
  /** The last entry that the snapshot includes. */
  readonly index: number;
  /** Bytes that are in the file. */
  readonly bytes: number;
  readonly totalBytes: number;
}

/** A part of a file that nobody goes on with is given up after this long. */
const IDLE_MS = 600_000;

interface Incoming {
  from: NodeId;
  /** The last one of it: answers carry its session. */
  request: SnapshotRequest;
  receiver: SnapshotReceiver | undefined;
  readonly queue: Uint8Array[];
  queuedBytes: number;
  /** Where the next piece begins. */
  accepted: number;
  /** The leader waits for an answer to an offer. */
  asked: boolean;
  /** Something was dropped, and the leader is to be told so once. */
  gap: 'none' | 'found' | 'told';
  /** The file is being opened, written or verified. */
  busy: boolean;
  publishing: boolean;
}

export class SnapshotReceiveLane {
  private readonly parts: SnapshotReceiveParts;
  private incoming: Incoming | undefined;
  /** Files are opened and given up one after the other. */
  private files: Promise<unknown> = Promise.resolve();
  private idleTimer: Timer | undefined;
  private stopped = false;

  constructor(parts: SnapshotReceiveParts) {
    this.parts = parts;
  }

  /** A piece of a snapshot that the engine wants; `pieces` are views that end with the call. */
  piece(from: NodeId, request: SnapshotRequest, pieces: readonly Uint8Array[]): void {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    const incoming = this.incomingOf(from, request, bytes === 0);
    if (incoming === undefined) return;
    if (bytes === 0) incoming.asked = true;
    else this.take(incoming, request.offset, bytes, pieces);
    this.pump(incoming);
  }

  /** The engine needs no snapshot, or this node leads: what has come of one is given up. */
  notNeeded(): void {
    const { incoming } = this;
    if (incoming === undefined || incoming.publishing) return;
    this.incoming = undefined;
    this.dropFile();
  }

  progress(): ReceiveProgress | undefined {
    const { incoming } = this;
    if (incoming === undefined) return undefined;
    const { from, request, receiver } = incoming;
    const { lastIncluded, totalBytes } = request;
    return { from, index: lastIncluded.index, bytes: receiver?.offset ?? 0, totalBytes };
  }

  stop(): void {
    this.stopped = true;
    this.incoming = undefined;
    this.idleTimer?.cancel();
  }

  /**
   * Only an offer begins one: bytes may still be on their way that nobody wants any more. Undefined while
   * another one is being verified, too; the leader asks again.
   */
  private incomingOf(
    from: NodeId,
    request: SnapshotRequest,
    isOffer: boolean,
  ): Incoming | undefined {
    const { incoming } = this;
    if (incoming !== undefined) {
      if (isSame(incoming.request, request)) {
        incoming.from = from;
        incoming.request = request;
        return incoming;
      }
      if (incoming.publishing) return undefined;
    }
    if (!isOffer) return undefined;
    const begun: Incoming = {
      from,
      request,
      receiver: undefined,
      queue: [],
      queuedBytes: 0,
      accepted: 0,
      asked: false,
      gap: 'none',
      busy: true,
      publishing: false,
    };
    this.incoming = begun;
    this.open(begun);
    return begun;
  }

  private open(incoming: Incoming): void {
    const { snapshotId: id, lastIncluded, totalBytes } = incoming.request;
    const { from } = incoming;
    const { index } = lastIncluded;
    this.files = this.files.then(async () => {
      if (this.incoming !== incoming) return;
      try {
        const announced = { id, lastIncluded, totalBytes };
        const { machine, snapshots } = this.parts;
        const receiver = await snapshots.receive(announced, machine.version);
        incoming.receiver = receiver;
        incoming.accepted = receiver.offset;
        incoming.busy = false;
        this.parts.logger.info(
          { event: 'snapshot.receiving', from, index, offset: receiver.offset, totalBytes },
          'receiving a snapshot: the leader has purged what this node needs',
        );
        this.guarded(() => this.pump(incoming));
      } catch (error) {
        this.failed(incoming, error);
      }
    });
  }

  private take(
    incoming: Incoming,
    offset: number,
    bytes: number,
    pieces: readonly Uint8Array[],
  ): void {
    const opened = incoming.receiver !== undefined;
    // What is there already was sent twice; nothing is lost.
    if (opened && offset < incoming.accepted) return;
    const room = incoming.queuedBytes + bytes <= this.parts.maxQueuedBytes;
    if (!opened || offset > incoming.accepted || (!room && incoming.queuedBytes > 0)) {
      if (incoming.gap === 'none') incoming.gap = 'found';
      return;
    }
    const copy = new Uint8Array(bytes);
    let at = 0;
    for (const piece of pieces) {
      copy.set(piece, at);
      at += piece.length;
    }
    incoming.gap = 'none';
    incoming.queue.push(copy);
    incoming.queuedBytes += bytes;
    incoming.accepted += bytes;
  }

  /** Writes what waits, one piece at a time, and answers when there is nothing before the answer. */
  private pump(incoming: Incoming): void {
    const { receiver, request } = incoming;
    if (this.incoming !== incoming || incoming.busy || receiver === undefined) {
      if (incoming.publishing && incoming.asked) this.answer(incoming, request.totalBytes);
      return;
    }
    this.armIdle(incoming);
    const bytes = incoming.queue.shift();
    if (bytes !== undefined) {
      this.write(incoming, receiver, bytes);
      return;
    }
    if (incoming.asked || incoming.gap === 'found') {
      if (incoming.gap === 'found') incoming.gap = incoming.asked ? 'none' : 'told';
      this.answer(incoming, receiver.offset);
    }
    if (receiver.offset === request.totalBytes) this.publish(incoming, receiver);
  }

  private write(incoming: Incoming, receiver: SnapshotReceiver, bytes: Uint8Array): void {
    const { length } = bytes;
    incoming.busy = true;
    receiver.append(bytes).then(
      () => {
        incoming.busy = false;
        incoming.queuedBytes -= length;
        this.guarded(() => {
          if (this.incoming !== incoming) return;
          // An offer that waits is answered behind the last piece, and with it this one.
          if (!incoming.asked) this.answer(incoming, receiver.offset);
          this.pump(incoming);
        });
      },
      (error: unknown) => this.failed(incoming, error),
    );
  }

  private publish(incoming: Incoming, receiver: SnapshotReceiver): void {
    incoming.busy = true;
    incoming.publishing = true;
    receiver.publish().then(
      (info) => {
        this.incoming = undefined;
        this.idleTimer?.cancel();
        this.guarded(() => this.published(incoming, info));
      },
      (error: unknown) => this.failed(incoming, error),
    );
  }

  private published({ from, request }: Incoming, info: SnapshotInfo): void {
    const { engine, onProgress, logger } = this.parts;
    const { lastIncluded, membershipIndex: index } = info;
    const membership = { index, membership: decodeMembership(info.membership, index) };
    logger.info(
      { event: 'snapshot.received', from, index: lastIncluded.index, totalBytes: info.bytes },
      'a snapshot has been received and verified',
    );
    engine.snapshotReceived(from, request, { lastIncluded, membership });
    onProgress();
  }

  private answer(incoming: Incoming, offset: number): void {
    incoming.asked = false;
    this.parts.engine.snapshotProgressed(incoming.from, incoming.request, offset);
    this.parts.onProgress();
  }

  /** The snapshot is lost, and nothing but it. */
  private failed(incoming: Incoming, error: unknown): void {
    if (this.incoming !== incoming) return;
    this.incoming = undefined;
    this.dropFile();
    this.guarded(() => this.refuse(incoming.from, incoming.request, error));
  }

  private refuse(from: NodeId, request: SnapshotRequest, reason: unknown): void {
    const { engine, logger, onProgress } = this.parts;
    const { snapshotId, lastIncluded, totalBytes } = request;
    logger.warn(
      {
        event: 'snapshot.refused',
        from,
        snapshotId,
        index: lastIncluded.index,
        totalBytes,
        reason: reason instanceof Error ? reason.message : reason,
      },
      'a snapshot that the leader sends could not be taken: it begins anew',
    );
    engine.snapshotRefused(from, request);
    onProgress();
  }

  /** Outside of a step of the runtime. */
  private guarded(tell: () => void): void {
    if (this.stopped) return;
    try {
      tell();
    } catch (error) {
      this.parts.onFailure(error);
    }
  }

  private dropFile(): void {
    this.idleTimer?.cancel();
    this.files = this.files
      .then(() => this.parts.snapshots.dropPartial())
      .catch((err: unknown) => {
        this.parts.logger.warn(
          { event: 'snapshot.unremoved', err },
          'what was received of a snapshot could not be removed: the next start does',
        );
      });
  }

  private armIdle(incoming: Incoming): void {
    this.idleTimer?.cancel();
    this.idleTimer = this.parts.scheduler.setTimer(IDLE_MS, () => {
      if (this.incoming === incoming) this.notNeeded();
    });
  }
}

function isSame(left: SnapshotRequest, right: SnapshotRequest): boolean {
  return (
    left.snapshotId === right.snapshotId &&
    left.totalBytes === right.totalBytes &&
    left.lastIncluded.index === right.lastIncluded.index &&
    left.lastIncluded.term === right.lastIncluded.term
  );
}
