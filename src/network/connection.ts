import type { Socket } from 'node:net';
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import { FRAME_HEADER_BYTES, sealFrame } from './frame.js';
import { FrameReader, type FrameSink } from './frame-reader.js';
import type { OutgoingEntries } from './network.js';

/**
 * One socket: frames out, frames in, and the references on entry bytes that the socket holds.
 *
 * - Everything that one turn of the run queue sends leaves in one system call: headers and small
 *   frames are staged side by side, the socket is corked, and one job at the end of the turn opens it.
 * - Entry bytes are written as they are. Their reference ends when the socket has reported the write,
 *   or with `close`; never at `destroy`, because the system may still read the memory then.
 */
export class Connection {
  readonly socket: Socket;
  /** Time at which bytes arrived last. */
  lastReceivedMs: number;
  private readonly scheduler: Scheduler;
  private readonly owner: ConnectionOwner;
  private readonly reader: FrameReader;
  private dead = false;
  private ended = false;
  private failure: Error | undefined;
  private flushQueued = false;
  private readonly flushJob: () => void = () => this.flush();
  private readonly onWritten: () => void = () => this.written();
  /** Entries that the socket holds, oldest first, from `pinnedHead` on. */
  private pinned: OutgoingEntries[] = [];
  private pinnedHead = 0;
  private stage: Uint8Array<ArrayBuffer> = new Uint8Array(STAGE_BYTES);
  private stageView: DataView<ArrayBuffer> = new DataView(this.stage.buffer);
  private stageStart = 0;
  private stageEnd = 0;

  constructor(socket: Socket, scheduler: Scheduler, owner: ConnectionOwner) {
    this.socket = socket;
    this.scheduler = scheduler;
    this.owner = owner;
    this.lastReceivedMs = scheduler.now();
    this.reader = new FrameReader({
      maxBodyBytes: (type) => owner.maxBodyBytes(type),
      frame: (type, view, at, fixedBytes, rest) => owner.frame(type, view, at, fixedBytes, rest),
    });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('data', (chunk: Buffer) => this.received(chunk));
    socket.on('drain', () => this.owner.room());
    socket.on('error', (error) => {
      this.failure ??= error;
    });
    socket.on('close', () => this.closed());
  }

  get alive(): boolean {
    return !this.dead;
  }

  /** Bytes that wait to be sent, staged or in the socket. */
  get queuedBytes(): number {
    return this.stageEnd - this.stageStart + this.socket.writableLength;
  }

  get pinnedCount(): number {
    return this.pinned.length - this.pinnedHead;
  }

  /** A view of the memory in which `reserve` gave room. */
  get view(): DataView {
    return this.stageView;
  }

  /**
   * Room for a frame with a fixed part of `fixedBytes`; returns where the fixed part stands in `view`.
   * The caller writes it and calls `commit`, before anything else.
   */
  reserve(fixedBytes: number): number {
    const bytes = FRAME_HEADER_BYTES + fixedBytes;
    if (this.stageEnd + bytes > this.stage.byteLength) {
      this.writeStaged();
      this.stage = new Uint8Array(Math.max(STAGE_BYTES, bytes));
      this.stageView = new DataView(this.stage.buffer);
      this.stageStart = 0;
      this.stageEnd = 0;
    }
    return this.stageEnd + FRAME_HEADER_BYTES;
  }

  /** Queues the frame of which the fixed part stands at `at`; `restBytes` must follow by `attach`. */
  commit(type: number, at: number, fixedBytes: number, restBytes: number): void {
    invariant(!this.dead, 'frames are queued on a living connection only');
    sealFrame(this.stageView, at - FRAME_HEADER_BYTES, type, fixedBytes, fixedBytes + restBytes);
    this.stageEnd = at + fixedBytes;
    if (this.flushQueued) return;
    this.flushQueued = true;
    this.scheduler.enqueue(this.flushJob);
  }

  /** A frame that has no rest and whose body is at hand. */
  sendBody(type: number, body: Uint8Array): void {
    const at = this.reserve(body.byteLength);
    this.stage.set(body, at);
    this.commit(type, at, body.byteLength, 0);
  }

  /** Adds bytes behind the last frame; they must not change until they are written. */
  attach(bytes: Uint8Array): void {
    if (bytes.byteLength <= MAX_COPIED_BYTES && this.fitsStage(bytes.byteLength)) {
      this.stage.set(bytes, this.stageEnd);
      this.stageEnd += bytes.byteLength;
      return;
    }
    this.writeStaged();
    this.socket.write(bytes);
  }

  /** Adds entry bytes behind the last frame; holds their reference, or copies a few and releases it. */
  attachEntries(entries: OutgoingEntries): void {
    const { parts } = entries;
    if (entries.bytes <= MAX_COPIED_BYTES && this.fitsStage(entries.bytes)) {
      for (const part of parts) this.attach(part);
      entries.release();
      return;
    }
    this.writeStaged();
    this.pinned.push(entries);
    let last = parts.length - 1;
    while (parts[last]!.byteLength === 0) last--;
    for (let at = 0; at < last; at++) {
      if (parts[at]!.byteLength > 0) this.socket.write(parts[at]!);
    }
    this.socket.write(parts[last]!, this.onWritten);
  }

  /** Sends what is queued, and then ends; what still arrives is ignored. */
  end(): void {
    if (this.dead || this.ended) return;
    this.ended = true;
    this.reader.stop();
    this.flush();
    this.socket.end();
  }

  /** Gives the connection up at once. `owner.closed` follows when the socket is gone. */
  destroy(reason?: Error): void {
    if (this.dead) return;
    this.dead = true;
    this.failure ??= reason;
    this.reader.stop();
    this.socket.destroy();
  }

  private fitsStage(bytes: number): boolean {
    return this.stageEnd + bytes <= this.stage.byteLength;
  }

  private received(chunk: Uint8Array): void {
    this.lastReceivedMs = this.scheduler.now();
    this.owner.receivedBytes(chunk.byteLength);
    try {
      this.reader.push(chunk);
    } catch (error) {
      const known = error instanceof KeelsonError && error.code === 'KEELSON_CORRUPT_FRAME';
      this.destroy(error instanceof Error ? error : undefined);
      if (!known) throw error;
    }
  }

  private flush(): void {
    this.flushQueued = false;
    if (this.dead) return;
    this.writeStaged();
    if (this.socket.writableCorked > 0) this.socket.uncork();
    this.owner.flushed();
  }

  private writeStaged(): void {
    if (this.socket.writableCorked === 0) this.socket.cork();
    if (this.stageEnd === this.stageStart) return;
    this.socket.write(this.stage.subarray(this.stageStart, this.stageEnd));
    this.stageStart = this.stageEnd;
  }

  /** Called once for each of `pinned`, in order, while the socket lives; afterwards `close` does it. */
  private written(): void {
    if (this.dead || this.socket.destroyed) return;
    const entries = this.pinned[this.pinnedHead]!;
    this.pinnedHead++;
    if (this.pinnedHead === this.pinned.length) {
      this.pinned = [];
      this.pinnedHead = 0;
    } else if (this.pinnedHead >= COMPACT_PINNED) {
      this.pinned = this.pinned.slice(this.pinnedHead);
      this.pinnedHead = 0;
    }
    entries.release();
    this.owner.room();
  }

  private closed(): void {
    this.dead = true;
    this.reader.stop();
    const held = this.pinned.slice(this.pinnedHead);
    this.pinned = [];
    this.pinnedHead = 0;
    for (const entries of held) entries.release();
    this.owner.closed(this.failure);
  }
}

export interface ConnectionOwner extends FrameSink {
  receivedBytes(bytes: number): void;
  /** What was queued so far has been handed to the socket. */
  flushed(): void;
  /** Something has been written: there may be room again. */
  room(): void;
  /** The socket is gone, and all references are released. */
  closed(failure: Error | undefined): void;
}

const STAGE_BYTES = 16_384;
/** Below this a copy is cheaper than one more vector in the system call. */
const MAX_COPIED_BYTES = 1024;
const COMPACT_PINNED = 256;
const KEEP_ALIVE_MS = 10_000;
