/** The suites for log stores pass what is sound, and a store that does not keep its word fails its case. */
import { describe, expect, it } from 'vitest';
import { systemScheduler } from '../../dist/base/system-scheduler.js';
import type { IoId } from '../../dist/engine/types.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { MemoryLogImage, MemoryLogStore } from '../../dist/storage/memory-log-store.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import {
  decodeTestMembership,
  type LogStore,
  type LogStoreEvents,
  logStoreCases,
  logStoreCrashCases,
  logStoreFaultCases,
} from '../../dist/testing/index.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MIB } from '../storage/wal-support.js';
import { failureOf } from './failure-of.js';

/** A memory log whose calls go through `wrap`. */
function memoryFixture(wrap: (store: MemoryLogStore, events: LogStoreEvents) => LogStore) {
  const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
  return () => {
    const image = new MemoryLogImage();
    const make = (events: LogStoreEvents, own?: MemoryLogImage): LogStore =>
      wrap(
        new MemoryLogStore({
          heap,
          scheduler: systemScheduler,
          events,
          decodeMembership: decodeTestMembership,
          ...(own === undefined ? {} : { image: own }),
        }),
        events,
      );
    return {
      open: async (events: LogStoreEvents) => make(events, image),
      openOther: async (events: LogStoreEvents) => make(events),
      maxPayloadBytes: MIB,
      dispose: async () => {},
    };
  };
}

/** The store with some methods in place of its own. */
function replacing(store: MemoryLogStore, methods: Partial<LogStore>): LogStore {
  return new Proxy(store, {
    get(target, name) {
      const own = Reflect.get(methods, name) ?? Reflect.get(target, name);
      return typeof own === 'function' ? own.bind(target) : own;
    },
  });
}

/** A log on a disk that does not keep its word. */
function lyingFixture(options: { readonly lies: boolean; readonly late?: boolean }) {
  const heap = SharedHeap.create({ maximumBytes: 64 * MIB });
  return () => {
    heap.reset();
    let disk = new MemoryDisk({ allowDirect: false });
    const open = (directory: string, events: LogStoreEvents): Promise<LogStore> => {
      heap.reset();
      disk.clearFaults();
      disk.ignoreDataSync = options.lies;
      let last: IoId = {
        sequence: 0,
        vote: { term: 0, nodeId: 0, committed: false },
        logId: { term: 0, index: 0 },
      };
      const late: LogStoreEvents = {
        ...events,
        flushed: (group, io) => {
          if (group === 0) last = io;
          events.flushed(group, io);
        },
        failed: (error) => {
          events.failed(error);
          if (last.sequence > 0) events.flushed(0, last);
        },
        writable: () => events.writable(),
      };
      return WalLogStore.open(
        {
          directory,
          segmentBytes: MIB,
          ringBytes: MIB,
          maxBatchBytes: MIB / 4,
          maxBatchEntries: 4096,
          maxQueuedBatches: 2,
          lingerMicros: 0,
          recovery: 'torn-tail',
          directIo: 'off',
          maxIndexBytes: 4 * MIB,
        },
        {
          heap,
          scheduler: systemScheduler,
          events: options.late === true ? late : events,
          decodeMembership: decodeTestMembership,
          executor: new InlineExecutor(heap, disk, systemScheduler),
        },
      );
    };
    return {
      open: (events: LogStoreEvents) => open('/own', events),
      openOther: (events: LogStoreEvents) => open('/other', events),
      maxPayloadBytes: MIB / 8,
      crash: () => {
        disk = disk.crash();
      },
      failWrites: () => {
        disk.fail({ operation: 'write', nth: 1, code: 'EIO', sticky: true });
      },
      dispose: async () => {},
    };
  };
}

describe('a log store that', () => {
  it('acknowledges within the call fails the case of completions', async () => {
    const makeFixture = memoryFixture((store, events) =>
      replacing(store, {
        advanceIo: (group, io) => events.flushed(group, io),
      }),
    );
    const error = await failureOf(logStoreCases(makeFixture), 'advanceIo alone completes');
    expect(String(error)).toContain('completions within the call');
  });

  it('forgets votes fails the case of votes', async () => {
    const makeFixture = memoryFixture((store) =>
      replacing(store, { saveVote: (group, io) => store.advanceIo(group, io) }),
    );
    const error = await failureOf(logStoreCases(makeFixture), 'remembers the last vote');
    expect(String(error)).toContain('a vote alone');
  });

  it('takes what a peer has damaged fails the case of damage', async () => {
    const makeFixture = memoryFixture((store) =>
      replacing(store, {
        receive: (_group, firstIndex) => ({
          firstIndex,
          lastIndex: firstIndex,
          termRuns: [],
          memberships: [],
          bytes: 1,
          lastTime: 0,
        }),
      }),
    );
    const error = await failureOf(logStoreCases(makeFixture), 'damaged blocks from a peer');
    expect(String(error)).toContain('is refused with KEELSON_CORRUPT_FRAME');
  });

  it('believes a disk that does not sync fails the case of crashes', async () => {
    const cases = logStoreCrashCases(lyingFixture({ lies: true }));
    expect(String(await failureOf(cases, 'survives a crash'))).toMatch(/^Error: seed \d+: /);
    const sound = logStoreCrashCases(lyingFixture({ lies: false }));
    expect(await failureOf(sound, 'survives a crash')).toBeUndefined();
  });

  it('acknowledges behind its failure fails the case of failing writes', async () => {
    const cases = logStoreFaultCases(lyingFixture({ lies: false, late: true }));
    expect(String(await failureOf(cases, 'a write that fails'))).toContain('acknowledged');
    const sound = logStoreFaultCases(lyingFixture({ lies: false }));
    expect(await failureOf(sound, 'a write that fails')).toBeUndefined();
  });
});
