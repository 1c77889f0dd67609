import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BLOCK, ITEM } from '../../dist/wasm/layout.js';
import { type IndexExtent, LogIndex } from '../../dist/wasm/log-index.js';
import { SegmentUsage } from '../../dist/wasm/segment-usage.js';
import { type Bench, type BlockSpec, createBench, encodeBlocks } from './support.js';

/** An entry of the plain model. */
interface Place {
  readonly term: number;
  readonly segment: number;
  readonly itemPosition: number;
  readonly payloadPosition: number;
  readonly length: number;
}

function bytesOf(usage: SegmentUsage): [number, number][] {
  const found = usage.list().map(({ segment, bytes }): [number, number] => [segment, bytes]);
  expect(usage.totalBytes()).toBe(found.reduce((sum, [, bytes]) => sum + bytes, 0));
  return found.sort();
}

class Model {
  firstIndex: number;
  readonly places: Place[] = [];

  constructor(firstIndex: number) {
    this.firstIndex = firstIndex;
  }

  get lastIndex(): number {
    return this.firstIndex + this.places.length - 1;
  }

  at(index: number): Place | undefined {
    return this.places[index - this.firstIndex];
  }

  truncateAfter(index: number): void {
    this.places.length = Math.min(this.places.length, Math.max(0, index + 1 - this.firstIndex));
  }

  get oldestSegment(): number {
    return Math.min(...this.places.map((place) => place.segment));
  }

  purge(index: number): void {
    this.places.splice(0, Math.max(0, index + 1 - this.firstIndex));
    this.firstIndex = Math.max(this.firstIndex, index + 1);
  }

  append(specs: readonly BlockSpec[], segment: number, position: number): void {
    this.truncateAfter(specs[0]!.firstIndex - 1);
    this.place(specs, segment, position);
  }

  /** The same entries as they are, one block for each term. */
  specs(first: number, last: number): BlockSpec[] {
    const specs: BlockSpec[] = [];
    for (let index = first; index <= last; index++) {
      const { term, length } = this.at(index) ?? {};
      if (term === undefined) continue;
      const payload = new Uint8Array(length!);
      const spec = specs.at(-1);
      if (spec?.term === term) (spec.payloads as Uint8Array[]).push(payload);
      else specs.push({ firstIndex: index, term, payloads: [payload] });
    }
    return specs;
  }

  segmentBytes(): [number, number][] {
    const bytes = new Map<number, number>();
    for (const { segment, length } of this.places) {
      bytes.set(segment, (bytes.get(segment) ?? 0) + ITEM.bytes + length);
    }
    return [...bytes].sort();
  }

  place(specs: readonly BlockSpec[], segment: number, position: number): void {
    let at = position;
    let index = specs[0]!.firstIndex;
    for (const { payloads, term } of specs) {
      let itemPosition = at + BLOCK.bytes;
      let payloadPosition = itemPosition + payloads.length * ITEM.bytes;
      for (const { length } of payloads) {
        const place = { term: term!, segment, itemPosition, payloadPosition, length };
        if (index >= this.firstIndex) this.places[index - this.firstIndex] = place;
        index++;
        itemPosition += ITEM.bytes;
        payloadPosition += length;
      }
      at = payloadPosition;
    }
  }

  termRuns(): { firstIndex: number; term: number }[] {
    const runs: { firstIndex: number; term: number }[] = [];
    this.places.forEach(({ term }, slot) => {
      if (runs.at(-1)?.term !== term) runs.push({ firstIndex: this.firstIndex + slot, term });
    });
    return runs;
  }

  scan(first: number, last: number, maxBytes: number): IndexExtent[] {
    const extents: IndexExtent[] = [];
    let bytes = 0;
    for (let index = first; index <= last; index++) {
      const place = this.at(index);
      if (place === undefined) break;
      const before = index === first ? undefined : this.at(index - 1)!;
      const continues =
        before !== undefined &&
        before.segment === place.segment &&
        before.itemPosition + ITEM.bytes === place.itemPosition &&
        before.payloadPosition + before.length === place.payloadPosition;
      bytes += ITEM.bytes + place.length + (continues ? 0 : BLOCK.bytes);
      if (bytes > maxBytes && index !== first) break;
      if (continues) {
        const extent = extents.pop()!;
        const { items, payloadLength } = extent;
        extents.push({ ...extent, items: items + 1, payloadLength: payloadLength + place.length });
        continue;
      }
      if (extents.length === 64) break;
      const { segment, itemPosition, payloadPosition, length } = place;
      extents.push({
        segment,
        firstIndex: index,
        items: 1,
        itemPosition,
        payloadPosition,
        payloadLength: length,
      });
    }
    return extents;
  }
}

const EMPTY = new Uint8Array(0);
const payloadsOf = (count: number, bytes: number): Uint8Array[] =>
  Array.from({ length: count }, (_, i) => new Uint8Array(bytes === 0 ? 0 : (bytes + i) % 40));

function append(
  bench: Bench,
  index: LogIndex,
  specs: readonly BlockSpec[],
  segment = 1,
  position = 4096,
): number {
  const length = encodeBlocks(bench, bench.region, specs);
  return index.appendBlocks(bench.region, length, segment, position);
}

describe('a log index', () => {
  test('writes no more term runs than its table has room for, whatever the terms are', () => {
    for (const firstTerm of [0, 1]) {
      const bench = createBench();
      const index = new LogIndex(bench.heap);
      // The next allocation stands right behind the first table.
      const behind = bench.heap.allocate(64);
      bench.heap.bytes.fill(0xaa, behind, behind + 64);
      for (let first = 1; first <= 100; first += 5) {
        const specs = Array.from({ length: 5 }, (_, at) => {
          return { firstIndex: first + at, term: firstTerm + first - 1 + at, payloads: [EMPTY] };
        });
        append(bench, index, specs);
      }
      expect(index.runCount).toBe(100);
      expect(bench.heap.slice(behind, 64).every((byte) => byte === 0xaa)).toBe(true);
    }
  });

  test('equals a plain model under random operations', () => {
    const block = fc.record({
      count: fc.integer({ min: 1, max: 40 }),
      bytes: fc.integer({ min: 0, max: 30 }),
      termStep: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 3 })),
    });
    const operation = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          kind: fc.constant('append' as const),
          blocks: fc.array(block, { minLength: 1, maxLength: 4 }),
          back: fc.oneof(
            { weight: 4, arbitrary: fc.constant(0) },
            { weight: 1, arbitrary: fc.nat(60) },
          ),
          segment: fc.integer({ min: 1, max: 4 }),
          position: fc.nat(2 ** 31),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant('truncate' as const), back: fc.nat(80) }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant('purge' as const),
          back: fc.oneof(fc.nat(80), fc.integer({ min: -20, max: 20 })),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant('place' as const),
          back: fc.nat(80),
          entries: fc.integer({ min: 1, max: 60 }),
          segment: fc.integer({ min: 1, max: 6 }),
          position: fc.nat(2 ** 31),
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant('look' as const),
          back: fc.nat(200),
          entries: fc.nat(200),
          bytes: fc.nat(9_000),
          wrongFrom: fc.nat(80),
        }),
      },
    );
    const bench = createBench();
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 2 ** 40),
        fc.array(operation, { maxLength: 60 }),
        (firstIndex, operations) => {
          const usage = new SegmentUsage();
          const index = new LogIndex(bench.heap, firstIndex, usage);
          const model = new Model(firstIndex);
          let term = 1;
          for (const step of operations) {
            if (step.kind === 'append') {
              let next = Math.max(1, model.lastIndex + 1 - step.back);
              const specs = step.blocks.map(({ count, bytes, termStep }) => {
                term += termStep;
                next += count;
                return { firstIndex: next - count, term, payloads: payloadsOf(count, bytes) };
              });
              append(bench, index, specs, step.segment, step.position);
              model.append(specs, step.segment, step.position);
            } else if (step.kind === 'truncate') {
              index.truncateAfter(model.lastIndex - step.back);
              model.truncateAfter(model.lastIndex - step.back);
            } else if (step.kind === 'purge') {
              const upTo = model.lastIndex - step.back;
              index.purge(upTo);
              model.purge(upTo);
            } else if (step.kind === 'place') {
              const from = Math.max(1, model.lastIndex - step.back);
              const { segment, position } = step;
              const specs = model.specs(from, from + step.entries - 1);
              if (specs.length === 0) continue;
              const length = encodeBlocks(bench, bench.region, specs);
              expect(index.placeBlocks(bench.region, length, segment, position)).toBe(true);
              model.place(specs, segment, position);
            } else {
              const from = Math.max(0, model.lastIndex - step.back);
              const to = from + step.entries;
              expect(index.scan(from, to, step.bytes)).toEqual(model.scan(from, to, step.bytes));
              const { firstIndex: first, lastIndex: last } = model;
              for (const at of [from, to, first - 1, first, last + 1]) {
                expect(index.term(at)).toBe(model.at(at)?.term ?? 0);
              }
              checkConflict(bench, index, model, Math.max(1, from), step.wrongFrom);
            }
            expect(index.firstIndex).toBe(model.firstIndex);
            expect(index.lastIndex).toBe(model.lastIndex);
            expect(index.termRuns()).toEqual(model.termRuns());
            expect(index.oldestSegment).toBe(model.oldestSegment);
            expect(bytesOf(usage)).toEqual(model.segmentBytes());
            expect(usage.oldest).toBe(model.oldestSegment);
            checkOldestRun(index, model);
          }
          index.dispose();
        },
      ),
      { seed: 20_260_803, numRuns: 150 },
    );
  });

  function checkOldestRun(index: LogIndex, model: Model): void {
    const run = index.oldestRun;
    if (run === undefined) {
      expect(model.places).toEqual([]);
      return;
    }
    const { firstIndex, lastIndex, segment } = run;
    expect(segment).toBe(model.oldestSegment);
    for (let at = firstIndex; at <= lastIndex; at++) expect(model.at(at)?.segment).toBe(segment);
    expect(model.at(lastIndex + 1)?.segment).not.toBe(segment);
  }

  /** Blocks as the model has them from `from` on, with other terms from the `wrongFrom`th entry on. */
  function checkConflict(
    bench: Bench,
    index: LogIndex,
    model: Model,
    from: number,
    wrongFrom: number,
  ): void {
    const specs = Array.from({ length: 60 }, (_, i) => ({
      firstIndex: from + i,
      term: (model.at(from + i)?.term ?? 1) + (i >= wrongFrom ? 1 : 0),
      payloads: [EMPTY],
    }));
    const length = encodeBlocks(bench, bench.region, specs);
    const wrong = specs.find((spec) => {
      const place = model.at(spec.firstIndex);
      return place !== undefined && place.term !== spec.term;
    });
    expect(index.conflict(bench.region, length)).toBe(wrong?.firstIndex ?? 0);
  }

  test('keeps 100,000 entries in at most 20 bytes each, and the last as well as the first', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    const payloads = payloadsOf(1000, 0);
    for (let block = 0; block < 100; block++) {
      const spec = { firstIndex: block * 1000 + 1, term: 1 + (block >> 4), payloads };
      append(bench, index, [spec], block, 8192);
    }
    expect(index.lastIndex).toBe(100_000);
    expect(index.bytes / 100_000).toBeLessThan(20);
    expect(index.scan(1, 1, 0)[0]).toMatchObject({ segment: 0, itemPosition: 8192 + BLOCK.bytes });
    expect(index.scan(100_000, 100_000, 0)).toEqual([
      {
        segment: 99,
        firstIndex: 100_000,
        items: 1,
        itemPosition: 8192 + BLOCK.bytes + 999 * ITEM.bytes,
        payloadPosition: 8192 + BLOCK.bytes + 1000 * ITEM.bytes,
        payloadLength: 0,
      },
    ]);
    expect(index.scan(1, 100_000, 2 ** 30)).toHaveLength(64);
    expect(index.term(100_000)).toBe(7);
    index.dispose();
  });

  test('takes at most 20 bytes for an entry and 704 for a log, however small the logs are', () => {
    const bench = createBench();
    const before = bench.heap.reservedBytes;
    let entries = 0;
    const counts = [1, 5, 32, 33, 100, 1000];
    const indexes = Array.from({ length: 600 }, (_, at) => {
      const index = new LogIndex(bench.heap);
      const count = counts[at % counts.length]!;
      append(bench, index, [{ firstIndex: 1, term: 1, payloads: payloadsOf(count, 0) }]);
      expect(index.bytes, `${count} entries`).toBeLessThanOrEqual(20 * count + 704);
      entries += count;
      return index;
    });
    expect(bench.heap.reservedBytes - before).toBeLessThan(20 * entries + 704 * indexes.length);
    for (const index of indexes) index.dispose();
  });

  test('an extent ends where payloads are apart, even if the items stand side by side', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    append(bench, index, [{ firstIndex: 1, payloads: [new Uint8Array(9)] }], 1, 0);
    append(bench, index, [{ firstIndex: 2, payloads: [new Uint8Array(9)] }], 1, ITEM.bytes);
    const extents = index.scan(1, 2, 2 ** 30);
    expect(extents.map((extent) => extent.itemPosition)).toEqual([32, 80]);
    expect(extents.map((extent) => extent.payloadPosition)).toEqual([80, 128]);
    index.dispose();
  });

  test('gives back what a purge or a reset emptied, and goes on behind it', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    const payloads = payloadsOf(1000, 0);
    for (let block = 0; block < 30; block++) {
      const spec = { firstIndex: block * 1000 + 1, term: 1 + (block >> 2), payloads };
      append(bench, index, [spec], block, 8192);
    }
    const { bytes } = index;
    index.purge(20_500);
    expect(index.bytes).toBeLessThan(bytes / 2);
    expect(index.oldestSegment).toBe(20);
    expect(index.termRuns()[0]).toEqual({ firstIndex: 20_501, term: 6 });
    expect(index.scan(20_500, 30_000, 0)).toEqual([]);
    const itemPosition = 8192 + BLOCK.bytes + 500 * ITEM.bytes;
    expect(index.scan(20_501, 20_501, 0)[0]).toMatchObject({ segment: 20, itemPosition });
    index.reset(1_000_000);
    expect(index.lastIndex).toBe(1_000_000);
    append(bench, index, [{ firstIndex: 1_000_001, term: 9, payloads }], 40);
    expect(index.scan(1_000_001, 1_000_001, 0)[0]).toMatchObject({ segment: 40 });
    expect(index.termRuns()).toEqual([{ firstIndex: 1_000_001, term: 9 }]);
    index.dispose();
  });

  test('moves what it has at one place to another, and leaves what was overwritten since then', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    append(bench, index, [{ firstIndex: 1, term: 1, payloads: payloadsOf(5, 0) }], 1, 0);
    const specs = [{ firstIndex: 6, term: 1, payloads: payloadsOf(5, 0) }];
    append(bench, index, specs, 2, 4096);
    append(bench, index, [{ firstIndex: 9, term: 2, payloads: payloadsOf(3, 0) }], 3, 0);
    index.purge(6);
    const length = encodeBlocks(bench, bench.region, specs);
    const to = { segment: 4, position: 8192 };
    index.moveBlocks(bench.region, length, { segment: 2, position: 0 }, to);
    expect(index.scan(7, 7, 0)[0]).toMatchObject({ segment: 2 });
    index.moveBlocks(bench.region, length, { segment: 2, position: 4096 }, to);
    const itemPosition = 8192 + BLOCK.bytes + ITEM.bytes;
    expect(index.scan(7, 11, 2 ** 20)).toMatchObject([
      { segment: 4, firstIndex: 7, items: 2, itemPosition },
      { segment: 3, firstIndex: 9, items: 3 },
    ]);
    expect(index.oldestSegment).toBe(3);
    expect(index.termRuns()).toEqual([
      { firstIndex: 7, term: 1 },
      { firstIndex: 9, term: 2 },
    ]);
    index.dispose();
  });

  test('holds the place of entries that it does not know, until others take it', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    append(bench, index, [{ firstIndex: 1, term: 3, payloads: [EMPTY] }], 7);
    index.skip(9_000);
    index.skip(10);
    expect(index.lastIndex).toBe(9_000);
    append(bench, index, [{ firstIndex: 9_001, term: 3, payloads: [EMPTY] }], 8);
    expect(index.termRuns().map((run) => run.term)).toEqual([3, 0, 3]);
    expect(index.oldestSegment).toBe(0);
    append(bench, index, [{ firstIndex: 2, term: 3, payloads: payloadsOf(4, 0) }], 9);
    expect(index.termRuns()).toEqual([{ firstIndex: 1, term: 3 }]);
    expect(index.lastIndex).toBe(5);
    expect(index.oldestSegment).toBe(7);
    index.dispose();
  });

  test('knows nothing of a copy in another term', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    append(bench, index, [{ firstIndex: 1, term: 3, payloads: payloadsOf(5, 0) }], 1);
    const specs = [
      { firstIndex: 1, term: 3, payloads: payloadsOf(3, 0) },
      { firstIndex: 4, term: 2, payloads: payloadsOf(1, 0) },
    ];
    const length = encodeBlocks(bench, bench.region, specs);
    expect(index.placeBlocks(bench.region, length, 2, 8192)).toBe(false);
    expect(index.oldestRun).toMatchObject({ firstIndex: 1, lastIndex: 5, segment: 1 });
    expect(index.scan(1, 1, 0)[0]).toMatchObject({ segment: 1 });
    index.dispose();
  });

  test('finds a log again from copies of its parts, in whatever order they stand', () => {
    const bench = createBench();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat(1)), { minLength: 1 }),
        fc.nat(20),
        fc.infiniteStream(fc.nat()),
        (parts, purged, chance) => {
          const usage = new SegmentUsage();
          const index = new LogIndex(bench.heap, 1, usage);
          const model = new Model(1);
          let next = 1;
          let term = 1;
          const pieces = parts.map(([count, termStep], at) => {
            term += termStep;
            const piece = { firstIndex: next, term, payloads: payloadsOf(count, at) };
            next += count;
            return { piece, segment: at + 1, order: chance.next().value! };
          });
          for (const { piece, segment } of pieces) model.append([piece], segment, 4096);
          model.purge(Math.min(purged, model.lastIndex));
          index.reset(Math.min(purged, model.lastIndex));
          pieces.sort((left, right) => left.order - right.order);
          for (const { piece, segment } of pieces) {
            const length = encodeBlocks(bench, bench.region, [piece]);
            const lastIndex = piece.firstIndex + piece.payloads.length - 1;
            const blocks = { lastIndex, termRuns: [piece] };
            const recovered = index.recoverBlocks(bench.region, length, segment, 4096, blocks);
            expect(recovered).toBe(true);
          }
          expect(index.lastIndex).toBe(model.lastIndex);
          expect(index.termRuns()).toEqual(model.termRuns());
          const { firstIndex: first, lastIndex: last } = model;
          expect(index.scan(first, last, 2 ** 30)).toEqual(model.scan(first, last, 2 ** 30));
          expect(bytesOf(usage)).toEqual(model.segmentBytes());
          index.dispose();
        },
      ),
      { seed: 20_261_125, numRuns: 300 },
    );
  });

  test('truncation, regrowth and disposal lose no memory', () => {
    const bench = createBench();
    const cycle = (): void => {
      const index = new LogIndex(bench.heap);
      const payloads = payloadsOf(1000, 0);
      for (let round = 0; round < 3; round++) {
        for (let block = 0; block < 20; block++) {
          append(bench, index, [{ firstIndex: block * 1000 + 1, term: block + 1, payloads }]);
        }
        const grown = index.bytes;
        index.truncateAfter(10);
        expect(index.bytes).toBeLessThan(grown);
        index.truncateAfter(0);
        expect(index.lastIndex).toBe(0);
      }
      index.dispose();
    };
    cycle();
    const reserved = bench.heap.reservedBytes;
    const reusable = bench.heap.reusableBytes;
    for (let i = 0; i < 5; i++) cycle();
    expect(bench.heap.reservedBytes).toBe(reserved);
    expect(bench.heap.reusableBytes).toBe(reusable);
  });

  test('takes from the heap at most what it has foretold', () => {
    for (const termStep of [0, 1]) {
      const bench = createBench();
      const index = new LogIndex(bench.heap);
      const foretold = index.bytesWith(30_000, termStep === 0 ? 1 : 3_000, 1);
      // Padding for the alignment of the first tables.
      const before = bench.heap.reservedBytes - index.bytes;
      for (let first = 1; first <= 30_000; first += 10) {
        const term = 1 + Math.floor(first / 10) * termStep;
        append(bench, index, [{ firstIndex: first, term, payloads: payloadsOf(10, 0) }]);
      }
      expect(index.runCount).toBe(termStep === 0 ? 1 : 3_000);
      expect(index.bytes).toBeLessThanOrEqual(foretold);
      expect(bench.heap.reservedBytes - before).toBeLessThanOrEqual(foretold + 16 * 1024);
      expect(foretold).toBeLessThan(index.bytes * 1.5);
      index.dispose();
    }
  });

  test('needs no room for a run that goes on', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap);
    for (let term = 1; term <= 4; term++) {
      append(bench, index, [{ firstIndex: term, term, payloads: [EMPTY] }]);
    }
    const { bytes } = index;
    append(bench, index, [{ firstIndex: 5, term: 4, payloads: [EMPTY] }]);
    append(bench, index, [{ firstIndex: 2, term: 2, payloads: payloadsOf(4, 0) }]);
    expect(index.bytes).toBe(bytes);
    append(bench, index, [{ firstIndex: 3, term: 3, payloads: [EMPTY] }]);
    append(bench, index, [{ firstIndex: 4, term: 4, payloads: [EMPTY] }]);
    expect(index.bytes).toBe(bytes);
    append(bench, index, [{ firstIndex: 5, term: 5, payloads: [EMPTY] }]);
    expect(index.bytes).toBeGreaterThan(bytes);
    index.dispose();
  });

  test('a full heap refuses an append and leaves the index as it was', () => {
    const bench = createBench(32 * 1024 * 1024);
    const index = new LogIndex(bench.heap);
    append(bench, index, [{ firstIndex: 1, term: 1, payloads: payloadsOf(10, 0) }]);
    const room = 64 * 1024 * 1024 - bench.heap.reservedBytes;
    bench.heap.reserve(room - 100_000, 1);
    const many = { firstIndex: 11, term: 2, payloads: payloadsOf(20_000, 0) };
    expect(() => append(bench, index, [many])).toThrow('the shared memory is full');
    expect(index.lastIndex).toBe(10);
    expect(index.termRuns()).toEqual([{ firstIndex: 1, term: 1 }]);
    expect(append(bench, index, [{ firstIndex: 11, term: 2, payloads: [EMPTY] }])).toBe(11);
    index.dispose();
  });

  test('refuses blocks that leave a gap, are cut or lie about their lengths', () => {
    const bench = createBench();
    const index = new LogIndex(bench.heap, 5);
    const refused = 'whole, consecutive and leave no gap';
    expect(() => append(bench, index, [{ firstIndex: 6, payloads: [EMPTY] }])).toThrow(refused);
    const length = encodeBlocks(bench, bench.region, [
      { firstIndex: 5, payloads: [EMPTY, new Uint8Array(9)] },
    ]);
    expect(() => index.appendBlocks(bench.region, length - 1, 1, 0)).toThrow(refused);
    expect(() => index.appendBlocks(bench.region, length, 1, 0xffffffff)).toThrow(refused);
    const lengthField = bench.region + BLOCK.bytes + ITEM.offset.length;
    for (const lie of [1, 0x7fffffff, 0xffffffff]) {
      bench.heap.view.setUint32(lengthField, lie, true);
      expect(() => index.appendBlocks(bench.region, length, 1, 0)).toThrow(refused);
    }
    for (const lie of [0, 3, 0x7fffffff, 0xffffffff]) {
      bench.heap.view.setUint32(bench.region + BLOCK.offset.items, lie, true);
      expect(() => index.appendBlocks(bench.region, length, 1, 0)).toThrow(refused);
    }
    expect(index.lastIndex).toBe(4);
    index.dispose();
  });
});
