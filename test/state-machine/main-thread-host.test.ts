import { expect, test } from 'vitest';
import type { AnyStateMachine, Entry } from '../../dist/state-machine/state-machine.js';
import { commandLease, ManualScheduler, mainThreadHost, RecordedEvents } from './support/host.js';

/** A machine for which each entry takes `msPerEntry` of the scheduler's time. */
function slowMachine(scheduler: ManualScheduler, msPerEntry: number) {
  const calls: number[] = [];
  const machine: AnyStateMachine = {
    apply(entries: readonly Entry<unknown>[]) {
      calls.push(entries.length);
      scheduler.time += entries.length * msPerEntry;
      return entries.map(({ logId }) => logId.index);
    },
    query: () => undefined,
    snapshot: () => [],
    restore() {},
  };
  return { machine, calls };
}

const commands = (count: number) => Array.from({ length: count }, () => ({}));

test('an idle host applies a small batch at once', () => {
  const scheduler = new ManualScheduler();
  const events = new RecordedEvents();
  const host = mainThreadHost(slowMachine(scheduler, 0).machine, events, scheduler);
  host.apply(commandLease(1, commands(3)), 1, 3);
  expect(events.responses).toEqual([1, 2, 3]);
  expect(scheduler.jobs).toHaveLength(0);
});

test('a long queue is applied in slices, and other jobs run between them', () => {
  const scheduler = new ManualScheduler();
  const events = new RecordedEvents();
  const { machine } = slowMachine(scheduler, 1);
  const host = mainThreadHost(machine, events, scheduler);
  const lease = commandLease(1, commands(1000));
  host.apply(lease, 1, 1000);
  let heartbeats = 0;
  let longestMs = 0;
  while (scheduler.jobs.length > 0) {
    const before = scheduler.time;
    scheduler.enqueue(() => heartbeats++);
    scheduler.runOneJob();
    scheduler.runOneJob();
    if (heartbeats > 8) longestMs = Math.max(longestMs, scheduler.time - before);
  }
  expect(events.responses).toEqual(Array.from({ length: 1000 }, (_, place) => place + 1));
  expect(events.appliedRanges).toHaveLength(1);
  expect(heartbeats).toBeGreaterThan(50);
  expect(longestMs).toBeLessThanOrEqual(16);
  expect(lease.references).toBe(1);
});

test('one call of apply grows for a fast machine, up to the limit', () => {
  const scheduler = new ManualScheduler();
  const events = new RecordedEvents();
  const { machine, calls } = slowMachine(scheduler, 0);
  const host = mainThreadHost(machine, events, scheduler);
  host.apply(commandLease(1, commands(20_000)), 1, 20_000);
  expect(Math.max(...calls)).toBe(4096);
  expect(events.appliedIndex).toBe(20_000);
});

test('entries that arrive while the host applies wait their turn', () => {
  const scheduler = new ManualScheduler();
  const events = new RecordedEvents();
  const host = mainThreadHost(slowMachine(scheduler, 0).machine, events, scheduler);
  const applied = events.applied.bind(events);
  events.applied = (first, last, responses) => {
    applied(first, last, responses);
    if (first === 1) host.apply(commandLease(3, commands(1)), 3, 3);
  };
  host.apply(commandLease(1, commands(2)), 1, 2);
  expect(events.responses).toEqual([1, 2, 3]);
});

test('a range that does not follow the last one is a bug, not an entry applied twice', () => {
  const scheduler = new ManualScheduler();
  const host = mainThreadHost(slowMachine(scheduler, 0).machine, new RecordedEvents(), scheduler);
  const lease = commandLease(1, commands(2));
  host.apply(lease, 1, 2);
  expect(() => host.apply(lease, 2, 2)).toThrow('must follow 2');
  expect(() => host.apply(commandLease(4, commands(1)), 4, 4)).toThrow('must follow 2');
});
