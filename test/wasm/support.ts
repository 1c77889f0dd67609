import { BlockCodec } from '../../dist/wasm/block-codec.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';

export interface Random {
  /** A whole number in [0, below). */
  below(below: number): number;
  bytes(length: number): Uint8Array;
}

/** mulberry32: enough chance for tests, the same for the same seed. */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  return {
    below: (below) => Math.floor((next() / 2 ** 32) * below),
    bytes: (length) => {
      const bytes = new Uint8Array(length);
      for (let i = 0; i < length; i++) bytes[i] = next();
      return bytes;
    },
  };
}

export interface Bench {
  readonly heap: SharedHeap;
  readonly codec: BlockCodec;
  readonly region: number;
  readonly regionBytes: number;
}

export function createBench(regionBytes = 1024 * 1024): Bench {
  const heap = SharedHeap.create({ maximumBytes: 64 * 1024 * 1024 });
  const codec = new BlockCodec(heap);
  return { heap, codec, region: heap.reserve(regionBytes, 4096), regionBytes };
}

export interface BlockSpec {
  readonly group?: number;
  readonly firstIndex: number;
  readonly term?: number;
  readonly time?: number;
  readonly kind?: number;
  readonly payloads: readonly Uint8Array[];
}

/** Encodes blocks one after the other from `pointer` on; returns the bytes of all. */
export function encodeBlocks(bench: Bench, pointer: number, specs: readonly BlockSpec[]): number {
  let at = pointer;
  for (const spec of specs) {
    at += bench.codec.encodeBlock(at, bench.region + bench.regionBytes - at, {
      group: spec.group ?? 7,
      firstIndex: spec.firstIndex,
      term: spec.term ?? 3,
      time: spec.time ?? 1_700_000_000_000,
      kind: spec.kind ?? ENTRY_KIND.application,
      payloads: spec.payloads,
      count: spec.payloads.length,
    });
  }
  return at - pointer;
}
