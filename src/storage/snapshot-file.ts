/**
 * Writes a snapshot file chunk by chunk, and reads one back, verifying every byte. Never more than one
 * chunk is in memory. Naming, renaming and removing are the business of snapshot-directory.ts.
 */
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk, DiskFile } from './disk.js';
import { damagedSnapshot, SnapshotBuffer, type SnapshotHeader } from './snapshot-format.js';
import {
  MAX_SNAPSHOT_CHUNK_BYTES,
  SNAPSHOT_CHUNK,
  SNAPSHOT_FOOTER,
  SNAPSHOT_HEADER,
} from './snapshot-layout.js';

/**
 * What is written is synced this often: a flush of the log on the same disk would otherwise wait for
 * all of a large snapshot.
 */
export const SNAPSHOT_SYNC_BYTES: number = 8 * 1024 * 1024;

export class SnapshotFileWriter {
  private readonly file: DiskFile;
  private readonly buffer: SnapshotBuffer;
  private readonly previous: Uint8Array;
  private position: number;
  private syncedTo = 0;
  private filled = 0;
  private chunks = 0;
  private payloadBytes = 0;

  /** Makes the file, which must not exist; when it cannot be begun, it is not left there. */
  constructor(
    heap: SharedHeap,
    disk: Disk,
    path: string,
    header: SnapshotHeader,
    chunkBytes: number,
  ) {
    const create = { access: 'write', create: true } as const;
    const { buffer, file } = openBuffered(heap, chunkBytes, () => disk.open(path, create));
    this.buffer = buffer;
    this.file = file;
    try {
      const bytes = this.buffer.writeHeader(header);
      this.previous = this.buffer.headerChecksum();
      this.file.write(bytes, 0);
      this.position = bytes.length;
    } catch (error) {
      this.close();
      disk.remove(path);
      throw error;
    }
  }

  append(bytes: Uint8Array): void {
    const { chunkBytes } = this.buffer;
    for (let at = 0; at < bytes.length; ) {
      const taken = Math.min(bytes.length - at, chunkBytes - this.filled);
      this.buffer.payload(this.filled, taken).set(bytes.subarray(at, at + taken));
      this.filled += taken;
      at += taken;
      if (this.filled === chunkBytes) this.writeChunk();
    }
  }

  /** Makes all of it durable, under its present name; returns the size of the file. */
  complete(): number {
    if (this.filled > 0) this.writeChunk();
    const { chunks, payloadBytes, previous } = this;
    this.write(this.buffer.writeFooter(chunks, payloadBytes, previous));
    this.file.dataSync();
    this.close();
    return this.position;
  }

  close(): void {
    this.file.close();
    this.buffer.release();
  }

  private writeChunk(): void {
    this.write(this.buffer.sealChunk(this.chunks, this.filled, this.previous));
    this.chunks++;
    this.payloadBytes += this.filled;
    this.filled = 0;
  }

  private write(bytes: Uint8Array): void {
    this.file.write(bytes, this.position);
    this.position += bytes.length;
    if (this.position - this.syncedTo < SNAPSHOT_SYNC_BYTES) return;
    this.file.dataSync();
    this.syncedTo = this.position;
  }
}

/** @throws KeelsonError STORAGE_CORRUPT with file and offset, wherever something does not verify */
export class SnapshotFileReader {
  readonly header: SnapshotHeader;
  readonly fileBytes: number;
  private readonly file: DiskFile;
  private readonly buffer: SnapshotBuffer;
  private readonly previous: Uint8Array;
  private position: number;
  private chunks = 0;
  private payloadBytes = 0;
  private ended = false;

  constructor(heap: SharedHeap, disk: Disk, path: string) {
    const { buffer, file } = openBuffered(heap, MAX_SNAPSHOT_CHUNK_BYTES, () =>
      disk.open(path, { access: 'read' }),
    );
    this.buffer = buffer;
    this.file = file;
    try {
      this.fileBytes = file.size();
      this.header = this.readHeader();
      this.previous = this.buffer.headerChecksum();
      this.position = SNAPSHOT_HEADER.bytes + this.header.membership.length;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The payload of the next chunk, a view that ends with the next call; undefined behind the last. */
  next(): Uint8Array | undefined {
    if (this.ended) return undefined;
    this.fill(this.position, 0, SNAPSHOT_CHUNK.bytes);
    const length = this.buffer.chunkLength();
    if (typeof length === 'string') throw this.damaged(this.position, length);
    if (length === undefined) {
      this.end();
      return undefined;
    }
    const { bytes, checksumBytes } = SNAPSHOT_CHUNK;
    this.fill(this.position + bytes, bytes, length + checksumBytes);
    const fault = this.buffer.chunkFault(this.chunks, length, this.previous);
    if (fault !== undefined) throw this.damaged(this.position, fault);
    this.chunks++;
    this.payloadBytes += length;
    this.position += bytes + length + checksumBytes;
    return this.buffer.payload(0, length);
  }

  /** Reads on to the end. */
  verify(): void {
    while (this.next() !== undefined);
  }

  close(): void {
    this.file.close();
    this.buffer.release();
  }

  private end(): void {
    this.fill(this.position, 0, SNAPSHOT_FOOTER.bytes);
    const fault = this.buffer.footerFault(this.chunks, this.payloadBytes, this.previous);
    if (fault !== undefined) throw this.damaged(this.position, fault);
    const end = this.position + SNAPSHOT_FOOTER.bytes;
    if (end !== this.fileBytes) throw this.damaged(end, 'bytes follow its footer');
    this.ended = true;
  }

  private readHeader(): SnapshotHeader {
    this.fill(0, 0, SNAPSHOT_HEADER.bytes);
    const read = this.buffer.readHeader();
    if (typeof read === 'string') throw this.damaged(0, read);
    const { header, membershipBytes } = read;
    this.fill(SNAPSHOT_HEADER.bytes, SNAPSHOT_HEADER.bytes, membershipBytes);
    if (!this.buffer.membershipVerifies(membershipBytes)) {
      throw this.damaged(SNAPSHOT_HEADER.bytes, 'the checksum of its membership does not match');
    }
    const membership = Uint8Array.from(this.buffer.view(SNAPSHOT_HEADER.bytes, membershipBytes));
    return { ...header, membership };
  }

  private fill(position: number, at: number, bytes: number): void {
    const read = this.file.read(this.buffer.view(at, bytes), position);
    if (read < bytes) throw this.damaged(position - at, 'it ends too early');
  }

  private damaged(offset: number, finding: string): Error {
    return damagedSnapshot(this.file.path, offset, finding);
  }
}

/** Memory first: when it or the file is not to be had, nothing of the other stays behind. */
function openBuffered(
  heap: SharedHeap,
  chunkBytes: number,
  open: () => DiskFile,
): { readonly buffer: SnapshotBuffer; readonly file: DiskFile } {
  const buffer = new SnapshotBuffer(heap, chunkBytes);
  try {
    return { buffer, file: open() };
  } catch (error) {
    buffer.release();
    throw error;
  }
}
