/** What is not in the window any more reads as before, and what is leased is not overwritten. */
import { describe, expect, test } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { MemoryLogImage, MemoryLogStore } from '../../dist/storage/memory-log-store.js';
import { decodeTestMembership } from '../../dist/testing/index.js';
import { LogDriver } from '../../dist/testing/log-driver.js';
import { BLOCK, ITEM } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';

const heap = SharedHeap.create({ maximumBytes: 1 << 28 });
const MAX_BYTES = 1 << 28;
const MIB = 1 << 20;

function open(image = new MemoryLogImage()) {
  const scheduler = new ManualScheduler();
  const store = new MemoryLogStore({
    heap,
    scheduler,
    events: { flushed: () => {}, failed: () => {}, writable: () => {} },
    decodeMembership: decodeTestMembership,
    image,
  });
  return { scheduler, store, driver: new LogDriver(store, 0), image };
}

const empty = (count: number): Uint8Array[] => new Array(count).fill(new Uint8Array(0));
const filled = (...lengths: number[]): Uint8Array[] =>
  lengths.map((length, place) => new Uint8Array(length).fill(place + length + 1));

/** What a lease holds; its spans and its parts are the same bytes. */
function bytesOf(store: MemoryLogStore, first: number, last: number, group = 0): Buffer {
  const lease = store.read(group, first, last, MAX_BYTES);
  const bytes = Buffer.concat(lease.parts);
  const spans = lease.spans!.map(({ view, start, end }) =>
    Buffer.from(view.buffer.slice(start, end)),
  );
  expect(Buffer.concat(spans).equals(bytes), `spans of ${first} to ${last}`).toBe(true);
  lease.release();
  return bytes;
}

/** Fills the window several times. */
function wrap(driver: LogDriver): void {
  for (let block = 0; block < 60; block++) driver.append(empty(4096));
}

/** One block of the entries of several, as another implementation may send it. */
function joined(blocks: readonly Buffer[]): Buffer {
  const items = blocks.map((block) => block.readUInt32LE(BLOCK.offset.items));
  const count = items.reduce((sum, one) => sum + one, 0);
  const ends = items.map((one) => BLOCK.bytes + one * ITEM.bytes);
  const header = Buffer.from(blocks[0]!.subarray(0, BLOCK.bytes));
  const payloads = blocks.map((block, place) => block.subarray(ends[place]));
  header.writeUInt32LE(count, BLOCK.offset.items);
  header.writeUInt32LE(Buffer.concat(payloads).length, BLOCK.offset.payloadLength);
  const tables = blocks.map((block, place) => block.subarray(BLOCK.bytes, ends[place]));
  return Buffer.concat([header, ...tables, ...payloads]);
}

describe('the window of a memory log', () => {
  test('archived blocks read back bit by bit', () => {
    const { store, driver } = open();
    const shapes = [
      empty(1),
      empty(100),
      filled(5),
      filled(7, 7, 7),
      filled(0, 3, 900, 0, 17),
      empty(30_000),
      filled(2 * MIB, 1),
    ];
    const kept = shapes.map((payloads) => {
      driver.time += 1000;
      driver.term++;
      const first = driver.lastIndex + 1;
      driver.append(payloads);
      return { first, last: driver.lastIndex, bytes: bytesOf(store, first, driver.lastIndex) };
    });
    wrap(driver);
    for (const { first, last, bytes } of kept) {
      expect(bytesOf(store, first, last).equals(bytes), `entries ${first} to ${last}`).toBe(true);
    }
    const all = Buffer.concat(kept.map(({ bytes }) => bytes));
    expect(bytesOf(store, 1, kept.at(-1)!.last).equals(all)).toBe(true);
  });

  test.each(['time', 'kind', 'term'] as const)(
    'a block of mixed %s is archived as it is',
    (what) => {
      const source = open();
      source.driver.append(filled(3, 4));
      if (what === 'time') source.driver.time++;
      if (what === 'term') source.driver.term++;
      source.driver.append(filled(5), 3, what === 'kind' ? 1 : 2);
      source.driver.append(empty(1));
      const block = joined([bytesOf(source.store, 1, 2), bytesOf(source.store, 3, 3)]);
      const { store, driver } = open();
      driver.term = 2;
      const staged = store.receive(0, 1, [block]);
      driver.model.push(...source.driver.model.slice(0, 3));
      store.append(0, staged, 1, driver.io());
      wrap(driver);
      expect(bytesOf(store, 1, 3).equals(block)).toBe(true);
    },
  );

  test('a lease keeps its bytes while the window wraps around', () => {
    const { store, driver } = open();
    wrap(driver);
    driver.append(filled(100, 200));
    const last = driver.lastIndex;
    store.read(0, last - 1, last, MAX_BYTES).release();
    const lease = store.read(0, last - 1, last, MAX_BYTES);
    const before = Buffer.concat(lease.parts);
    wrap(driver);
    wrap(driver);
    expect(Buffer.concat(lease.parts).equals(before)).toBe(true);
    lease.release();
    expect(bytesOf(store, last - 1, last).equals(before)).toBe(true);
  });

  test('a range read before the window wraps around reads the same behind it', () => {
    const { store, driver } = open();
    wrap(driver);
    driver.append(filled(9, 9));
    const last = driver.lastIndex;
    const before = bytesOf(store, last, last);
    wrap(driver);
    expect(bytesOf(store, last, last).equals(before)).toBe(true);
  });

  test('truncation cuts in the window and in the archive', async () => {
    const { store, driver } = open();
    for (let round = 0; round < 300; round++) driver.append(filled(round, 3, 200));
    wrap(driver);
    for (const last of [driver.lastIndex - 10, 700, 500]) {
      driver.truncateAfter(last);
      driver.term++;
      driver.append(filled(1, 2, 3));
      driver.append(filled(6, 5), driver.lastIndex - 1);
      expect(store.recovered(0).lastIndex).toBe(last + 3);
    }
    await driver.expectWhole();
    wrap(driver);
    driver.truncateAfter(2000);
    await driver.expectWhole();
  });

  test('a crash brings back archived blocks, cut off or not', async () => {
    const { store, driver, scheduler, image } = open();
    for (let round = 0; round < 300; round++) driver.append(filled(round, 3, 200));
    for (let round = 0; round < 20; round++) driver.append(empty(4096));
    scheduler.runJobs();
    const before = [...driver.model];
    driver.truncateAfter(500);
    driver.term = 2;
    wrap(driver);
    store.crash();
    const again = open(image);
    again.driver.model.push(...before);
    again.driver.expectRecovered(again.store.recovered(0));
    await again.driver.expectWhole();
  });

  test('empty payloads take memory for blocks, not for entries', () => {
    const { store, driver } = open();
    const other = new LogDriver(store, 1);
    for (let block = 0; block < 1000; block++) {
      const log = block % 2 === 0 ? driver : other;
      log.model.length = 0;
      const firstIndex = (block >> 1) * 4096 + 1;
      const { term, time } = log;
      const entries = { firstIndex, term, time, kind: 2, payloads: empty(4096), count: 4096 };
      store.append(log.group, store.stage(log.group, entries), firstIndex, log.io());
    }
    expect(store.metrics().ringUsedBytes).toBeLessThan(8 * MIB);
    for (const group of [0, 1]) expect(bytesOf(store, 5, 5, group).length).toBe(80);
  });
});
