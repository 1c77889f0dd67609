import { afterEach, describe, expect, test } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { rawCodec } from '../../dist/state-machine/codec.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import { block, lease, shared } from './support/blocks.js';
import {
  commandLease,
  fixture,
  mainThreadHost,
  RecordedEvents,
  workerHost,
} from './support/host.js';
import Recorder from './support/recorder.mjs';

/** One suite for both ways to give a machine. */
const ways = [
  {
    way: 'an object on the main thread',
    create: (events: RecordedEvents) => mainThreadHost(new Recorder(), events),
  },
  {
    way: 'the URL of a module in a worker',
    create: (events: RecordedEvents) => workerHost(fixture('recorder.mjs'), events),
  },
] as const;

describe.each(ways)('a machine given as $way', ({ create }) => {
  let host: ReturnType<typeof create> | undefined;
  let events: RecordedEvents;

  async function open() {
    events = new RecordedEvents();
    host = create(events);
    expect(await host.open()).toBe(0);
    return host;
  }

  afterEach(async () => {
    await host?.close();
    host = undefined;
  });

  test('applies entries in order and answers each', async () => {
    const host = await open();
    const first = commandLease(1, [{ echo: 'a' }, { echo: 'b' }], { term: 3 });
    host.apply(first, 1, 2);
    host.apply(commandLease(3, [{ echo: 'c' }], { term: 4 }), 3, 3);
    await events.untilApplied(3);
    expect(events.responses).toEqual([
      { index: 1, echo: 'a' },
      { index: 2, echo: 'b' },
      { index: 3, echo: 'c' },
    ]);
    expect(await host.query('entries')).toEqual([
      { index: 1, term: 3, time: 1000, command: { echo: 'a' } },
      { index: 2, term: 3, time: 1000, command: { echo: 'b' } },
      { index: 3, term: 4, time: 1000, command: { echo: 'c' } },
    ]);
    expect(first.references).toBe(1);
  });

  test('applies a range of a lease that holds more', async () => {
    const host = await open();
    const wide = commandLease(1, [{ echo: 1 }, { echo: 2 }, { echo: 3 }, { echo: 4 }]);
    host.apply(wide, 1, 1);
    host.apply(wide, 2, 3);
    await events.untilApplied(3);
    expect(events.responses).toEqual([1, 2, 3].map((index) => ({ index, echo: index })));
    expect(wide.references).toBe(1);
  });

  test('applies many queued batches first in, first out, each exactly once', async () => {
    const host = await open();
    const batches = 400;
    const leases = [];
    for (let batch = 0; batch < batches; batch++) {
      const first = 1 + batch * 5;
      const commands = [0, 1, 2, 3, 4].map((place) => ({ echo: first + place }));
      const memory = batch % 3 === 0 ? 'own' : 'shared';
      const next = commandLease(first, commands, { memory });
      leases.push(next);
      host.apply(next, first, first + 4);
      next.release();
    }
    await events.untilApplied(batches * 5);
    const expected = Array.from({ length: batches * 5 }, (_, place) => place + 1);
    expect(events.responses.map((response) => (response as { echo: number }).echo)).toEqual(
      expected,
    );
    // One event for each apply, whatever was sliced or joined on the way.
    expect(
      events.appliedRanges.map(({ firstIndex, lastIndex }) => [firstIndex, lastIndex]),
    ).toEqual(leases.map((each) => [each.firstIndex, each.lastIndex]));
    const recorded = (await host.query('entries')) as { index: number }[];
    expect(recorded.map(({ index }) => index)).toEqual(expected);
    expect(leases.filter(({ references }) => references !== 0)).toEqual([]);
  });

  test('binary fields survive when the memory of the lease is recycled', async () => {
    const host = await open();
    const small = new Uint8Array([1, 2, 3]);
    const large = new Uint8Array(70_000).fill(9);
    const echo = { small, large, text: 'ключ '.repeat(30) };
    for (const [place, memory] of (['shared', 'own'] as const).entries()) {
      const bytes = commandLease(1 + place, [{ echo }], { memory });
      host.apply(bytes, 1 + place, 1 + place);
      bytes.release();
      await events.untilApplied(1 + place);
      expect(bytes.references).toBe(0);
      expect(bytes.parts[0]![0]).toBe(0xdd);
    }
    const recorded = (await host.query('entries')) as { command: { echo: unknown } }[];
    for (const { command } of recorded) expect(command.echo).toEqual(echo);
    expect(recorded).toHaveLength(2);
  });

  test('blank and membership entries do not reach the machine and answer undefined', async () => {
    const host = await open();
    const payload = host.encode({ echo: 1 });
    const bytes = block(1, [
      { kind: ENTRY_KIND.blank },
      { payload },
      { kind: ENTRY_KIND.membership, payload: rawCodec.encode(new Uint8Array([0xff])) },
      { payload },
      { kind: ENTRY_KIND.blank },
    ]);
    host.apply(lease(1, 5, [shared(bytes)]), 1, 5);
    host.apply(lease(6, 6, [block(6, [{ kind: ENTRY_KIND.blank }])]), 6, 6);
    await events.untilApplied(6);
    const [two, four] = [2, 4].map((index) => ({ index, echo: 1 }));
    expect(events.responses).toEqual([undefined, two, undefined, four, undefined, undefined]);
    expect(await host.query('entries')).toHaveLength(2);
  });

  test.each([
    ['throws', { op: 'throw' }, 'no such account'],
    ['returns too few responses', { op: 'few' }, 'must return 3 responses'],
  ])(
    'a machine that %s stops with group, range and term, and is given nothing more',
    async (_, command, reason) => {
      const host = await open();
      const bad = commandLease(1, [{ echo: 1 }, command, { echo: 3 }], { term: 6 });
      const later = commandLease(4, [{ echo: 4 }], { term: 6 });
      host.apply(bad, 1, 3);
      host.apply(later, 4, 4);
      await events.untilFailed();
      const [failure] = events.failures as KeelsonError[];
      expect(failure).toBeInstanceOf(KeelsonError);
      expect(failure!.code).toBe('KEELSON_STATE_MACHINE_FAILED');
      expect(failure!.message).toContain('group 5');
      expect(failure!.message).toContain('1…3 of term 6');
      expect(failure!.message).toContain(reason);
      expect(failure!.details).toMatchObject({ group: 5, firstIndex: 1, lastIndex: 3, term: 6 });
      expect(events.appliedRanges).toEqual([]);
      host.apply(commandLease(5, [{}]), 5, 5);
      await expect(host.query('entries')).rejects.toBe(failure);
      await host.close();
      expect(events.failures).toHaveLength(1);
      expect(bad.references).toBe(1);
      expect(later.references).toBe(1);
    },
  );

  test('a command that cannot be decoded stops the group and names its index', async () => {
    const host = await open();
    const good = host.encode({ echo: 1 });
    const bytes = block(1, [{ payload: good }, { payload: new Uint8Array([0x91]), term: 2 }]);
    host.apply(lease(1, 2, [bytes]), 1, 2);
    await events.untilFailed();
    expect(events.failures[0]!.message).toContain('index 2 of term 2');
  });

  test('a query that throws fails alone', async () => {
    const host = await open();
    await expect(host.query('throw')).rejects.toMatchObject({
      code: 'KEELSON_INVALID_ARGUMENT',
      message: expect.stringContaining('no such question'),
    });
    host.apply(commandLease(1, [{ echo: 1 }]), 1, 1);
    await events.untilApplied(1);
    expect(events.failures).toEqual([]);
  });

  test('a query may answer later, and applies go on meanwhile', async () => {
    const host = await open();
    const answers = Promise.all(Array.from({ length: 200 }, () => host.query('later')));
    host.apply(commandLease(1, [{ echo: 1 }]), 1, 1);
    await events.untilApplied(1);
    expect(new Set(await answers)).toEqual(new Set(['answered']));
  });

  test('version and digest of the machine are told', async () => {
    const host = await open();
    host.apply(commandLease(1, [{ echo: 1 }]), 1, 1);
    await events.untilApplied(1);
    expect(host.version).toBe(7);
    expect(await host.digest()).toBe('recorded 1');
  });

  test('after close nothing is applied or answered, and every lease is given back', async () => {
    const host = await open();
    const leases = Array.from({ length: 20 }, (_, place) =>
      commandLease(1 + place, [{ echo: place }]),
    );
    for (const next of leases) host.apply(next, next.firstIndex, next.lastIndex);
    await host.close();
    await host.close();
    const late = commandLease(21, [{ echo: 21 }]);
    host.apply(late, 21, 21);
    await expect(host.query('entries')).rejects.toMatchObject({ code: 'KEELSON_CLOSED' });
    expect([...leases, late].map(({ references }) => references)).toEqual(new Array(21).fill(1));
    expect(events.failures).toEqual([]);
  });
});
