/**
 * The log store without a disk, for tests, simulations and benchmarks. Blocks are encoded and
 * verified by the same WASM codec as in the durable store, in a staging region of shared memory, and
 * then kept in ordinary memory: the newest encoded, the older ones in a compact form.
 *
 * I/O completes in order and never inside the call that started it: all that one turn brought is
 * flushed by one job of the run queue, and of each group only its last I/O is reported.
 *
 * What was flushed survives `crash` in the `MemoryLogImage` that the store was opened on; what was
 * not is lost, as when the power fails.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type {
  IoId,
  LogId,
  LogIndex,
  Membership,
  RecoveredLog,
  StoredMembership,
  TermRun,
} from '../engine/types.js';
import { blockBytes, type PayloadPlace } from '../wasm/block-codec.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../wasm/layout.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type {
  EntriesLease,
  EntriesToStage,
  LogStore,
  LogStoreEvents,
  LogStoreMetrics,
  StagedEntries,
} from './log-store.js';
import {
  type BlockBoundaries,
  type GroupImage,
  MemoryLogGroup,
  StagedBlocks,
} from './memory-log-group.js';
import { MemoryLogStaging } from './memory-log-staging.js';

const DEFAULT_RING_BYTES = 16 * 1024 * 1024;
const DEFAULT_MAX_LOG_BYTES = 4 * 1024 * 1024 * 1024;
const NO_MEMBERSHIPS: StagedEntries['memberships'] = [];

/** What a memory log leaves behind: opened by one store at a time, written at its crash or close. */
export class MemoryLogImage {
  groups: ReadonlyMap<number, GroupImage> = new Map();
  /** A store works on it. */
  open = false;
}

export interface MemoryLogStoreOptions {
  /** Memory and module of this thread; several stores may share them. */
  readonly heap: SharedHeap;
  readonly scheduler: Scheduler;
  readonly events: LogStoreEvents;
  /** Reads the payload of an entry of kind membership. */
  readonly decodeMembership: (payload: Uint8Array, index: LogIndex) => Membership;
  readonly image?: MemoryLogImage;
  /** Most bytes that are staged at once. 16 MiB by default. */
  readonly ringBytes?: number;
  /** Most bytes of all blocks; staging is refused beyond. 4 GiB by default. */
  readonly maxLogBytes?: number;
}

export class MemoryLogStore implements LogStore {
  private readonly heap: SharedHeap;
  private readonly staging: MemoryLogStaging;
  private readonly scheduler: Scheduler;
  private readonly events: LogStoreEvents;
  private readonly decodeMembership: MemoryLogStoreOptions['decodeMembership'];
  private readonly image: MemoryLogImage;
  private readonly ringBytes: number;
  private readonly maxLogBytes: number;
  private readonly groups: Map<number, MemoryLogGroup> = new Map();
  private readonly lastTimes: Map<number, number> = new Map();
  private pending: MemoryLogGroup[] = [];
  private logBytes = 0;
  private refused = false;
  private ended = false;
  private flushes = 0;
  private flushedEntries = 0;
  private flushedBytes = 0;
  private reads = 0;

  constructor(options: MemoryLogStoreOptions) {
    this.heap = options.heap;
    this.staging = new MemoryLogStaging(options.heap);
    this.scheduler = options.scheduler;
    this.events = options.events;
    this.decodeMembership = options.decodeMembership;
    this.ringBytes = options.ringBytes ?? DEFAULT_RING_BYTES;
    this.maxLogBytes = options.maxLogBytes ?? DEFAULT_MAX_LOG_BYTES;
    this.image = options.image ?? new MemoryLogImage();
    invariant(!this.image.open, 'an image is opened by one store at a time');
    this.image.open = true;
    for (const [group, image] of this.image.groups) {
      const found = new MemoryLogGroup(group, this.staging, image);
      this.groups.set(group, found);
      this.logBytes += found.logBytes;
    }
  }

  recovered(group: number): RecoveredLog {
    const found = this.groupOf(group);
    const termRuns: TermRun[] = [];
    const memberships: StoredMembership[] = [];
    const { codec } = this.staging;
    for (let block = 0; block < found.blockCount; block++) {
      const { bytes, firstIndex } = found.block(block);
      const staged = this.staging.room(bytes.length);
      this.heap.bytes.set(bytes, staged);
      const summary = codec.verifyBlocks(staged, bytes.length, group, firstIndex);
      for (const run of summary.termRuns) {
        if (run.term !== termRuns.at(-1)?.term) termRuns.push(run);
      }
      for (const { index, pointer, length } of summary.memberships) {
        const payload = this.heap.bytes.slice(pointer, pointer + length);
        memberships.push({ index, membership: this.decodeMembership(payload, index) });
      }
      this.lastTimes.set(group, summary.lastTime);
    }
    return found.recovered(termRuns, memberships);
  }

  lastTime(group: number): number {
    return this.lastTimes.get(group) ?? 0;
  }

  stage(group: number, entries: EntriesToStage): StagedEntries {
    const target = this.groupOf(group);
    const { firstIndex, term, time, kind, payloads, count } = entries;
    const bytes = blockBytes(payloads, count);
    this.checkRoom(bytes);
    const pointer = this.staging.room(bytes);
    this.staging.codec.encodeBlock(pointer, bytes, {
      group,
      firstIndex,
      term,
      time,
      kind,
      payloads,
      count,
    });
    target.placeStaged(this.heap.view, pointer, bytes);
    const memberships =
      kind === ENTRY_KIND.membership
        ? membershipsOf(target, firstIndex, payloads, count)
        : NO_MEMBERSHIPS;
    const lastIndex = firstIndex + count - 1;
    const runs = [{ firstIndex, term }];
    const staged = new StagedBlocks(
      firstIndex,
      lastIndex,
      runs,
      memberships,
      bytes,
      time,
      undefined,
    );
    target.stage(staged);
    return staged;
  }

  receive(group: number, firstIndex: LogIndex, parts: readonly Uint8Array[]): StagedEntries {
    const target = this.groupOf(group);
    let bytes = 0;
    for (let part = 0; part < parts.length; part++) bytes += parts[part]!.length;
    this.checkRoom(bytes);
    const pointer = this.staging.room(bytes);
    let end = pointer;
    for (let part = 0; part < parts.length; part++) {
      this.heap.bytes.set(parts[part]!, end);
      end += parts[part]!.length;
    }
    const summary = this.staging.codec.verifyBlocks(pointer, bytes, group, firstIndex);
    target.placeStaged(this.heap.view, pointer, bytes);
    const staged = new StagedBlocks(
      summary.firstIndex,
      summary.lastIndex,
      summary.termRuns,
      membershipsAt(target, pointer, summary.memberships),
      bytes,
      summary.lastTime,
      summary.blocks > 1 ? this.boundaries(pointer, bytes, firstIndex) : undefined,
    );
    target.stage(staged);
    return staged;
  }

  append(group: number, staged: StagedEntries, firstIndex: LogIndex, io: IoId): void {
    const target = this.groupOf(group);
    const before = target.logBytes;
    target.append(staged, firstIndex);
    target.setVote(io.vote);
    this.logBytes += target.logBytes - before;
    this.start(target, io);
  }

  saveVote(group: number, io: IoId): void {
    const target = this.groupOf(group);
    target.setVote(io.vote);
    this.start(target, io);
  }

  truncateAfter(group: number, index: LogIndex, io: IoId): void {
    const target = this.groupOf(group);
    const before = target.logBytes;
    target.truncateAfter(index);
    target.setVote(io.vote);
    this.logBytes += target.logBytes - before;
    this.start(target, io);
  }

  purge(group: number, upTo: LogId): void {
    const target = this.groupOf(group);
    target.purge(upTo);
    this.start(target, undefined);
  }

  resetLog(group: number, lastIncluded: LogId, io: IoId): void {
    const target = this.groupOf(group);
    const before = target.logBytes;
    target.reset(lastIncluded);
    target.setVote(io.vote);
    this.logBytes += target.logBytes - before;
    this.start(target, io);
  }

  advanceIo(group: number, io: IoId): void {
    this.start(this.groupOf(group), io);
  }

  recordCommitted(group: number, index: LogIndex): void {
    this.groupOf(group).setCommitted(index);
  }

  read(group: number, firstIndex: LogIndex, lastIndex: LogIndex, maxBytes: number): EntriesLease {
    this.reads++;
    return this.groupOf(group).read(firstIndex, lastIndex, maxBytes);
  }

  async close(): Promise<void> {
    if (this.ended) return;
    this.flush();
    this.end();
  }

  /** The power fails: what is not flushed is lost, and no event comes any more. */
  crash(): MemoryLogImage {
    if (!this.ended) this.end();
    return this.image;
  }

  metrics(): LogStoreMetrics {
    let queuedBytes = 0;
    let memoryBytes = this.staging.sizeBytes;
    for (const group of this.groups.values()) {
      queuedBytes += group.unflushedBytes;
      memoryBytes += group.memoryBytes;
    }
    return {
      flushes: this.flushes,
      flushedEntries: this.flushedEntries,
      flushedBytes: this.flushedBytes,
      queuedBytes,
      ringBytes: this.ringBytes,
      ringUsedBytes: memoryBytes,
      cacheHits: this.reads,
      cacheMisses: 0,
      retiredSegments: 0,
      movedBytes: 0,
      indexBytes: 0,
    };
  }

  private start(group: MemoryLogGroup, io: IoId | undefined): void {
    if (!group.startIo(io)) return;
    if (this.pending.length > 0) {
      this.pending.push(group);
      return;
    }
    this.pending = [group];
    this.scheduler.enqueue(this.flush);
  }

  private readonly flush = (): void => {
    if (this.ended || this.pending.length === 0) return;
    const groups = this.pending;
    this.pending = [];
    this.flushes++;
    // All groups first: a listener may start more I/O, which belongs to the next flush.
    for (let place = 0; place < groups.length; place++) {
      const group = groups[place]!;
      this.flushedEntries += group.unflushedEntries;
      this.flushedBytes += group.unflushedBytes;
      const before = group.logBytes;
      group.flushed();
      this.logBytes += group.logBytes - before;
    }
    for (let place = 0; place < groups.length; place++) {
      const group = groups[place]!;
      const io = group.completeIo();
      // A listener may have ended the store.
      if (this.ended) return;
      if (io !== undefined) this.events.flushed(group.group, io);
    }
    if (this.refused && this.logBytes < this.maxLogBytes) {
      this.refused = false;
      this.events.writable();
    }
  };

  private end(): void {
    const images = new Map<number, GroupImage>();
    for (const [group, log] of this.groups) images.set(group, log.takeImage());
    this.image.groups = images;
    this.image.open = false;
    this.ended = true;
    this.staging.end();
  }

  private groupOf(group: number): MemoryLogGroup {
    const known = this.groups.get(group);
    if (known !== undefined && !this.ended) return known;
    if (this.ended) throw new KeelsonError('KEELSON_CLOSED', 'the memory log store is closed');
    const created = new MemoryLogGroup(group, this.staging, undefined);
    this.groups.set(group, created);
    return created;
  }

  private checkRoom(bytes: number): void {
    if (bytes > this.ringBytes || this.logBytes + bytes > this.maxLogBytes) {
      this.refused = bytes <= this.ringBytes;
      throw new KeelsonError(
        'KEELSON_OVERLOADED',
        `no room for ${bytes} bytes of entries: at most ${this.ringBytes} are staged at once, ` +
          `and the log holds ${this.logBytes} of ${this.maxLogBytes}`,
        { details: { bytes, ringBytes: this.ringBytes, maxLogBytes: this.maxLogBytes } },
      );
    }
  }

  /** Where the blocks in the staging region begin; they have verified. */
  private boundaries(pointer: number, bytes: number, firstIndex: LogIndex): BlockBoundaries {
    const firstIndexes: LogIndex[] = [];
    const offsets: number[] = [];
    const { view } = this.heap;
    let index = firstIndex;
    let offset = 0;
    while (offset < bytes) {
      firstIndexes.push(index);
      offsets.push(offset);
      const header = pointer + offset;
      const items = view.getUint32(header + BLOCK.offset.items, true);
      const payloadLength = view.getUint32(header + BLOCK.offset.payloadLength, true);
      index += items;
      offset += BLOCK.bytes + items * ITEM.bytes + payloadLength;
    }
    return { firstIndexes, offsets };
  }
}

/** Of blocks that were verified at `pointer` and are placed now. */
function membershipsAt(
  target: MemoryLogGroup,
  pointer: number,
  places: readonly PayloadPlace[],
): StagedEntries['memberships'] {
  if (places.length === 0) return NO_MEMBERSHIPS;
  return places.map(({ index, pointer: at, length }) => ({
    index,
    payload: target.stagedBytes(at - pointer, length),
  }));
}

function membershipsOf(
  target: MemoryLogGroup,
  firstIndex: LogIndex,
  payloads: readonly Uint8Array[],
  count: number,
): StagedEntries['memberships'] {
  const memberships: { index: LogIndex; payload: Uint8Array }[] = [];
  let start = BLOCK.bytes + count * ITEM.bytes;
  for (let entry = 0; entry < count; entry++) {
    const { length } = payloads[entry]!;
    memberships.push({ index: firstIndex + entry, payload: target.stagedBytes(start, length) });
    start += length;
  }
  return memberships;
}
