import { afterEach, describe, expect, test } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import type { MachineHost, MachineSnapshot } from '../../dist/state-machine/machine-host.js';
import { SnapshotCursor } from '../../dist/state-machine/snapshot-cursor.js';
import ConcurrentSnapshotter from './support/concurrent-snapshotter.mjs';
import {
  commandLease,
  fixture,
  mainThreadHost,
  RecordedEvents,
  workerHost,
} from './support/host.js';
import Snapshotter from './support/snapshotter.mjs';

/** One suite for both ways to give a machine. */
const ways = [
  {
    way: 'an object on the main thread',
    create: (events: RecordedEvents, concurrent: boolean): MachineHost =>
      mainThreadHost(concurrent ? new ConcurrentSnapshotter() : new Snapshotter(), events),
  },
  {
    way: 'the URL of a module in a worker',
    create: (events: RecordedEvents, concurrent: boolean): MachineHost =>
      workerHost(fixture(concurrent ? 'concurrent-snapshotter.mjs' : 'snapshotter.mjs'), events),
  },
] as const;

const sharedBytes = (bytes: number): Uint8Array<SharedArrayBuffer> =>
  new Uint8Array(new SharedArrayBuffer(bytes));

async function* chunksOf(...parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  for (const part of parts) yield new Uint8Array(part);
}

function numbersIn(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 8 }, (_, at) => view.getFloat64(at * 8));
}

describe.each(ways)('a machine given as $way', ({ create }) => {
  const open: MachineHost[] = [];
  let events: RecordedEvents;

  async function start(concurrent = false): Promise<MachineHost> {
    events = new RecordedEvents();
    const host = create(events, concurrent);
    open.push(host);
    await host.open();
    return host;
  }

  /** Entries `first … last`, each of which adds its own index. */
  function add(host: MachineHost, first: number, last: number): void {
    const commands = Array.from({ length: last - first + 1 }, (_, i) => ({ add: first + i }));
    host.apply(commandLease(first, commands), first, last);
  }

  async function rest(snapshot: MachineSnapshot, pieceBytes = 20): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const into = sharedBytes(pieceBytes);
      const filled = await snapshot.next(into);
      if (filled === undefined) return new Uint8Array(Buffer.concat(pieces));
      expect(filled).toBeLessThanOrEqual(pieceBytes);
      pieces.push(into.slice(0, filled));
    }
  }

  const failure = async (promise: Promise<unknown>): Promise<KeelsonError> => {
    const error: unknown = await promise.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(KeelsonError);
    return error as KeelsonError;
  };

  const range = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

  afterEach(async () => {
    await Promise.all(open.splice(0).map((host) => host.close()));
  });

  test('gives its state in pieces, and another is restored from them', async () => {
    const host = await start();
    add(host, 1, 50);
    await events.untilApplied(50);
    const snapshot = await host.snapshot();
    expect(snapshot.lastIndex).toBe(50);
    const bytes = await rest(snapshot);
    await snapshot.end();
    expect(numbersIn(bytes)).toEqual(range(50));
    const other = await start();
    await other.restore(chunksOf(bytes.subarray(0, 13), bytes.subarray(13)), 50);
    expect(await other.query('values')).toEqual(range(50));
    add(other, 51, 52);
    await events.untilApplied(52);
    expect(await other.query('values')).toEqual(range(52));
  });

  test('is as it was behind a whole apply, however many are under way', async () => {
    const host = await start(true);
    for (let first = 1; first <= 3_000; first += 100) add(host, first, first + 99);
    const snapshot = await host.snapshot();
    expect(snapshot.lastIndex % 100).toBe(0);
    expect(numbersIn(await rest(snapshot, 4096))).toEqual(range(snapshot.lastIndex));
    await snapshot.end();
    await events.untilApplied(3_000);
    expect(await host.query('values')).toHaveLength(3_000);
  });

  test('is not looked at in the middle of an apply that takes several slices', async () => {
    const host = await start(true);
    add(host, 1, 100_000);
    const snapshot = await host.snapshot();
    expect(snapshot.lastIndex).toBe(100_000);
    expect(await rest(snapshot, 1_000_000)).toHaveLength(800_000);
    await snapshot.end();
  });

  test('is given nothing to apply until its snapshot has ended', async () => {
    const host = await start();
    add(host, 1, 5);
    await events.untilApplied(5);
    const snapshot = await host.snapshot();
    await snapshot.next(sharedBytes(8));
    add(host, 6, 9);
    expect(numbersIn(await rest(snapshot))).toEqual([2, 3, 4, 5]);
    expect(await host.query('values')).toEqual(range(5));
    await snapshot.end();
    await events.untilApplied(9);
    expect(await host.query('values')).toEqual(range(9));
  });

  test('applies beside its snapshot when it says that it can', async () => {
    const host = await start(true);
    add(host, 1, 5);
    await events.untilApplied(5);
    const snapshot = await host.snapshot();
    await snapshot.next(sharedBytes(8));
    add(host, 6, 9);
    await events.untilApplied(9);
    expect(await host.query('values')).toEqual(range(9));
    expect(numbersIn(await rest(snapshot))).toEqual([2, 3, 4, 5]);
    await snapshot.end();
  });

  test('is not asked for more at once than fits, whatever its chunks hold', async () => {
    const host = await start();
    host.apply(commandLease(1, [{ chunkBytes: 1000 }, { add: 2 }]), 1, 2);
    await events.untilApplied(2);
    const snapshot = await host.snapshot();
    expect(await rest(snapshot, 300)).toHaveLength(2000);
    await snapshot.end();
  });

  test('that throws in its snapshot fails that alone', async () => {
    const host = await start();
    host.apply(commandLease(1, [{ add: 1 }, { add: 2 }, { failAt: 1 }]), 1, 3);
    await events.untilApplied(3);
    const snapshot = await host.snapshot();
    const error = await failure(rest(snapshot));
    expect(error.code).toBe('KEELSON_STATE_MACHINE_FAILED');
    expect(error.message).toContain('no more ink');
    await snapshot.end();
    add(host, 4, 4);
    await events.untilApplied(4);
    expect(events.failures).toEqual([]);
  });

  test('hears that a snapshot was given up', async () => {
    const host = await start();
    add(host, 1, 5);
    await events.untilApplied(5);
    const snapshot = await host.snapshot();
    await snapshot.next(sharedBytes(8));
    await snapshot.end();
    expect(await host.query('given up')).toBe(1);
    const next = await host.snapshot();
    expect(numbersIn(await rest(next))).toEqual(range(5));
    await next.end();
  });

  test('that is asked again ends each of its snapshots by itself', async () => {
    const host = await start();
    add(host, 1, 5);
    await events.untilApplied(5);
    const [given, kept] = await Promise.all([host.snapshot(), host.snapshot()]);
    await given.end();
    await given.end();
    add(host, 6, 9);
    expect(numbersIn(await rest(kept))).toEqual(range(5));
    expect(await host.query('values')).toEqual(range(5));
    expect(await host.query('given up')).toBe(1);
    await kept.end();
    await events.untilApplied(9);
  });

  test('does not take a snapshot that was ended for one that is whole', async () => {
    const host = await start();
    add(host, 1, 5);
    await events.untilApplied(5);
    const snapshot = await host.snapshot();
    await snapshot.next(sharedBytes(8));
    const [ended, next] = await Promise.allSettled([snapshot.end(), snapshot.next(sharedBytes(8))]);
    expect(ended.status).toBe('fulfilled');
    expect(next).toMatchObject({ status: 'rejected', reason: { code: 'KEELSON_ABORTED' } });
    expect((await failure(snapshot.next(sharedBytes(8)))).code).toBe('KEELSON_ABORTED');
  });

  test('is restored anew when the chunks of a damaged snapshot end with an error', async () => {
    const host = await start();
    const damage = new KeelsonError('KEELSON_STORAGE_CORRUPT', 'a bit has flipped');
    async function* damaged(): AsyncGenerator<Uint8Array, void> {
      yield new Uint8Array(8);
      throw damage;
    }
    expect(await failure(host.restore(damaged(), 9))).toBe(damage);
    await host.restore(chunksOf(new Uint8Array(16)), 2);
    expect(await host.query('values')).toEqual([0, 0]);
    expect(await host.query('cut off')).toBe(1);
    add(host, 3, 3);
    await events.untilApplied(3);
  });

  test('that cannot be restored says so', async () => {
    const host = await start();
    const error = await failure(host.restore(chunksOf(new Uint8Array(5)), 1));
    expect(error.code).toBe('KEELSON_STATE_MACHINE_FAILED');
    expect(error.message).toBe('restore of the state machine threw: half a number');
  });

  test('is restored in the middle of its life; queries that come meanwhile see the new state only', async () => {
    const host = await start();
    add(host, 1, 3);
    await events.untilApplied(3);
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    async function* chunks(): AsyncGenerator<Uint8Array, void> {
      yield* chunksOf(new Uint8Array(Float64Array.of(0).buffer));
      await gate;
      yield* chunksOf(new Uint8Array(8));
    }
    const restored = host.restore(chunks(), 40);
    let answered = false;
    const answer = Promise.resolve(host.query('all')).then((values) => {
      answered = true;
      return values;
    });
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(answered).toBe(false);
    open();
    await restored;
    expect(await answer).toEqual([0, 0]);
    add(host, 41, 41);
    await events.untilApplied(41);
    expect(await host.query('all')).toEqual([0, 0, 41]);
  });

  test('answers nothing from half a state: not before another restore has succeeded', async () => {
    const host = await start();
    await failure(host.restore(chunksOf(new Uint8Array(5)), 40));
    const { code } = await failure(Promise.resolve(host.query('all')));
    expect(code).toBe('KEELSON_STATE_MACHINE_FAILED');
    await host.restore(chunksOf(new Uint8Array(8)), 40);
    expect(await host.query('all')).toEqual([0]);
  });
});

describe('a walk over a snapshot', () => {
  test('looks at the clock although the machine has nothing to give yet', async () => {
    const machine = new Snapshotter();
    Reflect.set(machine, 'snapshot', function* () {
      for (let count = 0; count < 3; count++) yield new Uint8Array(0);
      yield Uint8Array.of(7);
    });
    let nowMs = 0;
    const clock = { now: () => nowMs++ };
    const cursor = new SnapshotCursor(machine);
    const filled: (number | undefined)[] = [];
    do filled.push(await cursor.next(new Uint8Array(8), clock));
    while (filled.at(-1) !== undefined);
    expect(filled).toEqual([0, 0, 0, 1, undefined]);
  });
});
