import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Random } from '../../dist/engine/random.js';
import {
  type KeyValueCommand,
  KeyValueMachine,
  type KeyValueRange,
  type KeyValueResponse,
  keyValueModule,
} from '../../dist/state-machine/key-value.js';
import type { KeyValueView } from '../../dist/state-machine/key-value-view.js';
import { commandLease, mainThreadHost, RecordedEvents, workerHost } from './support/host.js';

const bytes = (text: string) => new Uint8Array(Buffer.from(text));

/** `lastIndex`: of the entries before the first that `run` applies. */
function machineWith(lastIndex = 0): {
  machine: KeyValueMachine;
  run(command: unknown): KeyValueResponse;
} {
  const machine = new KeyValueMachine();
  let index = lastIndex;
  return {
    machine,
    run(command) {
      index++;
      const entry = { logId: { term: 1, index }, time: 0, command: command as KeyValueCommand };
      return machine.apply([entry])[0]!;
    },
  };
}

const copyOf = (chunk: Uint8Array): Uint8Array => new Uint8Array(chunk);

/** A chunk ends with the next step. */
function chunksOf(snapshot: Iterable<Uint8Array>): Uint8Array[] {
  return Array.from(snapshot, copyOf);
}

async function* cut(chunks: Iterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) {
    for (let offset = 0; offset < chunk.length; offset += size) {
      yield chunk.subarray(offset, offset + size);
    }
  }
}

describe('commands', () => {
  test('a put answers its log index as the version', () => {
    const { machine, run } = machineWith();
    expect(run({ op: 'put', key: 'a', value: bytes('1') })).toEqual({
      ok: true,
      version: 1,
      existed: false,
    });
    expect(run({ op: 'put', key: 'a', value: bytes('2') })).toEqual({
      ok: true,
      version: 2,
      existed: true,
    });
    expect(machine.query({ op: 'get', key: 'a' })).toEqual({ value: bytes('2'), version: 2 });
    expect(machine.query({ op: 'get', key: 'b' })).toBeUndefined();
  });

  test('compare-and-set writes only over the version that it names', () => {
    const { machine, run } = machineWith();
    const value = bytes('x');
    expect(run({ op: 'put', key: 'a', value, ifVersion: 7 })).toEqual({ ok: false, version: 0 });
    expect(run({ op: 'put', key: 'a', value, ifVersion: 0 })).toMatchObject({
      ok: true,
      version: 2,
    });
    expect(run({ op: 'put', key: 'a', value, ifVersion: 0 })).toEqual({ ok: false, version: 2 });
    expect(run({ op: 'put', key: 'a', value, ifVersion: 2 })).toMatchObject({
      ok: true,
      version: 4,
    });
    expect(run({ op: 'delete', key: 'a', ifVersion: 2 })).toEqual({ ok: false, version: 4 });
    expect(run({ op: 'delete', key: 'a', ifVersion: 4 })).toEqual({
      ok: true,
      version: 0,
      existed: true,
    });
    expect(run({ op: 'delete', key: 'a' })).toEqual({ ok: true, version: 0, existed: false });
    expect(machine.size).toBe(0);
  });

  test('a key that was deleted and made again has a new version', () => {
    const { run } = machineWith();
    run({ op: 'put', key: 'a', value: bytes('1') });
    run({ op: 'delete', key: 'a' });
    expect(run({ op: 'put', key: 'a', value: bytes('1') })).toMatchObject({ version: 3 });
    expect(run({ op: 'put', key: 'a', value: bytes('2'), ifVersion: 1 })).toMatchObject({
      ok: false,
    });
  });

  test.each([
    [undefined],
    [null],
    ['put'],
    [{}],
    [{ op: 'increment', key: 'a' }],
    [{ op: 'put', key: 'a' }],
    [{ op: 'put', key: 'a', value: 'text' }],
    [{ op: 'put', key: '', value: bytes('') }],
    [{ op: 'put', key: 7, value: bytes('') }],
    [{ op: 'put', key: 'x'.repeat(4097), value: bytes('') }],
    [{ op: 'put', key: 'lone \ud800', value: bytes('') }],
    [{ op: 'put', key: 'a', value: bytes(''), ifVersion: -1 }],
    [{ op: 'delete', key: 'a', ifVersion: 'now' }],
  ])('a malformed command is answered and changes nothing: %j', (command) => {
    const { machine, run } = machineWith();
    expect(run(command)).toMatchObject({ ok: false, invalid: expect.any(String) });
    expect(machine.size).toBe(0);
  });
});

describe('range', () => {
  const byUtf8 = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
  // Units on both sides of the surrogates, and pairs: where UTF-16 order and UTF-8 order differ.
  const key = fc
    .array(fc.constantFrom('a', 'b', 'é', '\ud7ff', '\ue000', '\uffff', '😀', '\u{10ffff}'), {
      minLength: 1,
      maxLength: 3,
    })
    .map((units) => units.join(''));

  test('equals a sorted list under random writes, with prefix, start, end, limit and cursor', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), key), { maxLength: 60 }),
        fc.record({
          prefix: fc.option(key, { nil: undefined }),
          start: fc.option(key, { nil: undefined }),
          end: fc.option(key, { nil: undefined }),
        }),
        fc.integer({ min: 1, max: 5 }),
        (writes, bounds, limit) => {
          const { machine, run } = machineWith();
          const model = new Set<string>();
          for (const [put, written] of writes) {
            run(
              put ? { op: 'put', key: written, value: bytes('') } : { op: 'delete', key: written },
            );
            if (put) model.add(written);
            else model.delete(written);
          }
          const { prefix = '', start = '', end } = bounds;
          const expected = [...model]
            .sort(byUtf8)
            .filter((one) => one.startsWith(prefix) && byUtf8(one, start) >= 0)
            .filter((one) => end === undefined || byUtf8(one, end) < 0);
          const found: string[] = [];
          let next: string | undefined = bounds.start;
          do {
            const page: KeyValueRange = machine.range({ ...bounds, start: next, limit });
            expect(page.entries.length).toBeLessThanOrEqual(limit);
            found.push(...page.entries.map((entry) => entry.key));
            next = page.next;
          } while (next !== undefined);
          expect(found).toEqual(expected);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('stays ordered over many keys, inserted and deleted in random order', () => {
    const { machine, run } = machineWith();
    const seed = 4711;
    let state = seed;
    const random = () => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return state / 2_147_483_648;
    };
    const model = new Set<string>();
    for (let step = 0; step < 30_000; step++) {
      const name = `key-${Math.floor(random() * 8000)}`;
      const put = random() < (step < 15_000 ? 0.8 : 0.2);
      run(put ? { op: 'put', key: name, value: bytes('') } : { op: 'delete', key: name });
      if (put) model.add(name);
      else model.delete(name);
    }
    const found = machine.range({ limit: 10_000 }).entries.map((entry) => entry.key);
    expect(found, `seed ${seed}`).toEqual([...model].sort(byUtf8));
  });

  test('one answer is bounded in bytes as well', () => {
    const { machine, run } = machineWith();
    for (let number = 0; number < 12; number++) {
      run({ op: 'put', key: `k${number}`, value: new Uint8Array(1024 * 1024) });
    }
    const { entries, next } = machine.range({});
    expect(entries).toHaveLength(4);
    expect(next).toBeDefined();
  });

  test.each([0, -1, 1.5, 10_001, Number.NaN])('refuses a limit of %d', (limit) => {
    expect(() => new KeyValueMachine().range({ limit })).toThrow('limit');
  });

  test('refuses an unknown query', () => {
    expect(() => new KeyValueMachine().query({ op: 'sum' } as never)).toThrow('op must be');
    expect(() => new KeyValueMachine().query(undefined as never)).toThrow('op must be');
  });
});

describe('snapshot', () => {
  function filled() {
    const { machine, run } = machineWith();
    for (let number = 0; number < 3000; number++) {
      run({ op: 'put', key: `ключ-😀-${number}`, value: bytes('v'.repeat(number % 100)) });
    }
    for (let number = 0; number < 3000; number += 3)
      run({ op: 'delete', key: `ключ-😀-${number}` });
    return machine;
  }

  test.each([1, 7, 1000, 1_000_000])(
    'restores equal state from pieces of %d bytes',
    async (size) => {
      const machine = filled();
      const chunks = chunksOf(machine.snapshot());
      expect(chunks.length).toBeGreaterThan(1);
      const copy = new KeyValueMachine();
      copy.apply([
        {
          logId: { term: 1, index: 1 },
          time: 0,
          command: { op: 'put', key: 'old', value: bytes('') },
        },
      ]);
      await copy.restore(cut(chunks, size));
      expect(copy.digest()).toBe(machine.digest());
      expect(copy.size).toBe(2000);
      expect(copy.get('old')).toBeUndefined();
      expect(copy.range({ limit: 10_000 })).toEqual(machine.range({ limit: 10_000 }));
    },
  );

  test.each(Array.from({ length: 40 }, (_, i) => i + 1))(
    'holds the state at its first step, whatever is written between two steps (seed %d)',
    async (seed) => {
      const random = new Random(seed);
      const { machine, run } = machineWith();
      const write = (): void => {
        const key = `${random.below(2) === 0 ? 'key' : 'ключ-😀'}-${random.below(500)}`;
        if (random.below(3) === 0) run({ op: 'delete', key });
        else run({ op: 'put', key, value: bytes(`${random.below(1_000_000)}`.repeat(400)) });
      };
      const writes = (count: number): void => {
        for (let left = count; left > 0; left--) write();
      };
      writes(200 + random.below(1_500));
      const before = machine.digest();
      const first = machine.snapshot();
      const firstChunks = [copyOf(first.next().value!)];
      writes(random.below(60));
      // Another one that begins a little later, and goes on beside it.
      const beforeSecond = machine.digest();
      const second = machine.snapshot();
      const secondChunks = [copyOf(second.next().value!)];
      for (const chunk of first) {
        firstChunks.push(copyOf(chunk));
        writes(random.below(60));
        const step = second.next();
        if (step.done !== true) secondChunks.push(copyOf(step.value));
      }
      expect(firstChunks.length).toBeGreaterThan(2);
      const copy = new KeyValueMachine();
      await copy.restore(cut(firstChunks, 10_000));
      expect(copy.digest()).toBe(before);
      await copy.restore(cut([...secondChunks, ...chunksOf(second)], 10_000));
      expect(copy.digest()).toBe(beforeSecond);
    },
  );

  test('lets others have the thread while it passes keys that came later', async () => {
    const { machine, run } = machineWith();
    const put = (key: string): void => void run({ op: 'put', key, value: bytes('v'.repeat(100)) });
    for (let key = 0; key < 1_000; key++) put(`a${key}`);
    put('z');
    const before = machine.digest();
    const snapshot = machine.snapshot();
    const chunks = [copyOf(snapshot.next().value!)];
    for (let key = 0; key < 20_000; key++) put(`m${key}`);
    for (const chunk of snapshot) chunks.push(copyOf(chunk));
    expect(chunks.length).toBeGreaterThan(20);
    const copy = new KeyValueMachine();
    await copy.restore(cut(chunks, 10_000));
    expect(copy.digest()).toBe(before);
  });

  test('that is given up is forgotten', () => {
    const { machine, run } = machineWith();
    for (let key = 0; key < 2_000; key++)
      run({ op: 'put', key: `${key}`, value: bytes('v'.repeat(100)) });
    const snapshot = machine.snapshot();
    snapshot.next();
    snapshot.return();
    expect(Reflect.get(machine, 'views')).toEqual([]);
  });

  test('keeps nothing of what it has passed, whatever is written there', () => {
    const { machine, run } = machineWith();
    for (let key = 1_000; key < 3_000; key++) {
      run({ op: 'put', key: `${key}`, value: bytes('v'.repeat(100)) });
    }
    const snapshot = machine.snapshot();
    snapshot.next();
    for (let key = 1_000; key < 1_100; key++) run({ op: 'put', key: `${key}`, value: bytes('') });
    for (let key = 1_100; key < 1_200; key++) run({ op: 'delete', key: `${key}` });
    const [view] = Reflect.get(machine, 'views') as KeyValueView[];
    expect((Reflect.get(view!, 'old') as Map<string, unknown>).size).toBe(0);
    run({ op: 'delete', key: '2999' });
    expect((Reflect.get(view!, 'old') as Map<string, unknown>).size).toBe(1);
  });

  test('of a machine that was restored holds what was restored, whatever is written', async () => {
    const { machine, run } = machineWith();
    for (let key = 0; key < 2_000; key++)
      run({ op: 'put', key: `${key}`, value: bytes('v'.repeat(100)) });
    const copy = machineWith(2_000);
    await copy.machine.restore(cut(chunksOf(machine.snapshot()), 5_000));
    const before = copy.machine.digest();
    const chunks: Uint8Array[] = [];
    for (const chunk of copy.machine.snapshot()) {
      chunks.push(copyOf(chunk));
      for (let key = 0; key < 2_000; key += 7)
        copy.run({ op: 'put', key: `${key}`, value: bytes('new') });
    }
    await machine.restore(cut(chunks, 5_000));
    expect(machine.digest()).toBe(before);
  });

  test('holds values of any size, and the longest keys', async () => {
    const { machine, run } = machineWith();
    for (const size of [0, 1, 65_519, 65_520, 65_536, 65_537, 300_000]) {
      run({
        op: 'put',
        key: '字'.repeat(4_090) + size,
        value: new Uint8Array(size).fill(size & 0xff),
      });
    }
    const copy = new KeyValueMachine();
    await copy.restore(cut(chunksOf(machine.snapshot()), 50_000));
    expect(copy.digest()).toBe(machine.digest());
    expect(copy.range({})).toEqual(machine.range({}));
  });

  test('the digest tells states apart', () => {
    const one = machineWith();
    const other = machineWith();
    one.run({ op: 'put', key: 'a', value: bytes('1') });
    other.run({ op: 'put', key: 'a', value: bytes('2') });
    expect(one.machine.digest()).not.toBe(other.machine.digest());
    expect(one.machine.digest()).not.toBe(new KeyValueMachine().digest());
  });

  test('a snapshot that is cut off or goes on too long is refused and changes nothing', async () => {
    const whole = Buffer.concat(chunksOf(filled().snapshot()));
    const { machine, run } = machineWith();
    run({ op: 'put', key: 'a', value: bytes('1') });
    const before = machine.digest();
    for (const bad of [
      whole.subarray(0, whole.length - 1),
      whole.subarray(0, 8),
      whole.subarray(4),
      Buffer.concat([whole, bytes('x')]),
      Buffer.alloc(0),
    ]) {
      await expect(machine.restore(cut([bad], 5000))).rejects.toMatchObject({
        code: 'KEELSON_STORAGE_CORRUPT',
      });
    }
    expect(machine.digest()).toBe(before);
  });
});

describe.each([
  ['as an object', (events: RecordedEvents) => mainThreadHost(new KeyValueMachine(), events)],
  ['as a module', (events: RecordedEvents) => workerHost(keyValueModule, events)],
])('the machine %s', (_, create) => {
  test('applies, answers and keeps values when the memory is recycled', async () => {
    const events = new RecordedEvents();
    const host = create(events);
    await host.open();
    const lease = commandLease(1, [
      { op: 'put', key: 'a', value: bytes('one') },
      { op: 'put', key: 'b', value: bytes('two'), ifVersion: 0 },
    ]);
    host.apply(lease, 1, 2);
    lease.release();
    await events.untilApplied(2);
    expect(lease.references).toBe(0);
    expect(events.responses).toEqual([
      { ok: true, version: 1, existed: false },
      { ok: true, version: 2, existed: false },
    ]);
    const { value } = (await host.query({ op: 'get', key: 'b' })) as { value: Uint8Array };
    expect(Buffer.from(value).toString()).toBe('two');
    await expect(host.query({ op: 'range', limit: 0 })).rejects.toMatchObject({
      code: 'KEELSON_INVALID_ARGUMENT',
    });
    await host.close();
  });
});
