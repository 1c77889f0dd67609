/**
 * Fills batches: stages entries behind the open batch, appends them, adds records and hard states, and
 * closes a batch when it is full or wanted. Which batch is on its way is not known here.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { LogId, LogIndex, Term } from '../engine/types.js';
import { writeHardState } from '../wasm/batch-codec.js';
import { BlockCodec, blockBytes } from '../wasm/block-codec.js';
import { BLOCK, BLOCK_FLAG, ENTRY_KIND, HARD_STATE, ITEM, SECTOR_BYTES } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import { entriesOfBlock } from './block-slice.js';
import type { EntryRing } from './entry-ring.js';
import { batchFlags } from './entry-ring.js';
import type { GroupLog } from './group-log.js';
import { addAppend, hardStatesWith, hasContent, type LaneBatch, newBatch } from './lane-batch.js';
import type { EntriesToStage, StagedEntries } from './log-store.js';
import { dropBefore, holdsEntriesOfClients, listBlocks, Staging } from './staging.js';

const RECORD_BYTES: number = BLOCK.bytes + ITEM.bytes;
/** A stage never takes the last free control slots: votes and truncations do. */
const KEPT_CONTROL_SLOTS = 2;
/** Entries of a log itself that come from a leader, while those of clients are refused: they fit into a slot. */
const MAX_OWN_BYTES = 2 * SECTOR_BYTES;

export interface BatchLimits {
  readonly maxBatchBytes: number;
  readonly maxBatchEntries: number;
  /** The most that one `stage` or `receive` takes, bytes of blocks. */
  readonly maxStageBytes: number;
}

export interface LaneRoom {
  /** Whether the lane takes so many bytes of entries more now. */
  readonly admits: (bytes: number) => boolean;
  /** STORAGE_FULL when the disk has no room for them. */
  readonly refusal: (bytes: number) => KeelsonError | undefined;
}

export class BatchComposer {
  /** Bytes of the largest stage that was refused; 0 when none was since there was room. */
  refusedBytes = 0;
  private readonly heap: SharedHeap;
  private readonly codec: BlockCodec;
  private readonly ring: EntryRing;
  private readonly limits: BatchLimits;
  private open: LaneBatch | undefined;
  private readonly closed: LaneBatch[] = [];
  private staging: Staging | undefined;
  private readonly room: LaneRoom;

  constructor(heap: SharedHeap, ring: EntryRing, limits: BatchLimits, room: LaneRoom) {
    this.heap = heap;
    this.room = room;
    this.codec = new BlockCodec(heap);
    this.ring = ring;
    this.limits = limits;
  }

  /** Bytes in batches that were not taken yet. */
  get bytes(): number {
    let bytes = this.open?.ring.blocksLength ?? 0;
    for (const batch of this.closed) bytes += batch.ring.totalLength;
    return bytes;
  }

  get openEntries(): number {
    return this.open?.entries ?? 0;
  }

  hasClosed(): boolean {
    return this.closed.length > 0;
  }

  /** The open batch holds something to be written. */
  hasOpen(): boolean {
    return hasContent(this.open);
  }

  /** The oldest closed batch. */
  take(): LaneBatch {
    const batch = this.closed.shift();
    invariant(batch !== undefined, 'a batch is closed before it is taken');
    return batch;
  }

  /** Closes a batch with the states of these groups, up to `MAX_CONTROL_HARD_STATES`. */
  closeForShutdown(groups: readonly GroupLog[], isLast: boolean): void {
    const batch = this.openControl(0, Math.max(groups.length, 1));
    for (const group of groups) batch.touched.add(group);
    this.close(isLast);
  }

  stage(group: GroupLog, entries: EntriesToStage): Staging {
    const { firstIndex, term, time, kind, payloads, count } = entries;
    invariant(count > 0, 'something is staged');
    const bytes = blockBytes(payloads, count);
    const refusal = kind === ENTRY_KIND.application ? this.refusal(bytes) : undefined;
    if (refusal !== undefined) throw refusal;
    // The entry that opens a term is no client's: refusing it would stop a leader that has just won.
    const pointer =
      kind === ENTRY_KIND.application
        ? this.placeStaging(group, bytes, count, 0)
        : this.placeControlStaging(group, bytes);
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
    const refusal = this.refusal(bytes);
    const slots = this.ring.freeControlSlots;
    if (refusal !== undefined && (bytes > MAX_OWN_BYTES || slots <= KEPT_CONTROL_SLOTS)) {
      throw refusal;
    }
    // They may overwrite a part of the log, and then a record of that comes first.
    const pointer =
      refusal === undefined
        ? this.placeStaging(group, bytes, 0, RECORD_BYTES)
        : this.placeControlStaging(group, bytes + RECORD_BYTES);
    let at = pointer;
    for (const part of parts) {
      this.heap.bytes.set(part, at);
      at += part.length;
    }
    const verified = this.codec.verifyBlocks(pointer, bytes, group.id, firstIndex);
    // As their leader takes them: without the entry that opens a term nothing is committed in it.
    if (refusal !== undefined && holdsEntriesOfClients(this.heap.view, pointer, bytes))
      throw refusal;
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

  /** Puts staged entries into the open batch, from `firstIndex` on. */
  append(group: GroupLog, staged: StagedEntries, firstIndex: LogIndex): LaneBatch {
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
    group.truncateAfter(firstIndex - 1, batch);
    group.termRuns.append(firstIndex, staging.termRuns);
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
    return batch;
  }

  /** Puts a record into the open batch that the log of the group ends at `lastIndex`. */
  truncateAfter(group: GroupLog, lastIndex: LogIndex, term: Term): LaneBatch {
    const batch = this.controlBatch(group, RECORD_BYTES);
    group.truncateAfter(lastIndex, batch);
    this.addRecord(batch, group, ENTRY_KIND.truncateAfter, { index: lastIndex, term });
    batch.operations.push({ type: 'truncate', group, lastIndex });
    return batch;
  }

  /** Puts a record into the open batch of what is purged. */
  recordPurge(group: GroupLog): LaneBatch {
    const batch = this.controlBatch(group, RECORD_BYTES);
    group.recordPurge(batch);
    this.addRecord(batch, group, ENTRY_KIND.purge, group.purged);
    batch.records = true;
    batch.operations.push({ type: 'purge', group, index: group.purged.index });
    return batch;
  }

  /** Puts a record into the open batch that the log of the group begins anew. */
  reset(group: GroupLog, lastIncluded: LogId): LaneBatch {
    const batch = this.controlBatch(group, RECORD_BYTES);
    group.reset(lastIncluded, batch);
    this.addRecord(batch, group, ENTRY_KIND.reset, lastIncluded);
    batch.records = true;
    batch.operations.push({ type: 'reset', group, index: lastIncluded.index });
    return batch;
  }

  /**
   * Puts a block of entries that the log of the group has into the open batch once more. Undefined when there
   * is no room: this waits for whatever else is to be written.
   */
  move(group: GroupLog, block: Uint8Array): LaneBatch | undefined {
    this.park();
    const { maxBatchBytes } = this.limits;
    if (this.open !== undefined) {
      const { ring } = this.open;
      if (ring.controlSlot) return undefined;
      const blocks = ring.blocksLength + block.length;
      const full = ring.blocks > 0 && blocks > maxBatchBytes;
      if (full || !this.ring.extend(blocks, hardStatesWith(this.open, group))) this.close();
    }
    if (this.open === undefined) {
      if (!this.ring.openNext(block.length, 1)) return undefined;
      this.open = newBatch(this.ring.openBatch!);
    }
    const batch = this.open;
    const { ring } = batch;
    const { end: pointer } = ring;
    const { length } = block;
    this.heap.bytes.set(block, pointer);
    this.heap.view.setUint32(pointer + BLOCK.offset.flags, BLOCK_FLAG.moved, true);
    ring.blocks++;
    ring.items += entriesOfBlock(block);
    ring.blocksLength += length;
    batch.movedBytes += length;
    batch.touched.add(group);
    batch.operations.push({ type: 'move', group, pointer, length });
    return batch;
  }

  private addRecord(batch: LaneBatch, group: GroupLog, kind: number, logId: LogId): void {
    const { ring } = batch;
    this.heap.view.setUint32(ring.end + BLOCK.bytes + ITEM.offset.length, 0, true);
    this.codec.completeBlock(ring.end, RECORD_BYTES, {
      group: group.id,
      count: 1,
      firstIndex: logId.index,
      term: logId.term,
      time: 0,
      kind,
    });
    ring.blocks++;
    ring.items++;
    ring.blocksLength += RECORD_BYTES;
  }

  /**
   * Room behind the open batch for blocks of `bytes`, and for a record in front of them; what the group
   * had staged there is gone.
   */
  private placeStaging(
    group: GroupLog,
    bytes: number,
    entries: number,
    recordBytes: number,
  ): number {
    if (this.staging !== undefined && this.staging.group !== group) this.park();
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
    const room = bytes + recordBytes;
    if (open !== undefined) {
      const { ring } = open;
      if (ring.controlSlot) {
        if (this.ring.freeControlSlots <= KEPT_CONTROL_SLOTS) throw this.overloaded(room);
        this.close();
      } else {
        const full =
          ring.blocks > 0 &&
          (ring.blocksLength + bytes > this.limits.maxBatchBytes ||
            ring.items + entries > this.limits.maxBatchEntries);
        const fits =
          !full && this.ring.extend(ring.blocksLength + room, hardStatesWith(open, group));
        if (!fits) this.close();
      }
    }
    if (this.open === undefined) {
      if (!this.ring.openNext(room, 1)) throw this.overloaded(room);
      this.open = newBatch(this.ring.openBatch!);
    }
    return this.open.ring.end;
  }

  /** The same for the log's own entries, which find room as votes do, however full the ring is. */
  private placeControlStaging(group: GroupLog, bytes: number): number {
    if (this.staging?.group === group) this.staging = undefined;
    this.park();
    return this.controlBatch(group, bytes).ring.end;
  }

  /** Why so many bytes of entries are not taken now. */
  private refusal(bytes: number): KeelsonError | undefined {
    // What never fits is told so, and does not wait.
    if (bytes > this.limits.maxStageBytes) return undefined;
    const full = this.room.refusal(bytes);
    if (full !== undefined || this.room.admits(bytes)) return full;
    this.refusedBytes = Math.max(this.refusedBytes, bytes);
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      'Entries in old segments of the log have to be moved before it may grow. Try again after `writable`.',
      { details: { bytes } },
    );
  }

  private overloaded(bytes: number): KeelsonError {
    this.refusedBytes = Math.max(this.refusedBytes, bytes);
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      'The memory of the log is full of entries that are not yet durable or still being sent. ' +
        'Try again after `writable`.',
      { details: { bytes, ringBytes: this.ring.ringBytes } },
    );
  }

  private keepStaging(group: GroupLog, entries: StagedEntries): Staging {
    this.staging = new Staging(group, entries);
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
    const pointer = this.placeStaging(group, parked.length, 0, 0);
    this.heap.bytes.set(parked, pointer);
    staging.parked = undefined;
  }

  /** The open batch, with room for a hard state of the group and a record; never refused. */
  controlBatch(group: GroupLog, recordBytes: number): LaneBatch {
    const { open, staging } = this;
    if (open !== undefined) {
      // What is staged may be appended to the batch after this: it stays, behind the record.
      const stagedBytes = staging?.bytes ?? 0;
      const blocks = open.ring.blocksLength + recordBytes + stagedBytes;
      if (this.ring.extend(blocks, hardStatesWith(open, group, staging?.group))) {
        const { end } = open.ring;
        if (recordBytes > 0) this.heap.bytes.copyWithin(end + recordBytes, end, end + stagedBytes);
        return open;
      }
    }
    return this.openControl(recordBytes, 1);
  }

  private openControl(recordBytes: number, hardStates: number): LaneBatch {
    if (this.open !== undefined) this.close();
    if (!this.ring.openNext(recordBytes, hardStates)) this.ring.openControlSlot();
    this.open = newBatch(this.ring.openBatch!);
    return this.open;
  }

  /** Completes the open batch with its hard states; from here on it only waits to be sealed. */
  close(cleanShutdown = false): void {
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
    batch.flags = batchFlags(batch.voteChanged, cleanShutdown, batch.records);
    this.ring.close(batch.hardStates, batch.flags);
    this.closed.push(batch);
  }
}
