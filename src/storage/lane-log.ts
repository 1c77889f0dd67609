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
import { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { IoId, LogIndex } from '../engine/types.js';
import { writeHardState } from '../wasm/batch-codec.js';
import { BlockCodec, blockBytes } from '../wasm/block-codec.js';
import { BLOCK, ENTRY_KIND, HARD_STATE, ITEM } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { EntryRing, RingBatch } from './entry-ring.js';
import { batchFlags } from './entry-ring.js';
import type { GroupLog, LaneBatch } from './group-log.js';
import { isHigherVote } from './hard-state.js';
import type { BatchPlace } from './lane-writer.js';
import type { EntriesToStage, StagedEntries } from './log-store.js';
import { dropBefore, listBlocks, Staging } from './staging.js';
import type { StorageExecutor } from './storage-executor.js';

const RECORD_BYTES: number = BLOCK.bytes + ITEM.bytes;
/** A stage never takes the last free control slots: votes and truncations do. */
const KEPT_CONTROL_SLOTS = 2;
/**
 * A batch of that many entries goes to the disk at once when more come in the same turn: the lane
 * writes while this thread still encodes, and from then on the two work in alternation.
 */
const EAGER_BATCH_ENTRIES = 512;

export interface LaneLimits {
  readonly maxBatchBytes: number;
  readonly maxBatchEntries: number;
  readonly maxQueuedBatches: number;
  readonly lingerMicros: number;
  /** The most that one `stage` or `receive` takes, bytes of blocks. */
  readonly maxStageBytes: number;
}

export interface LaneLogEvents {
  flushed(group: GroupLog, io: IoId): void;
  /** A batch is durable there. */
  written(place: BatchPlace): void;
  failed(error: KeelsonError): void;
  writable(): void;
}

export class LaneLog {
  flushes = 0;
  flushedEntries = 0;
  flushedBytes = 0;
  private readonly heap: SharedHeap;
  private readonly codec: BlockCodec;
  private readonly ring: EntryRing;
  private readonly executor: StorageExecutor;
  private readonly scheduler: Scheduler;
  private readonly limits: LaneLimits;
  private readonly events: LaneLogEvents;
  private open: LaneBatch | undefined;
  /** Closed, waiting for the lane's thread. */
  private readonly pending: LaneBatch[] = [];
  /** Handed to the lane's thread, oldest first. */
  private readonly underWay: LaneBatch[] = [];
  private staging: Staging | undefined;
  private submitScheduled = false;
  private lingering = false;
  private refusedBytes = 0;
  private idleWaiters: (() => void)[] = [];
  private failure: KeelsonError | undefined;

  constructor(
    heap: SharedHeap,
    ring: EntryRing,
    executor: StorageExecutor,
    scheduler: Scheduler,
    limits: LaneLimits,
    events: LaneLogEvents,
  ) {
    this.heap = heap;
    this.codec = new BlockCodec(heap);
    this.ring = ring;
    this.executor = executor;
    this.scheduler = scheduler;
    this.limits = limits;
    this.events = events;
  }

  get queuedBytes(): number {
    let bytes = this.open?.ring.blocksLength ?? 0;
    for (const batch of this.pending) bytes += batch.ring.totalLength;
    for (const batch of this.underWay) bytes += batch.ring.totalLength;
    return bytes;
  }

  stage(group: GroupLog, entries: EntriesToStage): Staging {
    const { firstIndex, term, time, kind, payloads, count } = entries;
    invariant(count > 0, 'something is staged');
    const bytes = blockBytes(payloads, count);
    const pointer = this.placeStaging(group, bytes, count);
    this.codec.encodeBlock(pointer, bytes, { group: group.id, ...entries });
    const memberships =
      kind === ENTRY_KIND.membership
        ? Array.from({ length: count }, (_, at) => ({
            index: firstIndex + at,
            payload: Uint8Array.from(payloads[at]!),
          }))
        : [];
    return this.keepStaging(group, {
      firstIndex,
      lastIndex: firstIndex + count - 1,
      termRuns: [{ firstIndex, term }],
      memberships,
      bytes,
      lastTime: time,
    });
  }

  receive(group: GroupLog, firstIndex: LogIndex, parts: readonly Uint8Array[]): Staging {
    let bytes = 0;
    for (const part of parts) bytes += part.length;
    const pointer = this.placeStaging(group, bytes, 0);
    let at = pointer;
    for (const part of parts) {
      this.heap.bytes.set(part, at);
      at += part.length;
    }
    const verified = this.codec.verifyBlocks(pointer, bytes, group.id, firstIndex);
    return this.keepStaging(group, {
      firstIndex,
      lastIndex: verified.lastIndex,
      termRuns: verified.termRuns,
      memberships: verified.memberships.map((place) => ({
        index: place.index,
        payload: new Uint8Array(this.heap.slice(place.pointer, place.length)),
      })),
      bytes,
      lastTime: verified.lastTime,
    });
  }

  append(group: GroupLog, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    const staging = staged as Staging;
    invariant(
      staging === this.staging || staging.parked !== undefined,
      'what is appended was the last that the group staged',
    );
    if (staging.parked !== undefined) this.unpark(group, staging);
    this.staging = undefined;
    const batch = this.open!;
    const { ring } = batch;
    const length =
      firstIndex > staging.firstIndex
        ? dropBefore(this.heap, ring.end, staging.bytes, firstIndex)
        : staging.bytes;
    group.truncateAfter(firstIndex - 1);
    const start = ring.end;
    for (const block of listBlocks(this.heap.view, start, length)) {
      const cached = {
        batch: ring,
        pointer: start + block.offset,
        length: block.length,
        items: block.items,
        firstIndex: block.firstIndex,
        lastIndex: block.firstIndex + block.items - 1,
        evicted: false,
      };
      group.addBlock(cached);
      ring.cached.push(cached);
      ring.blocks++;
      ring.items += block.items;
      batch.entries += block.items;
    }
    ring.blocksLength += length;
    addAppend(batch, group, start, length, firstIndex);
    this.touch(batch, group, io);
  }

  saveVote(group: GroupLog, io: IoId): void {
    this.touch(this.controlBatch(group, 0), group, io);
  }

  truncateAfter(group: GroupLog, lastIndex: LogIndex, io: IoId): void {
    const batch = this.controlBatch(group, RECORD_BYTES);
    const { ring } = batch;
    group.truncateAfter(lastIndex);
    this.heap.view.setUint32(ring.end + BLOCK.bytes + ITEM.offset.length, 0, true);
    this.codec.completeBlock(ring.end, RECORD_BYTES, {
      group: group.id,
      count: 1,
      firstIndex: lastIndex,
      term: io.vote.term,
      time: 0,
      kind: ENTRY_KIND.truncateAfter,
    });
    ring.blocks++;
    ring.items++;
    ring.blocksLength += RECORD_BYTES;
    batch.operations.push({ type: 'truncate', group, lastIndex });
    this.touch(batch, group, io);
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

  /** A pin was given up: there may be room again. */
  unpinned(): void {
    if (this.refusedBytes === 0 || this.failure !== undefined) return;
    if (!this.ring.hasRoom(this.refusedBytes)) return;
    this.refusedBytes = 0;
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
    this.flushes++;
    this.flushedEntries += batch.entries;
    this.flushedBytes += place.totalLength;
    this.events.written(place);
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
    if (this.failure !== undefined) return;
    this.staging = undefined;
    const all = [...groups];
    if (all.length > 0 || this.open === undefined) this.openControl(0, Math.max(all.length, 1));
    for (const group of all) this.open!.touched.add(group);
    this.closeOpen(true);
    this.submit();
    await this.idle();
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
    const busy = this.underWay.length > 0 || this.pending.length > 0 || hasContent(this.open);
    if (busy && this.failure === undefined) return;
    const waiters = this.idleWaiters;
    this.idleWaiters = [];
    for (const resolve of waiters) resolve();
  }

  private updateIndexes(batch: LaneBatch, place: BatchPlace): void {
    for (const operation of batch.operations) {
      if (operation.type === 'truncate') operation.group.index.truncateAfter(operation.lastIndex);
      else {
        const { group, pointer, length } = operation;
        const position = place.position + (pointer - batch.ring.start);
        group.index.appendBlocks(pointer, length, place.segment, position);
      }
    }
  }

  /** Room behind the open batch for a block of `bytes`; what the group had staged there is gone. */
  private placeStaging(group: GroupLog, bytes: number, entries: number): number {
    if (this.staging !== undefined && this.staging.group !== group.id) this.park();
    if (
      (this.open?.ring.items ?? 0) >= EAGER_BATCH_ENTRIES &&
      this.pending.length === 0 &&
      this.underWay.length < this.limits.maxQueuedBatches
    ) {
      this.submit();
    }
    this.staging = undefined;
    if (bytes > this.limits.maxStageBytes) {
      throw new KeelsonError(
        'KEELSON_OVERLOADED',
        `${bytes} bytes of entries in one call never fit; this store takes up to ` +
          `${this.limits.maxStageBytes}. Send less at a time, or raise ringBytes and segmentBytes.`,
        { details: { bytes, maxStageBytes: this.limits.maxStageBytes } },
      );
    }
    const { open } = this;
    if (open !== undefined) {
      const { ring } = open;
      if (ring.controlSlot) {
        if (this.ring.freeControlSlots <= KEPT_CONTROL_SLOTS) throw this.overloaded(bytes);
        this.closeOpen(false);
      } else {
        const full =
          ring.blocks > 0 &&
          (ring.blocksLength + bytes > this.limits.maxBatchBytes ||
            ring.items + entries > this.limits.maxBatchEntries);
        const fits =
          !full && this.ring.extend(ring.blocksLength + bytes, hardStatesWith(open, group));
        if (!fits) this.closeOpen(false);
      }
    }
    if (this.open === undefined) {
      if (!this.ring.openNext(bytes, 1)) throw this.overloaded(bytes);
      this.open = newBatch(this.ring.openBatch!);
    }
    return this.open.ring.end;
  }

  private overloaded(bytes: number): KeelsonError {
    this.refusedBytes = Math.max(this.refusedBytes, bytes);
    // What waits may be all that is needed to make room.
    this.scheduleSubmit();
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      'The memory of the log is full of entries that are not yet durable or still being sent. ' +
        'Try again after `writable`.',
      { details: { bytes, ringBytes: this.ring.ringBytes } },
    );
  }

  private keepStaging(group: GroupLog, entries: StagedEntries): Staging {
    this.staging = new Staging(group.id, entries);
    return this.staging;
  }

  /** Takes the staged bytes out of the way. */
  private park(): void {
    const { staging } = this;
    if (staging === undefined) return;
    this.staging = undefined;
    staging.parked = new Uint8Array(this.heap.slice(this.open!.ring.end, staging.bytes));
  }

  private unpark(group: GroupLog, staging: Staging): void {
    const { parked } = staging;
    invariant(parked !== undefined, 'only parked entries come back');
    const pointer = this.placeStaging(group, parked.length, 0);
    this.heap.bytes.set(parked, pointer);
    staging.parked = undefined;
  }

  /** The open batch, with room for a hard state of the group and a record; never refused. */
  private controlBatch(group: GroupLog, recordBytes: number): LaneBatch {
    if (recordBytes > 0) this.park();
    const { open } = this;
    if (open !== undefined) {
      const blocks = open.ring.blocksLength + recordBytes;
      if (this.ring.extend(blocks, hardStatesWith(open, group))) return open;
    }
    return this.openControl(recordBytes, 1);
  }

  private openControl(recordBytes: number, hardStates: number): LaneBatch {
    if (this.open !== undefined) this.closeOpen(false);
    if (!this.ring.openNext(recordBytes, hardStates)) this.ring.openControlSlot();
    this.open = newBatch(this.ring.openBatch!);
    return this.open;
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
    if (this.pending.length === 0 && !hasContent(this.open)) return;
    Promise.resolve()
      .then(() => {})
      .then(() => this.scheduleSubmit());
  }

  private submit(): void {
    if (this.failure !== undefined) return;
    while (this.underWay.length < this.limits.maxQueuedBatches) {
      if (this.pending.length === 0) {
        if (!hasContent(this.open) || this.lingers()) return;
        this.closeOpen(false);
      }
      const batch = this.pending.shift()!;
      this.underWay.push(batch);
      this.executor.submit(batch.ring.sealCommand(batch.hardStates, batch.flags));
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
        if (hasContent(this.open)) this.closeOpen(false);
        this.submit();
      });
    }
    return true;
  }

  /** Completes the open batch with its hard states; from here on it only waits to be sealed. */
  private closeOpen(cleanShutdown: boolean): void {
    const batch = this.open;
    invariant(batch !== undefined, 'a batch is open');
    this.park();
    this.open = undefined;
    if (!hasContent(batch) && !cleanShutdown) {
      this.ring.abandonOpen();
      return;
    }
    const { ring } = batch;
    let pointer = ring.end;
    for (const group of batch.touched) {
      writeHardState(this.heap.view, pointer, {
        group: group.id,
        term: group.vote.term,
        votedFor: group.vote.nodeId,
        voteCommitted: group.vote.committed,
        committed: Math.min(group.committed, group.lastIndex),
      });
      pointer += HARD_STATE.bytes;
    }
    batch.hardStates = batch.touched.size;
    batch.flags = batchFlags(batch.voteChanged, cleanShutdown);
    this.ring.close(batch.hardStates, batch.flags);
    this.pending.push(batch);
  }
}

function newBatch(ring: RingBatch): LaneBatch {
  return {
    ring,
    operations: [],
    touched: new Set(),
    ios: new Map(),
    voteChanged: false,
    entries: 0,
    hardStates: 0,
    flags: 0,
    completed: false,
  };
}

function hasContent(batch: LaneBatch | undefined): boolean {
  return batch !== undefined && batch.touched.size > 0;
}

function hardStatesWith(batch: LaneBatch, group: GroupLog): number {
  return batch.touched.size + (batch.touched.has(group) ? 0 : 1);
}

/** Consecutive blocks of consecutive entries of one group are one operation. */
function addAppend(
  batch: LaneBatch,
  group: GroupLog,
  pointer: number,
  length: number,
  firstIndex: LogIndex,
): void {
  const last = batch.operations[batch.operations.length - 1];
  if (
    last?.type === 'append' &&
    last.group === group &&
    last.pointer + last.length === pointer &&
    last.lastIndex + 1 === firstIndex
  ) {
    last.length += length;
    last.lastIndex = group.lastIndex;
    return;
  }
  batch.operations.push({ type: 'append', group, pointer, length, lastIndex: group.lastIndex });
}
