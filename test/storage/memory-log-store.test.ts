import { describe, expect, test } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { systemScheduler } from '../../dist/base/system-scheduler.js';
import type { LogStoreEvents } from '../../dist/storage/log-store.js';
import { MemoryLogImage, MemoryLogStore } from '../../dist/storage/memory-log-store.js';
import {
  decodeTestMembership,
  logStoreCases,
  logStoreCrashCases,
} from '../../dist/testing/index.js';
import { LogDriver } from '../../dist/testing/log-driver.js';
import { checkHistories } from '../../dist/testing/log-history.js';
import { LogWorkload } from '../../dist/testing/log-workload.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { GROUPS, SCRIPT } from './fault-rig.js';
import { MicrotaskScheduler } from './microtask-scheduler.js';

const heap = SharedHeap.create({ maximumBytes: 1 << 28 });
const decodeMembership = decodeTestMembership;

describe('a MemoryLogStore', () => {
  const makeFixture = () => {
    let image = new MemoryLogImage();
    let store: MemoryLogStore | undefined;
    const scheduler = systemScheduler;
    return {
      open: async (events: LogStoreEvents) => {
        store = new MemoryLogStore({ heap, scheduler, events, decodeMembership, image });
        return store;
      },
      openOther: async (events: LogStoreEvents) =>
        new MemoryLogStore({ heap, scheduler, events, decodeMembership }),
      maxPayloadBytes: 1 << 20,
      crash: () => {
        image = store!.crash();
      },
      dispose: async () => {},
    };
  };
  const cases = [...logStoreCases(makeFixture), ...logStoreCrashCases(makeFixture)];
  for (const { name, run } of cases) test(name, run);
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

/** Runs jobs in the next turn of the event loop: what steps start without waiting is one flush. */
class TurnScheduler extends MicrotaskScheduler {
  override enqueue(job: () => void): void {
    setImmediate(job);
  }
}

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

  test('a crash brings back what a purge and a reset took in one turn', async () => {
    for (const purged of [1, 2, 4]) {
      const image = new MemoryLogImage();
      const { scheduler, store, driver } = open(image);
      driver.append([payload(1), payload(2)]);
      driver.append([payload(3), payload(4)]);
      scheduler.runJobs();
      const before = [...driver.model];
      driver.purge(purged);
      driver.reset(9);
      driver.append([payload(10)]);
      store.crash();
      const { driver: after, store: reopened } = open(image);
      after.model.splice(0, 99, ...before);
      after.expectRecovered(reopened.recovered(0), `purged ${purged}`);
      await after.expectWhole(`purged ${purged}`);
    }
  });

  test('leaves after a crash what groups may have, wherever a script of them is cut', async () => {
    for (let steps = 1; steps <= SCRIPT.length; steps++) {
      let image = new MemoryLogImage();
      const scheduler = new TurnScheduler(1);
      const openImage = async (events: LogStoreEvents): Promise<MemoryLogStore> =>
        new MemoryLogStore({ heap, scheduler, events, decodeMembership, image });
      const workload = new LogWorkload(openImage, GROUPS, 1);
      await workload.run(SCRIPT.slice(0, steps));
      image = (workload.store as MemoryLogStore).crash();
      const after = await openImage({ flushed() {}, failed() {}, writable() {} });
      await checkHistories(after, workload.histories);
      after.crash();
    }
  });

  test('acknowledges nothing that a listener adds to another group of the same flush', () => {
    const scheduler = new ManualScheduler();
    const image = new MemoryLogImage();
    const acknowledged: string[] = [];
    const events: LogStoreEvents = {
      flushed: (group, io) => {
        acknowledged.push(`${group}: ${io.logId.index}`);
        if (group === 0 && second.lastIndex === 1) second.append([payload(2)]);
      },
      failed: () => {},
      writable: () => {},
    };
    const store = new MemoryLogStore({ heap, scheduler, events, decodeMembership, image });
    const first = new LogDriver(store, 0);
    const second = new LogDriver(store, 1);
    first.append([payload(1)]);
    second.append([payload(1)]);
    const untilCrash: string[] = [];
    scheduler.enqueue(() => untilCrash.push(...acknowledged));
    scheduler.runJobs();
    expect(untilCrash).toEqual(['0: 1', '1: 1']);
    expect(acknowledged).toEqual(['0: 1', '1: 1', '1: 2']);
  });

  test('gives memory back as it is purged, however much was ever written', () => {
    const { scheduler, store, driver } = open(new MemoryLogImage());
    for (let round = 0; round < 600; round++) {
      driver.append([payload(100_000)]);
      if (driver.lastIndex > 60) driver.purge(driver.lastIndex - 60);
      scheduler.runJobs();
    }
    expect(store.metrics().ringUsedBytes).toBeLessThan(24 * 1024 * 1024);
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
