import { describe, expect, test } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { systemScheduler } from '../../dist/base/system-scheduler.js';
import type { LogStoreEvents } from '../../dist/storage/log-store.js';
import { MemoryLogImage, MemoryLogStore } from '../../dist/storage/memory-log-store.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { decodeTestMembership, describeLogStore, LogDriver } from './log-store-suite.js';

const heap = SharedHeap.create({ maximumBytes: 1 << 28 });
const decodeMembership = decodeTestMembership;

describeLogStore('MemoryLogStore', () => {
  const image = new MemoryLogImage();
  const scheduler = systemScheduler;
  return {
    open: async (events) =>
      new MemoryLogStore({ heap, scheduler, events, decodeMembership, image }),
    openOther: async (events) => new MemoryLogStore({ heap, scheduler, events, decodeMembership }),
    dispose: async () => {},
    maxPayloadBytes: 1 << 20,
  };
});

interface Opened {
  readonly scheduler: ManualScheduler;
  readonly store: MemoryLogStore;
  readonly driver: LogDriver;
  readonly writable: { times: number };
}

function open(image: MemoryLogImage, options: { maxLogBytes?: number } = {}): Opened {
  const scheduler = new ManualScheduler();
  const writable = { times: 0 };
  const events: LogStoreEvents = {
    flushed: (_group, io) => driver.flushed.push(io),
    failed: (failure) => {
      throw failure;
    },
    writable: () => writable.times++,
  };
  const store = new MemoryLogStore({
    heap,
    scheduler,
    events,
    decodeMembership,
    image,
    ...options,
  });
  const found = store.recovered(0);
  const driver = new LogDriver(store, 0);
  driver.model.length = found.lastIndex;
  return { scheduler, store, driver, writable };
}

const payload = (length: number): Uint8Array => new Uint8Array(length).fill(length);

describe('MemoryLogStore', () => {
  test('a crash keeps what was flushed and nothing else', () => {
    const image = new MemoryLogImage();
    const { scheduler, store, driver } = open(image);
    driver.append([payload(1), payload(2)]);
    scheduler.runJobs();
    driver.term = 9;
    driver.append([payload(3)]);
    store.crash();
    scheduler.runJobs();
    expect(driver.flushed.length).toBe(1);
    const found = open(image).store.recovered(0);
    expect(found.lastIndex).toBe(2);
    expect(found.vote.term).toBe(1);
  });

  test('a crash brings back what was cut off but not durably', async () => {
    const image = new MemoryLogImage();
    const first = open(image);
    first.driver.append([payload(1), payload(2), payload(3)]);
    first.driver.append([payload(4)]);
    first.driver.append([payload(5), payload(6)]);
    first.scheduler.runJobs();
    const before = [...first.driver.model];
    first.driver.truncateAfter(4);
    first.driver.term = 2;
    first.driver.append([payload(50)]);
    first.driver.truncateAfter(1);
    first.driver.append([payload(51)]);
    first.store.crash();
    const second = open(image);
    second.driver.model.splice(0, 99, ...before);
    second.driver.expectRecovered(second.store.recovered(0));
    await second.driver.expectWhole();
  });

  test('one flush serves a turn and reports the last I/O of each group', () => {
    const { scheduler, store, driver } = open(new MemoryLogImage());
    for (let round = 0; round < 10; round++) driver.append([payload(round)]);
    expect(scheduler.pendingJobs()).toBe(1);
    scheduler.runJobs();
    expect(driver.flushed.map(({ sequence }) => sequence)).toEqual([10]);
    expect(store.metrics()).toMatchObject({ flushes: 1, flushedEntries: 10, queuedBytes: 0 });
  });

  test('a full log refuses, and tells when there is room again', () => {
    const { scheduler, driver, writable } = open(new MemoryLogImage(), { maxLogBytes: 3000 });
    driver.append([payload(1000)]);
    driver.append([payload(1000)]);
    expect(() => driver.append([payload(1000)])).toThrow(
      expect.objectContaining({ code: 'KEELSON_OVERLOADED' }),
    );
    scheduler.runJobs();
    driver.truncateAfter(1);
    scheduler.runJobs();
    expect(writable.times).toBe(1);
    driver.append([payload(1000)]);
  });

  test('an image is opened by one store at a time', () => {
    const image = new MemoryLogImage();
    const { store } = open(image);
    expect(() => open(image)).toThrow('one store at a time');
    store.crash();
    open(image);
  });

  test('a lease released too often is found', async () => {
    const { driver, store } = open(new MemoryLogImage());
    driver.append([payload(3)]);
    const lease = store.read(0, 1, 1, 1000);
    lease.release();
    expect(() => lease.release()).toThrow('a lease is released once');
  });
});
