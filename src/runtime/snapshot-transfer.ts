import { KeelsonError } from '../base/errors.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { SendSnapshot } from '../engine/commands.js';
import type { Network } from '../network/network.js';
import type { SnapshotInfo } from '../storage/snapshot-format.js';
import type { SnapshotFileHandle, SnapshotStore } from '../storage/snapshot-store.js';

/**
 * One snapshot on its way to one follower. It is offered first; the answer says where the follower's
 * file ends, and the bytes go out from there: piece by piece, at most `maxInflightBytes` beyond what is
 * in that file, at most `maxBytesPerSecond`.
 *
 * An answer that repeats the one before means that something was lost behind it, and sending goes back
 * there. When no answer brings anything new for `silenceMs`, the follower is asked how far it is. When
 * nothing new has come into its file for `stallMs` the transfer fails: the log behind it is kept, and the log
 * of a leader must not grow for ever because of one follower whose disk hangs.
 */
export interface TransferLimits {
  /** Bytes of one piece. */
  readonly chunkBytes: number;
  /** Bytes under way, at least `chunkBytes`. */
  readonly maxInflightBytes: number;
  /** 0: as fast as the follower takes them. */
  readonly maxBytesPerSecond: number;
  readonly silenceMs: number;
  readonly stallMs: number;
}

export interface TransferParts {
  readonly snapshots: SnapshotStore;
  readonly network: Network;
  readonly scheduler: Scheduler;
  readonly limits: TransferLimits;
}

interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

const NO_BYTES: Uint8Array = new Uint8Array(0);

export class SnapshotTransfer {
  readonly target: number;
  readonly session: number;
  readonly info: SnapshotInfo;
  readonly totalBytes: number;
  /** The follower has all before it in its file. */
  acknowledged = 0;
  private readonly command: SendSnapshot;
  private readonly parts: TransferParts;
  private readonly onFailure: (error: unknown) => void;
  private file: SnapshotFileHandle | undefined;
  private sentTo = 0;
  /** Read, and not taken by the network yet. */
  private piece: Piece | undefined;
  private reading = false;
  /** Nothing more is sent until the follower has said where it is. */
  private asking = true;
  private offerIsSent = false;
  private ended = false;
  private nextPieceAtMs: number;
  private newsAtMs: number;
  /** When the follower's file last grew, or something was last due from it. */
  private grownAtMs: number;
  private paceTimer: Timer | undefined;
  private silenceTimer: Timer | undefined;

  constructor(
    command: SendSnapshot,
    info: SnapshotInfo,
    parts: TransferParts,
    onFailure: (error: unknown) => void,
  ) {
    this.command = command;
    this.target = command.target;
    this.session = command.session;
    this.info = info;
    this.totalBytes = info.bytes;
    this.parts = parts;
    this.onFailure = onFailure;
    this.newsAtMs = parts.scheduler.now();
    this.nextPieceAtMs = this.newsAtMs;
    this.grownAtMs = this.newsAtMs;
  }

  /** Pins the file, and offers it; one that is suspected of damage is read to its end before. */
  begin(suspected: boolean): void {
    this.open(suspected).then(
      (file) => this.guarded(() => this.opened(file)),
      (error: unknown) => this.failed(error),
    );
  }

  private opened(file: SnapshotFileHandle): void {
    if (this.ended) {
      file.close();
      return;
    }
    this.file = file;
    this.newsAtMs = this.parts.scheduler.now();
    this.grownAtMs = this.newsAtMs;
    this.armSilence();
    this.pump();
  }

  private async open(suspected: boolean): Promise<SnapshotFileHandle> {
    const { snapshots } = this.parts;
    if (suspected) await snapshots.verify(this.info);
    return snapshots.openFile(this.info);
  }

  /** The follower's file ends at `offset`. */
  answered(offset: number): void {
    if (this.ended) return;
    if (offset > this.totalBytes) {
      const message = `node ${this.target} claims ${offset} bytes of a snapshot of ${this.totalBytes}`;
      this.failed(new KeelsonError('KEELSON_CORRUPT_FRAME', message));
      return;
    }
    const goesOn = !this.asking && offset > this.acknowledged;
    if (this.asking || offset !== this.acknowledged) this.newsAtMs = this.parts.scheduler.now();
    if (offset > this.acknowledged) this.grownAtMs = this.newsAtMs;
    this.acknowledged = offset;
    this.asking = false;
    if (!goesOn || offset > this.sentTo) {
      this.sentTo = offset;
      this.piece = undefined;
    }
    this.pump();
  }

  /** Sends what may be sent now. */
  pump(): void {
    if (this.ended || this.file === undefined) return;
    if (this.asking) {
      if (!this.offerIsSent) this.offerIsSent = this.sendPiece(this.sentTo, NO_BYTES);
      return;
    }
    while (!this.reading && this.mayGoOn()) {
      const { piece } = this;
      if (piece === undefined) {
        this.read(this.file, this.nextLength());
        return;
      }
      if (!this.sendPiece(piece.offset, piece.bytes)) return;
      this.piece = undefined;
      this.sentTo = piece.offset + piece.bytes.length;
      this.paceBehind(piece.bytes.length);
    }
  }

  /** Lets the file go. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.paceTimer?.cancel();
    this.silenceTimer?.cancel();
    this.piece = undefined;
    this.file?.close();
  }

  private nextLength(): number {
    return Math.min(this.parts.limits.chunkBytes, this.totalBytes - this.sentTo);
  }

  private mayGoOn(): boolean {
    const { limits, scheduler } = this.parts;
    const length = this.nextLength();
    if (length === 0) return false;
    if (this.sentTo + length - this.acknowledged > limits.maxInflightBytes) return false;
    const waitMs = this.nextPieceAtMs - scheduler.now();
    if (waitMs <= 0) return true;
    this.paceTimer ??= scheduler.setTimer(waitMs, () => {
      this.paceTimer = undefined;
      this.guarded(() => this.pump());
    });
    return false;
  }

  private paceBehind(bytes: number): void {
    const { maxBytesPerSecond } = this.parts.limits;
    if (maxBytesPerSecond === 0) return;
    this.nextPieceAtMs = this.parts.scheduler.now() + (bytes * 1000) / maxBytesPerSecond;
  }

  private read(file: SnapshotFileHandle, length: number): void {
    const offset = this.sentTo;
    this.reading = true;
    file.read(offset, length).then(
      (bytes) => {
        this.reading = false;
        if (!this.ended && !this.asking && offset === this.sentTo) this.piece = { offset, bytes };
        this.guarded(() => this.pump());
      },
      (error: unknown) => this.failed(error),
    );
  }

  private sendPiece(offset: number, bytes: Uint8Array): boolean {
    const { info, totalBytes, session } = this;
    return this.parts.network.sendSnapshot(
      this.target,
      {
        type: 'SnapshotRequest',
        term: this.command.term,
        session,
        snapshotId: info.id,
        lastIncluded: info.lastIncluded,
        totalBytes,
        offset,
      },
      bytes,
    );
  }

  /** While all of it is paced or installed, asking costs a message and brings word of what was lost. */
  private armSilence(): void {
    const { scheduler, limits } = this.parts;
    const dueMs = this.newsAtMs + limits.silenceMs - scheduler.now();
    this.silenceTimer = scheduler.setTimer(Math.max(0, dueMs), () => {
      this.guarded(() => {
        if (scheduler.now() - this.newsAtMs >= limits.silenceMs) this.silent();
        if (!this.ended) this.armSilence();
      });
    });
  }

  /** Whether something is under way that an answer is due for. */
  private isWaiting(): boolean {
    return this.asking || this.sentTo > this.acknowledged || this.sentTo === this.totalBytes;
  }

  private silent(): void {
    this.newsAtMs = this.parts.scheduler.now();
    if (!this.isWaiting()) {
      this.grownAtMs = this.newsAtMs;
      return;
    }
    const stalledMs = this.newsAtMs - this.grownAtMs;
    if (stalledMs >= this.parts.limits.stallMs) {
      const message = `node ${this.target} has taken nothing of the snapshot for ${stalledMs} ms`;
      this.failed(new KeelsonError('KEELSON_TIMEOUT', message));
      return;
    }
    this.asking = true;
    this.offerIsSent = false;
    this.piece = undefined;
    this.pump();
  }

  /** Outside of a step of the runtime. */
  private guarded(go: () => void): void {
    try {
      go();
    } catch (error) {
      this.failed(error);
    }
  }

  private failed(error: unknown): void {
    if (this.ended) return;
    this.end();
    this.onFailure(error);
  }
}
