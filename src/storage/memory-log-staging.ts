/**
 * A region of shared memory in which blocks are encoded, verified and rebuilt, one call at a time:
 * what stands in it is copied out before the call ends. It grows to the largest block so far.
 */
import { BlockCodec } from '../wasm/block-codec.js';
import type { SharedHeap } from '../wasm/shared-heap.js';

const MIN_STAGING_BYTES = 64 * 1024;

export class MemoryLogStaging {
  readonly heap: SharedHeap;
  readonly codec: BlockCodec;
  private readonly codecScratch: number;
  private pointer: number;
  private size: number = MIN_STAGING_BYTES;

  constructor(heap: SharedHeap) {
    this.heap = heap;
    this.codecScratch = heap.allocate(BlockCodec.scratchBytes);
    this.codec = new BlockCodec(heap, this.codecScratch);
    this.pointer = heap.allocate(this.size);
  }

  get sizeBytes(): number {
    return this.size;
  }

  /** Where `bytes` of room are, until the next call. */
  room(bytes: number): number {
    if (bytes > this.size) {
      this.heap.release(this.pointer, this.size);
      this.size = 2 ** Math.ceil(Math.log2(bytes));
      this.pointer = this.heap.allocate(this.size);
    }
    return this.pointer;
  }

  end(): void {
    this.heap.release(this.pointer, this.size);
    this.heap.release(this.codecScratch, BlockCodec.scratchBytes);
  }
}
