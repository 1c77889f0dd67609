import {
  corruptFrame,
  FRAME_HEADER_BYTES,
  fixedBytesOf,
  verifyFixedPart,
  verifyHeader,
} from './frame.js';

/**
 * Cuts what a socket delivers into frames. A frame that lies in one chunk is handed on in place. Of
 * one that spans chunks, the chunks themselves are kept; only small pieces are copied together, so
 * that memory follows the bytes that have arrived and never a length that was only announced.
 */
export class FrameReader {
  private readonly sink: FrameSink;
  private readonly head: Uint8Array = new Uint8Array(FRAME_HEADER_BYTES);
  private readonly headView: DataView = new DataView(this.head.buffer);
  private headHave = 0;
  private partial: PartialFrame | undefined;
  private stopped = false;

  constructor(sink: FrameSink) {
    this.sink = sink;
  }

  /** Ignores everything from here on, also the rest of a chunk that is being read. */
  stop(): void {
    this.stopped = true;
    this.partial = undefined;
  }

  /** @throws KeelsonError CORRUPT_FRAME; the connection is of no use then. */
  push(chunk: Uint8Array): void {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const end = chunk.byteLength;
    let at = 0;
    while (at < end && !this.stopped) {
      if (this.partial !== undefined) {
        at = this.continueFrame(this.partial, chunk, at);
      } else if (this.headHave === 0 && end - at >= FRAME_HEADER_BYTES) {
        at = this.beginFrame(view, chunk, at);
      } else {
        const take = Math.min(FRAME_HEADER_BYTES - this.headHave, end - at);
        this.head.set(chunk.subarray(at, at + take), this.headHave);
        this.headHave += take;
        at += take;
        if (this.headHave === FRAME_HEADER_BYTES) {
          this.headHave = 0;
          this.beginFrame(this.headView, this.head, 0);
        }
      }
    }
  }

  private beginFrame(view: DataView, chunk: Uint8Array, at: number): number {
    verifyHeader(view, at);
    const bodyBytes = view.getUint32(at + 4, true);
    const type = view.getUint8(at + 8);
    const limit = this.sink.maxBodyBytes(type);
    if (limit < 0) throw corruptFrame(`a frame of type ${type} has no place here`);
    if (bodyBytes > limit) throw corruptFrame(`${bodyBytes} bytes, the limit is ${limit}`);
    const fixed = fixedBytesOf(type, bodyBytes);
    const check = view.getUint32(at + 12, true);
    const body = at + FRAME_HEADER_BYTES;
    const bodyEnd = body + bodyBytes;
    if (bodyEnd > chunk.byteLength) {
      this.partial = new PartialFrame(type, check, fixed, bodyBytes - fixed);
      return body;
    }
    verifyFixedPart(view, body, fixed, check);
    const rest = bodyBytes === fixed ? NO_PARTS : [chunk.subarray(body + fixed, bodyEnd)];
    this.sink.frame(type, view, body, fixed, rest);
    return bodyEnd;
  }

  private continueFrame(partial: PartialFrame, chunk: Uint8Array, at: number): number {
    const next = partial.take(chunk, at);
    if (!partial.complete) return next;
    this.partial = undefined;
    const { type, fixed } = partial;
    const view = new DataView(fixed.buffer);
    verifyFixedPart(view, 0, fixed.byteLength, partial.check);
    this.sink.frame(type, view, 0, fixed.byteLength, partial.rest);
    return next;
  }
}

export interface FrameSink {
  /** Limit of a body of this type at this moment; -1 when the type has no place here. */
  maxBodyBytes(type: number): number;
  /** All views end when the call returns. */
  frame(
    type: number,
    view: DataView,
    at: number,
    fixedBytes: number,
    rest: readonly Uint8Array[],
  ): void;
}

const NO_PARTS: readonly Uint8Array[] = [];
const PAGE_BYTES = 65_536;
/** Pieces from here on are kept as they are. */
const LARGE_PIECE_BYTES = 4096;

/** A frame that has not arrived as a whole. */
class PartialFrame {
  readonly type: number;
  readonly check: number;
  readonly fixed: Uint8Array<ArrayBuffer>;
  readonly rest: Uint8Array[] = [];
  private fixedMissing: number;
  private restMissing: number;
  private page: Uint8Array | undefined;
  private pageUsed = 0;

  constructor(type: number, check: number, fixedBytes: number, restBytes: number) {
    this.type = type;
    this.check = check;
    this.fixed = new Uint8Array(fixedBytes);
    this.fixedMissing = fixedBytes;
    this.restMissing = restBytes;
  }

  get complete(): boolean {
    return this.fixedMissing === 0 && this.restMissing === 0;
  }

  /** Takes what belongs to it from `at` on; returns the place behind. */
  take(chunk: Uint8Array, at: number): number {
    let position = at;
    if (this.fixedMissing > 0) {
      const bytes = Math.min(this.fixedMissing, chunk.byteLength - position);
      const piece = chunk.subarray(position, position + bytes);
      this.fixed.set(piece, this.fixed.byteLength - this.fixedMissing);
      this.fixedMissing -= bytes;
      position += bytes;
    }
    const bytes = Math.min(this.restMissing, chunk.byteLength - position);
    if (bytes === 0) return position;
    const piece = chunk.subarray(position, position + bytes);
    if (bytes >= LARGE_PIECE_BYTES) {
      this.closePage();
      this.rest.push(piece);
    } else {
      this.collect(piece);
    }
    this.restMissing -= bytes;
    return position + bytes;
  }

  private collect(piece: Uint8Array): void {
    if (this.page !== undefined && this.page.byteLength - this.pageUsed < piece.byteLength) {
      this.closePage();
    }
    if (this.page === undefined) {
      this.page = new Uint8Array(Math.min(PAGE_BYTES, this.restMissing));
      this.pageUsed = 0;
      this.rest.push(this.page);
    }
    this.page.set(piece, this.pageUsed);
    this.pageUsed += piece.byteLength;
    this.rest[this.rest.length - 1] = this.page.subarray(0, this.pageUsed);
  }

  /** A page that is mostly empty is given up for a copy, so that no peer makes us hold air. */
  private closePage(): void {
    if (this.page === undefined) return;
    if (this.pageUsed * 2 < this.page.byteLength) {
      this.rest[this.rest.length - 1] = this.page.slice(0, this.pageUsed);
    }
    this.page = undefined;
  }
}
