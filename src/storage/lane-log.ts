/**
 * The main thread's side of a lane: collects operations into the open batch, hands batches to the
 * lane's thread, and reports what has become durable.
 *
 * One batch is being written while the next fills: the flush is the batching timer. A batch is handed
 * over at the end of the turn in which it got its first operation, as long as fewer than
 * `maxQueuedBatches` are under way; otherwise it goes on filling until one completes. After a
 * completion the writers that it woke get a turn before the next batch is closed.
 */
import { invariant } from '../base/assert.js';
import type { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { IoId, LogId, LogIndex } from '../engine/types.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { BatchComposer, type BatchLimits, type LaneRoom } from './batch-composer.js';
import { type EntryRing, MAX_CONTROL_HARD_STATES } from './entry-ring.js';
import type { GroupLog } from './group-log.js';
import { isHigherVote } from './hard-state.js';
import type { LaneBatch } from './lane-batch.js';
import type { BatchPlace, SealCommand } from './lane-writer.js';
import type { EntriesToStage, StagedEntries } from './log-store.js';

/**
 * A batch of that many entries goes to the disk at once when more come in the same turn: the lane
 * writes while this thread still encodes, and from then on the two work in alternation.
 */
const EAGER_BATCH_ENTRIES = 512;

export interface LaneLimits extends BatchLimits {
  readonly maxQueuedBatches: number;
  readonly lingerMicros: number;
}

/** What a batch that is durable tells of segments. */
export interface WrittenBatch {
  /** The header of its segment, if it is new, names no older one than that. */
  readonly oldestSegment: number;
  /** Of blocks that the log has a second time with it. */
  readonly movedBytes: number;
  /** Entries that the log has for the first time with it. */
  readonly entries: number;
}

export interface LaneLogEvents {
  flushed(group: GroupLog, io: IoId): void;
  /** A batch is durable there. */
  written(place: BatchPlace, batch: WrittenBatch): void;
  /** The index of a log has become smaller or moved. */
  shrunk(group: GroupLog): void;
  failed(error: KeelsonError): void;
  writable(): void;
}

export class LaneLog {
  flushes = 0;
  flushedEntries = 0;
  flushedBytes = 0;
  private readonly composer: BatchComposer;
  private readonly ring: EntryRing;
  /** To the lane's thread. */
  private readonly handOver: (command: SealCommand) => void;
  private readonly scheduler: Scheduler;
  private readonly limits: LaneLimits;
  private readonly events: LaneLogEvents;
  /** The oldest segment that any log or reader needs. */
  private readonly oldestSegment: () => number;
  /** Whether the files of the lane have room for so many bytes that are not durable yet. */
  private readonly admits: (bytes: number) => boolean;
  /** Handed to the lane's thread, oldest first. */
  private readonly underWay: LaneBatch[] = [];
  private submitScheduled = false;
  private lingering = false;
  /** The next batch begins a segment. */
  private rollNext = false;
  private idleWaiters: (() => void)[] = [];
  private failure: KeelsonError | undefined;

  constructor(
    heap: SharedHeap,
    ring: EntryRing,
    handOver: (command: SealCommand) => void,
    scheduler: Scheduler,
    limits: LaneLimits,
    events: LaneLogEvents,
    oldestSegment: () => number,
    room: LaneRoom,
  ) {
    this.admits = (bytes) => room.admits(bytes + this.queuedBytes);
    const { refusal } = room;
    this.composer = new BatchComposer(heap, ring, limits, { admits: this.admits, refusal });
    this.ring = ring;
    this.handOver = handOver;
    this.scheduler = scheduler;
    this.limits = limits;
    this.events = events;
    this.oldestSegment = oldestSegment;
  }

  get queuedBytes(): number {
    let { bytes } = this.composer;
    for (const batch of this.underWay) bytes += batch.ring.totalLength;
    return bytes;
  }

  stage(group: GroupLog, entries: EntriesToStage): StagedEntries {
    this.makeRoom();
    return this.composer.stage(group, entries);
  }

  receive(group: GroupLog, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    this.makeRoom();
    return this.composer.receive(group, firstIndex, parts);
  }

  append(group: GroupLog, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    this.touch(this.composer.append(group, staged, firstIndex), group, io);
  }

  saveVote(group: GroupLog, io: IoId): void {
    this.touch(this.composer.controlBatch(group, 0), group, io);
  }

  truncateAfter(group: GroupLog, lastIndex: LogIndex, io: IoId): void {
    this.touch(this.composer.truncateAfter(group, lastIndex, io.vote.term), group, io);
  }

  /** One record of a group is under way at a time: more purges than batches would fill the slots. */
  purge(group: GroupLog, upTo: LogId): void {
    group.purge(upTo);
    if (group.purgeBatch?.completed === false) group.purgeWaits = true;
    else this.recordPurge(group);
  }

  reset(group: GroupLog, lastIncluded: LogId, io: IoId): void {
    this.touch(this.composer.reset(group, lastIncluded), group, io);
  }

  /** Writes entries of a log once more, so that it leaves the segment of the first copy; false without room. */
  move(group: GroupLog, block: Uint8Array): boolean {
    if (this.failure !== undefined || this.composer.move(group, block) === undefined) return false;
    this.scheduleSubmit();
    return true;
  }

  /** Begins a segment, whose header tells which older ones are not needed any more. */
  roll(group: GroupLog): void {
    if (this.failure !== undefined) return;
    this.rollNext = true;
    this.composer.controlBatch(group, 0).touched.add(group);
    this.scheduleSubmit();
  }

  /** What waits for room waits in vain, and is told so when it tries again. */
  filled(): void {
    if (this.composer.refusedBytes > 0) this.roomy();
  }

  /** There is room on the disk again, for what was refused. */
  roomy(): void {
    this.composer.refusedBytes = 0;
    if (this.failure === undefined) this.scheduler.enqueue(() => this.events.writable());
  }

  advanceIo(group: GroupLog, io: IoId): void {
    // Its completion says that the vote is durable, so a vote that is not must be written.
    if (isHigherVote(io.vote, group.vote)) {
      this.saveVote(group, io);
      return;
    }
    const batch = group.lastBatch;
    if (batch !== undefined && !batch.completed) {
      batch.ios.set(group, io);
      return;
    }
    this.scheduler.enqueue(() => {
      if (this.failure === undefined) this.events.flushed(group, io);
    });
  }

  /** A pin was given up, or something moved: there may be room again. */
  unpinned(): void {
    const { composer } = this;
    if (composer.refusedBytes === 0 || this.failure !== undefined) return;
    const bytes = composer.refusedBytes;
    if (!this.admits(bytes) || !this.ring.hasRoom(bytes)) return;
    composer.refusedBytes = 0;
    this.scheduler.enqueue(() => this.events.writable());
  }

  completed(place: BatchPlace): void {
    if (this.failure !== undefined) return;
    const batch = this.underWay.shift();
    invariant(batch !== undefined, 'only what was handed over completes');
    invariant(batch.ring.totalLength === place.totalLength, 'a batch is written as it was closed');
    batch.completed = true;
    try {
      this.updateIndexes(batch, place);
    } catch (error) {
      this.fail(error as KeelsonError);
      return;
    }
    this.ring.durable(batch.ring);
    if (batch.ring.controlSlot) for (const group of batch.touched) group.dropThroughEvicted();
    this.flushes++;
    this.flushedEntries += batch.entries;
    this.flushedBytes += place.totalLength;
    this.events.written(place, batch);
    for (const [group, io] of batch.ios) this.events.flushed(group, io);
    this.unpinned();
    this.submitAfterWokenWriters();
    this.wakeIdleWaiters();
  }

  /** Durability is lost for good. */
  fail(error: KeelsonError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.events.failed(error);
    this.wakeIdleWaiters();
  }

  /** Writes a last batch that says that the lane was closed in order; resolves when it is durable. */
  async shutDown(groups: Iterable<GroupLog>): Promise<void> {
    await this.idle();
    const rest = [...groups];
    do {
      if (this.failure !== undefined) return;
      const part = rest.splice(0, MAX_CONTROL_HARD_STATES);
      this.composer.closeForShutdown(part, rest.length === 0);
      this.submit();
      await this.idle();
    } while (rest.length > 0);
  }

  /** Resolves when nothing is under way, or durability is lost. */
  private idle(): Promise<void> {
    return new Promise((resolve) => {
      this.idleWaiters.push(resolve);
      this.scheduler.enqueue(() => {
        this.submit();
        this.wakeIdleWaiters();
      });
    });
  }

  private wakeIdleWaiters(): void {
    const busy = this.underWay.length > 0 || this.composer.hasClosed() || this.composer.hasOpen();
    if (busy && this.failure === undefined) return;
    const waiters = this.idleWaiters;
    this.idleWaiters = [];
    for (const resolve of waiters) resolve();
  }

  private updateIndexes(batch: LaneBatch, place: BatchPlace): void {
    for (const operation of batch.operations) {
      const { group } = operation;
      const { index } = group;
      switch (operation.type) {
        case 'append': {
          const { pointer, length } = operation;
          const position = place.position + (pointer - batch.ring.start);
          index.appendBlocks(pointer, length, place.segment, position);
          continue;
        }
        case 'move': {
          const { pointer, length } = operation;
          const position = place.position + (pointer - batch.ring.start);
          index.placeBlocks(pointer, length, place.segment, position);
          break;
        }
        case 'truncate':
          index.truncateAfter(operation.lastIndex);
          break;
        case 'purge':
          index.purge(operation.index);
          if (group.purgeWaits) this.recordPurge(group);
          break;
        case 'reset':
          index.reset(operation.index);
          break;
      }
      this.events.shrunk(group);
    }
  }

  private recordPurge(group: GroupLog): void {
    const batch = this.composer.recordPurge(group);
    batch.touched.add(group);
    group.lastBatch = batch;
    this.scheduleSubmit();
  }

  private makeRoom(): void {
    const { composer, underWay, limits } = this;
    const eager = composer.openEntries >= EAGER_BATCH_ENTRIES && !composer.hasClosed();
    if (eager && underWay.length < limits.maxQueuedBatches) this.submit();
  }

  private touch(batch: LaneBatch, group: GroupLog, io: IoId): void {
    batch.touched.add(group);
    batch.ios.set(group, io);
    group.lastBatch = batch;
    if (isHigherVote(io.vote, group.vote)) {
      group.vote = io.vote;
      batch.voteChanged = true;
    }
    this.scheduleSubmit();
  }

  private scheduleSubmit(): void {
    if (this.submitScheduled) return;
    this.submitScheduled = true;
    this.scheduler.enqueue(() => {
      this.submitScheduled = false;
      this.submit();
    });
  }

  /**
   * Promises that the completion resolved run their continuations in microtasks, and what these
   * write comes through the run queue: two turns of the microtask queue let them in.
   */
  private submitAfterWokenWriters(): void {
    if (!this.composer.hasClosed() && !this.composer.hasOpen()) return;
    Promise.resolve()
      .then(() => {})
      .then(() => this.scheduleSubmit());
  }

  private submit(): void {
    if (this.failure !== undefined) return;
    const { composer } = this;
    while (this.underWay.length < this.limits.maxQueuedBatches) {
      if (!composer.hasClosed()) {
        if (!composer.hasOpen() || this.lingers()) return;
        composer.close();
      }
      const batch = composer.take();
      this.underWay.push(batch);
      batch.oldestSegment = this.oldestSegment();
      const { hardStates, flags, oldestSegment } = batch;
      const roll = this.rollNext;
      this.rollNext = false;
      this.handOver(batch.ring.sealCommand(hardStates, flags, oldestSegment, roll));
    }
  }

  /** While the lane is busy, a small batch may wait for company. */
  private lingers(): boolean {
    const { lingerMicros } = this.limits;
    if (lingerMicros === 0 || this.underWay.length === 0) {
      this.lingering = false;
      return false;
    }
    if (!this.lingering) {
      this.lingering = true;
      this.scheduler.setTimer(lingerMicros / 1000, () => {
        if (!this.lingering) return;
        this.lingering = false;
        if (this.failure !== undefined || this.underWay.length >= this.limits.maxQueuedBatches)
          return;
        if (this.composer.hasOpen()) this.composer.close();
        this.submit();
      });
    }
    return true;
  }
}
