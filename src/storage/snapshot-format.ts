/**
 * Encodes and verifies the parts of a snapshot file (see snapshot-layout.ts) in memory of the WASM
 * module, which computes the checksums. A snapshot thread has a small memory of its own.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { LogId } from '../engine/types.js';
import { SharedHeap } from '../wasm/shared-heap.js';
import {
  MAX_SNAPSHOT_CHUNK_BYTES,
  MAX_SNAPSHOT_MEMBERSHIP_BYTES,
  SNAPSHOT_CHUNK,
  SNAPSHOT_FOOTER,
  SNAPSHOT_HEADER,
} from './snapshot-layout.js';
import { readU64, sealRecord, verifiesAlone, writeU64 } from './storage-memory.js';

/** What a snapshot says of itself. */
export interface SnapshotHeader {
  readonly group: number;
  /** The last entry whose effect it holds. */
  readonly lastIncluded: LogId;
  /** Membership in force there: index and payload of the entry that carried it. */
  readonly membershipIndex: number;
  readonly membership: Uint8Array;
  /** No included entry has a later time, ms since the epoch. */
  readonly time: number;
  /** When it was built, ms since the epoch; for people. */
  readonly created: number;
  readonly machineVersion: number;
  /** 16 random bytes in hexadecimal: no two snapshots share them. */
  readonly id: string;
}

/** A snapshot that is durable under its name. */
export interface SnapshotInfo extends SnapshotHeader {
  readonly file: string;
  readonly bytes: number;
  /** Another node has sent it. */
  readonly received: boolean;
}

/** @throws KeelsonError STORAGE_VERSION */
export function checkMachineVersion(file: string, found: number, own: number): void {
  if (found <= own) return;
  throw new KeelsonError(
    'KEELSON_STORAGE_VERSION',
    `the snapshot ${file} is of version ${found} of the state machine, and this is version ${own}`,
    { details: { file, version: found } },
  );
}

const MEMORY_BYTES = 32 * 1024 * 1024;
const MAX_SAFE_HIGH = 0x1f_ffff;

/** A header, a footer, or a chunk of up to `chunkBytes` with everything around it. */
export class SnapshotBuffer {
  readonly heap: SharedHeap;
  readonly pointer: number;
  readonly chunkBytes: number;
  private readonly room: number;
  private readonly scratch: number;

  constructor(heap: SharedHeap, chunkBytes: number) {
    invariant(chunkBytes > 0 && chunkBytes <= MAX_SNAPSHOT_CHUNK_BYTES, 'a chunk is bounded');
    this.heap = heap;
    this.chunkBytes = chunkBytes;
    this.room = Math.max(
      SNAPSHOT_CHUNK.bytes + chunkBytes + SNAPSHOT_CHUNK.checksumBytes,
      SNAPSHOT_HEADER.bytes + MAX_SNAPSHOT_MEMBERSHIP_BYTES,
    );
    this.pointer = heap.allocate(this.room + 8);
    this.scratch = this.pointer + this.room;
  }

  release(): void {
    this.heap.release(this.pointer, this.room + 8);
  }

  view(offset: number, bytes: number): Uint8Array {
    return this.heap.slice(this.pointer + offset, bytes);
  }

  /** The payload of a chunk, from `from` on. */
  payload(from: number, bytes: number): Uint8Array {
    return this.view(SNAPSHOT_CHUNK.bytes + from, bytes);
  }

  writeHeader(header: SnapshotHeader): Uint8Array {
    const { membership } = header;
    invariant(membership.length <= MAX_SNAPSHOT_MEMBERSHIP_BYTES, 'a membership is bounded');
    const { heap, pointer } = this;
    const { offset, bytes } = SNAPSHOT_HEADER;
    heap.bytes.fill(0, pointer, pointer + bytes);
    heap.bytes.set(membership, pointer + bytes);
    const { view } = heap;
    view.setUint32(pointer + offset.magic, SNAPSHOT_HEADER.magic, true);
    view.setUint16(pointer + offset.version, SNAPSHOT_HEADER.version, true);
    view.setUint32(pointer + offset.group, header.group, true);
    view.setUint32(pointer + offset.membershipBytes, membership.length, true);
    writeU64(view, pointer + offset.term, header.lastIncluded.term);
    writeU64(view, pointer + offset.index, header.lastIncluded.index);
    writeU64(view, pointer + offset.membershipIndex, header.membershipIndex);
    writeU64(view, pointer + offset.time, header.time);
    writeU64(view, pointer + offset.created, header.created);
    writeU64(view, pointer + offset.machineVersion, header.machineVersion);
    heap.bytes.set(Buffer.from(header.id, 'hex'), pointer + offset.id);
    heap.exports.xxh3(pointer + bytes, membership.length, pointer + offset.membershipChecksum);
    sealRecord(heap, pointer, offset.checksum);
    return this.view(0, bytes + membership.length);
  }

  /** The fixed part of a header; `membershipBytes` more must follow it and verify. */
  readHeader(): { header: Omit<SnapshotHeader, 'membership'>; membershipBytes: number } | string {
    const { heap, pointer } = this;
    const { view } = heap;
    const { offset } = SNAPSHOT_HEADER;
    if (view.getUint32(pointer + offset.magic, true) !== SNAPSHOT_HEADER.magic) {
      return 'it does not begin as a snapshot';
    }
    if (!verifiesAlone(heap, pointer, offset.checksum, this.scratch)) {
      return 'the checksum of its header does not match';
    }
    const version = view.getUint16(pointer + offset.version, true);
    if (version > SNAPSHOT_HEADER.version) throw newerVersion(version);
    if (view.getUint16(pointer + offset.reserved, true) !== 0)
      return 'a reserved field is not zero';
    const number = (field: number): number => this.number(pointer + field);
    const header = {
      group: view.getUint32(pointer + offset.group, true),
      lastIncluded: { term: number(offset.term), index: number(offset.index) },
      membershipIndex: number(offset.membershipIndex),
      time: number(offset.time),
      created: number(offset.created),
      machineVersion: number(offset.machineVersion),
      id: Buffer.from(this.view(offset.id, 16)).toString('hex'),
    };
    const membershipBytes = view.getUint32(pointer + offset.membershipBytes, true);
    const { lastIncluded, membershipIndex, time, created, machineVersion } = header;
    const numbers = [lastIncluded.term, lastIncluded.index, time, created, machineVersion];
    if (!numbers.every((value) => value >= 0) || membershipIndex > lastIncluded.index) {
      return 'its header holds impossible numbers';
    }
    if (membershipBytes > MAX_SNAPSHOT_MEMBERSHIP_BYTES) return 'its membership is too long';
    return { header, membershipBytes };
  }

  /** Whether the membership that stands behind the header is the one it was sealed with. */
  membershipVerifies(bytes: number): boolean {
    const { heap, pointer } = this;
    heap.exports.xxh3(pointer + SNAPSHOT_HEADER.bytes, bytes, this.scratch);
    return this.sameWord(this.scratch, pointer + SNAPSHOT_HEADER.offset.membershipChecksum);
  }

  /** The checksum that the first chunk names. */
  headerChecksum(): Uint8Array {
    return this.view(SNAPSHOT_HEADER.offset.checksum, 8).slice();
  }

  /** Seals the chunk whose payload stands in place. `previous` becomes its checksum. */
  sealChunk(number: number, length: number, previous: Uint8Array): Uint8Array {
    const { heap, pointer } = this;
    const { bytes, offset, checksumBytes } = SNAPSHOT_CHUNK;
    const { view } = heap;
    view.setUint32(pointer + offset.magic, SNAPSHOT_CHUNK.magic, true);
    view.setUint32(pointer + offset.length, length, true);
    writeU64(view, pointer + offset.number, number);
    heap.bytes.set(previous, pointer + offset.previous);
    sealRecord(heap, pointer, bytes + length);
    previous.set(this.view(bytes + length, checksumBytes));
    return this.view(0, bytes + length + checksumBytes);
  }

  /** Length of the payload of the chunk whose head stands in place; undefined before a footer. */
  chunkLength(): number | undefined | string {
    const { view } = this.heap;
    const magic = view.getUint32(this.pointer + SNAPSHOT_CHUNK.offset.magic, true);
    if (magic === SNAPSHOT_FOOTER.magic) return undefined;
    if (magic !== SNAPSHOT_CHUNK.magic) return 'no chunk begins here';
    const length = view.getUint32(this.pointer + SNAPSHOT_CHUNK.offset.length, true);
    return length > 0 && length <= this.chunkBytes ? length : 'a chunk has an impossible length';
  }

  /** Undefined when the whole chunk in place is the one that follows `previous`, which it becomes. */
  chunkFault(number: number, length: number, previous: Uint8Array): string | undefined {
    const { heap, pointer } = this;
    const { bytes, offset, checksumBytes } = SNAPSHOT_CHUNK;
    if (!verifiesAlone(heap, pointer, bytes + length, this.scratch)) {
      return 'the checksum of a chunk does not match';
    }
    if (this.number(pointer + offset.number) !== number) return `chunk ${number} is not there`;
    if (!sameBytes(this.view(offset.previous, 8), previous)) {
      return `chunk ${number} does not follow the one before it`;
    }
    previous.set(this.view(bytes + length, checksumBytes));
    return undefined;
  }

  writeFooter(chunks: number, payloadBytes: number, previous: Uint8Array): Uint8Array {
    const { heap, pointer } = this;
    const { bytes, offset, magic } = SNAPSHOT_FOOTER;
    heap.bytes.fill(0, pointer, pointer + bytes);
    const { view } = heap;
    view.setUint32(pointer + offset.magic, magic, true);
    writeU64(view, pointer + offset.chunks, chunks);
    writeU64(view, pointer + offset.payloadBytes, payloadBytes);
    heap.bytes.set(previous, pointer + offset.previous);
    sealRecord(heap, pointer, offset.checksum);
    return this.view(0, bytes);
  }

  footerFault(chunks: number, payloadBytes: number, previous: Uint8Array): string | undefined {
    const { heap, pointer } = this;
    const { offset } = SNAPSHOT_FOOTER;
    if (!verifiesAlone(heap, pointer, offset.checksum, this.scratch)) {
      return 'the checksum of its footer does not match';
    }
    const counted =
      heap.view.getUint32(pointer + offset.reserved, true) === 0 &&
      this.number(pointer + offset.chunks) === chunks &&
      this.number(pointer + offset.payloadBytes) === payloadBytes &&
      sameBytes(this.view(offset.previous, 8), previous);
    return counted ? undefined : 'its footer counts other chunks than there are';
  }

  /** A u64, or -1 when it is no safe integer. */
  private number(pointer: number): number {
    const { view } = this.heap;
    return view.getUint32(pointer + 4, true) > MAX_SAFE_HIGH ? -1 : readU64(view, pointer);
  }

  private sameWord(left: number, right: number): boolean {
    const { view } = this.heap;
    return (
      view.getUint32(left, true) === view.getUint32(right, true) &&
      view.getUint32(left + 4, true) === view.getUint32(right + 4, true)
    );
  }
}

export function snapshotMemory(): SharedHeap {
  return SharedHeap.create({ maximumBytes: MEMORY_BYTES });
}

export function damagedSnapshot(file: string, offset: number, finding: string): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `the snapshot ${file} is damaged at byte ${offset}: ${finding}`,
    { details: { file, offset, finding } },
  );
}

function newerVersion(version: number): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_VERSION',
    `a snapshot has format ${version}, this version of Keelson reads up to ` +
      `${SNAPSHOT_HEADER.version}: run the version that wrote it, or a newer one`,
    { details: { found: version, expected: SNAPSHOT_HEADER.version } },
  );
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.every((byte, place) => byte === right[place]);
}
