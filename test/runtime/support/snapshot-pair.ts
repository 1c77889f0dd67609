/**
 * A leader that sends a snapshot and a follower that receives it: both lanes and both stores are real,
 * time, engines and what lies between them belong to the test.
 */
import type { LogFields, Logger } from '../../../dist/base/logger.js';
import { ManualScheduler } from '../../../dist/base/manual-scheduler.js';
import type { SendSnapshot } from '../../../dist/engine/commands.js';
import type { SnapshotRequest, SnapshotResponse } from '../../../dist/engine/messages.js';
import type { SnapshotMeta } from '../../../dist/engine/types.js';
import { encodeMembership } from '../../../dist/runtime/membership-codec.js';
import { SnapshotReceiveLane } from '../../../dist/runtime/snapshot-receive-lane.js';
import { SnapshotSendLane } from '../../../dist/runtime/snapshot-send-lane.js';
import type { TransferLimits } from '../../../dist/runtime/snapshot-transfer.js';
import { MemoryDisk } from '../../../dist/storage/memory-disk.js';
import { InlineSnapshotExecutor } from '../../../dist/storage/snapshot-executor.js';
import type { SnapshotInfo } from '../../../dist/storage/snapshot-format.js';
import { SnapshotStore } from '../../../dist/storage/snapshot-store.js';
import type { SnapshotTask, SnapshotTaskResult } from '../../../dist/storage/snapshot-tasks.js';
import { headerAt, patternOf } from '../../storage/snapshot-support.js';

export interface Piece {
  readonly request: SnapshotRequest;
  readonly bytes: Uint8Array;
}

const MEMBERSHIP = { configs: [[1, 2, 3]], learners: [], addresses: { 1: 'a', 2: 'b', 3: 'c' } };
const DIRECTORY = '/snapshots';
const MAX_ROUNDS = 10_000;

export const LIMITS: TransferLimits = {
  chunkBytes: 100,
  maxInflightBytes: 400,
  maxBytesPerSecond: 0,
  silenceMs: 1_000,
  stallMs: 10_000,
};

/** Whoever holds the gate decides when the thread of the snapshots goes on. */
class GatedExecutor extends InlineSnapshotExecutor {
  private readonly opened: (() => void)[] = [];
  closed = false;
  /** Tasks of this type wait as well. */
  holds: SnapshotTask['type'] | undefined;

  override async run<T extends SnapshotTask>(task: T): Promise<SnapshotTaskResult<T>> {
    if (this.closed || task.type === this.holds)
      await new Promise<void>((resolve) => this.opened.push(resolve));
    return super.run(task);
  }

  open(): void {
    this.closed = false;
    this.holds = undefined;
    for (const go of this.opened.splice(0)) go();
  }
}

export class SnapshotPair {
  readonly scheduler: ManualScheduler = new ManualScheduler();
  readonly events: LogFields[] = [];
  readonly senderDisk: MemoryDisk = new MemoryDisk();
  readonly receiverDisk: MemoryDisk = new MemoryDisk();
  readonly receiverThread: GatedExecutor;
  /** Taken by the network, not delivered yet. */
  readonly wire: Piece[] = [];
  readonly delivered: Piece[] = [];
  readonly answers: SnapshotResponse[] = [];
  readonly installed: SnapshotMeta[] = [];
  readonly failures: unknown[] = [];
  readonly failedSessions: number[] = [];
  readonly instead: number[] = [];
  /** Whether the network takes pieces. */
  takes = true;
  /** A bug of the network that shows when it is given a piece. */
  bug: Error | undefined;
  /** Whether pieces that were taken arrive, in the order in which they were sent. */
  delivers = true;
  /** What becomes of a piece on its way; undefined loses it. */
  fate: (piece: Piece) => Piece | undefined = (piece) => piece;
  /** Whether answers arrive. */
  answering = true;
  session = 0;
  term = 4;
  purgedIndex = 0;
  /** The follower's. */
  readonly machine = { version: 7 };
  sender!: SnapshotStore;
  receiver!: SnapshotStore;
  sending!: SnapshotSendLane;
  receiving!: SnapshotReceiveLane;
  private readonly limits: TransferLimits;
  private readonly maxQueuedBytes: number;

  private constructor(limits: Partial<TransferLimits>, maxQueuedBytes: number) {
    this.limits = { ...LIMITS, ...limits };
    this.maxQueuedBytes = maxQueuedBytes;
    this.receiverThread = new GatedExecutor(this.receiverDisk, this.scheduler);
  }

  static async open(
    limits: Partial<TransferLimits> = {},
    maxQueuedBytes: number = LIMITS.maxInflightBytes,
  ): Promise<SnapshotPair> {
    const pair = new SnapshotPair(limits, maxQueuedBytes);
    const { scheduler, logger } = pair;
    const open = (executor: InlineSnapshotExecutor): Promise<SnapshotStore> =>
      pair.finish(
        SnapshotStore.open({
          directory: DIRECTORY,
          group: 0,
          keep: 2,
          chunkBytes: 64,
          executor,
          logger,
        }),
      );
    pair.sender = await open(new InlineSnapshotExecutor(pair.senderDisk, scheduler));
    pair.receiver = await open(pair.receiverThread);
    pair.makeLanes();
    return pair;
  }

  /** Builds a snapshot on the leader. */
  async build(index: number, payloadBytes = 1_000): Promise<SnapshotInfo> {
    const header = { ...headerAt(index), membership: encodeMembership(MEMBERSHIP) };
    const writer = await this.finish(this.sender.create(header));
    await this.finish(writer.append(patternOf(payloadBytes, index)));
    return this.finish(writer.publish());
  }

  /** What the engine of the leader would command; undefined ends what it had commanded. */
  send(index: number): void {
    const command: SendSnapshot = {
      type: 'SendSnapshot',
      target: 2,
      term: this.term,
      session: ++this.session,
      lastIncluded: headerAt(index).lastIncluded,
    };
    this.sending.send(command);
  }

  /** The connection breaks: what is under way is lost, and the engine sends no longer. */
  breakOff(): void {
    this.session++;
    this.wire.length = 0;
    this.sending.sweep();
  }

  fileOf(info: SnapshotInfo): Uint8Array {
    return this.senderDisk.readFile(info.file);
  }

  eventsNamed(name: string): LogFields[] {
    return this.events.filter(({ event }) => event === name);
  }

  /** Bytes that the network took, whatever became of them. */
  get takenBytes(): number {
    return [...this.delivered, ...this.wire].reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** Runs everything that needs no time until the condition holds. */
  async until(condition: () => boolean, what: string): Promise<void> {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      if (condition()) return;
      await this.turn();
    }
    throw new Error(`never: ${what}`);
  }

  /** Runs everything that needs no time. */
  async settle(): Promise<void> {
    let idle = 0;
    for (let round = 0; idle < 5; round++) {
      if (round === MAX_ROUNDS) throw new Error('it never comes to rest');
      idle = (await this.turn()) ? 0 : idle + 1;
    }
  }

  /** Lets time pass, and runs what comes of it. */
  async pass(durationMs: number): Promise<void> {
    this.scheduler.advance(durationMs);
    await this.settle();
  }

  async finish<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const ended = (): void => {
      done = true;
    };
    work.then(ended, ended);
    await this.until(() => done, 'the work ends');
    return work;
  }

  private async turn(): Promise<boolean> {
    let moved = this.scheduler.pendingJobs() > 0;
    this.scheduler.runJobs();
    while (this.delivers && this.wire.length > 0) {
      const piece = this.wire.shift()!;
      this.delivered.push(piece);
      const arrived = this.fate(piece);
      if (arrived !== undefined) this.deliver(arrived);
      moved = true;
    }
    await new Promise((resolve) => setImmediate(resolve));
    return moved;
  }

  /** In two parts, as a socket may bring it. */
  deliver({ request, bytes }: Piece): void {
    const middle = bytes.length >> 1;
    this.receiving.piece(1, request, [bytes.subarray(0, middle), bytes.subarray(middle)]);
  }

  private get logger(): Logger {
    const record = (fields: LogFields): void => {
      this.events.push(fields);
    };
    return { debug: record, info: record, warn: record, error: record };
  }

  private makeLanes(): void {
    const { scheduler, logger } = this;
    const shared = {
      scheduler,
      logger,
      onProgress: () => {},
      onFailure: (error: unknown) => this.failures.push(error),
    };
    const leader = {
      term: this.term,
      snapshots: {
        sends: (_target: number, session: number) => session === this.session,
        sendFailed: (_target: number, session: number) => this.failedSessions.push(session),
        sendsInstead: (_target: number, _session: number, index: number) => {
          this.instead.push(index);
          return true;
        },
      },
    };
    Object.defineProperty(leader, 'purgedIndex', { get: () => this.purgedIndex });
    this.sending = new SnapshotSendLane({
      ...shared,
      engine: leader as never,
      snapshots: this.sender,
      network: {
        sendSnapshot: (_target: number, request: SnapshotRequest, bytes: Uint8Array) => {
          if (this.bug !== undefined) throw this.bug;
          if (this.takes) this.wire.push({ request, bytes });
          return this.takes;
        },
      } as never,
      limits: this.limits,
    });
    const answer = (request: SnapshotRequest, state: SnapshotResponse['state'], offset: number) =>
      this.answer({
        type: 'SnapshotResponse',
        term: request.term,
        session: request.session,
        state,
        offset,
        matchIndex: state === 'installed' ? request.lastIncluded.index : 0,
      });
    this.receiving = new SnapshotReceiveLane({
      ...shared,
      engine: {
        snapshotProgressed: (_from: number, request: SnapshotRequest, offset: number) =>
          answer(request, 'receiving', offset),
        snapshotRefused: (_from: number, request: SnapshotRequest) => answer(request, 'failed', 0),
        snapshotReceived: (_from: number, request: SnapshotRequest, meta: SnapshotMeta) => {
          this.installed.push(meta);
          answer(request, 'installed', 0);
        },
      } as never,
      snapshots: this.receiver,
      machine: this.machine,
      maxQueuedBytes: this.maxQueuedBytes,
    });
  }

  private answer(response: SnapshotResponse): void {
    this.answers.push(response);
    if (!this.answering) return;
    // The engine begins another session when one is over.
    if (response.state !== 'receiving' && response.session === this.session) this.session++;
    this.sending.answered(2, response);
  }
}
