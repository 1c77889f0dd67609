/**
 * The one shared memory and this thread's instance of the module over it.
 *
 * ```
 * [0, 256)   constant tables (see CONSTANTS), written once by the creator
 * [256, …)   regions, in the order of their reservation
 * ```
 *
 * Only the thread that created the heap reserves regions and grows the memory; other threads attach
 * and work on pointers they are given. Regions are permanent; `allocate` hands out regions that come
 * back, through one free list for each power of two, so that what is freed is used again.
 * Shared memory never shrinks: the declared maximum is the bound.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import { CONSTANTS, type KeelsonExports } from './abi.js';
import {
  type CompiledModule,
  compiledModule,
  createMemory,
  instantiate,
  PAGE_BYTES,
  type WasmMemory,
} from './module.js';

/** What a worker needs to attach; can be posted. Opaque. */
export interface HeapHandle {
  readonly module: CompiledModule;
  readonly memory: WasmMemory;
}

export interface SharedHeapOptions {
  /** The memory never grows beyond, in bytes; at most 4 GiB less one page. */
  readonly maximumBytes: number;
}

/** The module declares this much as its least memory. */
const MIN_PAGES = 16;
/** 2^32 is not a pointer, so the last page stays unused. */
const MAX_PAGES = 65535;
const MIN_ALLOCATION_BYTES = 64;
/** Growing takes about 100 µs, however much: every thread hears of it. What is not used takes no memory. */
const GROWTH_PAGES = 64;
/** Of regions that are allocated, by the class of their size. */
const SIZES: readonly number[] = Array.from({ length: 33 }, (_, sizeClass) => 2 ** sizeClass);

export class SharedHeap {
  readonly exports: KeelsonExports;
  /** Post this to a worker and call `SharedHeap.attach` there. */
  readonly transferable: HeapHandle;
  private readonly memory: WasmMemory;
  private readonly maximumPages: number;
  /** First byte that is not reserved; 0 in a heap that was attached. */
  private end: number;
  private currentBuffer: SharedArrayBuffer;
  private currentBytes: Uint8Array;
  private currentView: DataView;
  /** Freed regions by the power of two of their size. */
  private readonly free: number[][] = [];
  private freeBytes = 0;

  private constructor(handle: HeapHandle, end: number, maximumPages: number) {
    this.transferable = handle;
    this.memory = handle.memory;
    this.exports = instantiate(handle.module, handle.memory);
    this.end = end;
    this.maximumPages = maximumPages;
    this.currentBuffer = this.memory.buffer;
    this.currentBytes = new Uint8Array(this.currentBuffer);
    this.currentView = new DataView(this.currentBuffer);
  }

  static create(options: SharedHeapOptions): SharedHeap {
    const maximumPages = Math.floor(options.maximumBytes / PAGE_BYTES);
    if (!(maximumPages >= MIN_PAGES && maximumPages <= MAX_PAGES)) {
      throw new KeelsonError(
        'KEELSON_INVALID_ARGUMENT',
        `the shared memory must have between ${MIN_PAGES * PAGE_BYTES} and ${MAX_PAGES * PAGE_BYTES} bytes, not ${options.maximumBytes}`,
      );
    }
    const memory = createMemory(MIN_PAGES, maximumPages);
    const heap = new SharedHeap(
      { module: compiledModule(), memory },
      CONSTANTS.bytes,
      maximumPages,
    );
    heap.exports.writeConstants();
    return heap;
  }

  static attach(handle: HeapHandle): SharedHeap {
    return new SharedHeap(handle, 0, 0);
  }

  /** All of the memory. Made again when it has grown: do not keep it across a reservation. */
  get bytes(): Uint8Array {
    if (this.end === 0) this.refresh();
    return this.currentBytes;
  }

  /** All of the memory, for numbers. Made again when it has grown, like `bytes`. */
  get view(): DataView {
    if (this.end === 0) this.refresh();
    return this.currentView;
  }

  /** Bytes reserved so far, for ever. */
  get reservedBytes(): number {
    return this.end;
  }

  /** Bytes in regions that were freed and wait to be allocated again. */
  get reusableBytes(): number {
    return this.freeBytes;
  }

  /** A view of [pointer, pointer + length). It stays valid when the memory grows. */
  slice(pointer: number, length: number): Uint8Array {
    return this.bytes.subarray(pointer, pointer + length);
  }

  /**
   * Reserves a zeroed region for ever and returns its pointer.
   * @throws KeelsonError KEELSON_OVERLOADED when the declared maximum or the host leaves no room.
   */
  reserve(bytes: number, alignment: number): number {
    invariant(this.end > 0, 'only the thread that created the heap reserves');
    invariant(bytes > 0 && Number.isSafeInteger(bytes), 'a region has a size');
    invariant(
      alignment > 0 && (alignment & (alignment - 1)) === 0,
      'an alignment is a power of two',
    );
    const pointer = Math.ceil(this.end / alignment) * alignment;
    this.growTo(pointer + bytes);
    this.end = pointer + bytes;
    return pointer;
  }

  /**
   * A region that `release` takes back, with at least `bytes`, aligned to its size up to 4 KiB. Its
   * content is undefined.
   * @throws KeelsonError KEELSON_OVERLOADED like `reserve`.
   */
  allocate(bytes: number): number {
    const sizeClass = sizeClassOf(bytes);
    const size = SIZES[sizeClass]!;
    const pointer = this.free[sizeClass]?.pop();
    if (pointer === undefined) return this.reserve(size, Math.min(size, 4096));
    this.freeBytes -= size;
    return pointer;
  }

  /** Gives back a region of `allocate`; `bytes` as it was asked for. */
  release(pointer: number, bytes: number): void {
    const sizeClass = sizeClassOf(bytes);
    this.free[sizeClass] ??= [];
    this.free[sizeClass].push(pointer);
    this.freeBytes += SIZES[sizeClass]!;
  }

  /**
   * Takes all regions back: for whoever opens many stores one after another, as tests do. Whoever had
   * one must not use it any more.
   */
  reset(): void {
    // Eight bytes at a time: views of shared memory are filled element by element.
    const words = Math.ceil((this.end - CONSTANTS.bytes) / Float64Array.BYTES_PER_ELEMENT);
    new Float64Array(this.currentBuffer, CONSTANTS.bytes, words).fill(0);
    this.end = CONSTANTS.bytes;
    this.free.length = 0;
    this.freeBytes = 0;
  }

  private growTo(end: number): void {
    const missing = Math.ceil((end - this.currentBuffer.byteLength) / PAGE_BYTES);
    if (missing <= 0) return;
    const pages = this.currentBuffer.byteLength / PAGE_BYTES + missing;
    const details = {
      wantedBytes: pages * PAGE_BYTES,
      maximumBytes: this.maximumPages * PAGE_BYTES,
    };
    if (pages > this.maximumPages) {
      throw new KeelsonError(
        'KEELSON_OVERLOADED',
        `the shared memory is full: ${details.wantedBytes} bytes wanted, at most ${details.maximumBytes} allowed`,
        { details },
      );
    }
    try {
      const room = this.maximumPages - this.currentBuffer.byteLength / PAGE_BYTES;
      this.memory.grow(Math.min(Math.max(missing, GROWTH_PAGES), room));
    } catch (cause) {
      throw new KeelsonError(
        'KEELSON_OVERLOADED',
        `the system refuses to grow the shared memory to ${details.wantedBytes} bytes`,
        { cause, details },
      );
    }
    this.refresh();
  }

  private refresh(): void {
    const buffer = this.memory.buffer;
    if (buffer === this.currentBuffer) return;
    this.currentBuffer = buffer;
    this.currentBytes = new Uint8Array(buffer);
    this.currentView = new DataView(buffer);
  }
}

function sizeClassOf(bytes: number): number {
  return 32 - Math.clz32(Math.max(bytes, MIN_ALLOCATION_BYTES) - 1);
}
