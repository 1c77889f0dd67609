import type { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import type { KeelsonError } from '../../dist/base/errors.js';
import type { WorkerHost } from '../../dist/state-machine/worker-host.js';
import { block, lease, shared } from './support/blocks.js';
import { commandLease, fixture, RecordedEvents, workerHost } from './support/host.js';

let host: WorkerHost | undefined;

afterEach(async () => {
  await host?.close();
  host = undefined;
});

function start(name: string, options: Parameters<typeof workerHost>[2] = {}) {
  const events = new RecordedEvents();
  host = workerHost(fixture(name), events, options);
  return { host, events };
}

async function failureOf(promise: Promise<unknown>): Promise<KeelsonError> {
  try {
    await promise;
  } catch (error) {
    return error as KeelsonError;
  }
  throw new Error('it did not fail');
}

describe('a module that cannot be loaded', () => {
  test.each([
    ['is missing', 'not-there.mjs', {}, 'KEELSON_MISSING_FILE', 'no such file'],
    ['throws', 'broken.mjs', {}, 'KEELSON_MISSING_FILE', 'does not evaluate'],
    [
      'never ends loading',
      'hanging.mjs',
      { workerStartTimeoutMs: 500 },
      'KEELSON_MISSING_FILE',
      '500 ms',
    ],
    ['holds no machine', 'no-machine.mjs', {}, 'KEELSON_INVALID_ARGUMENT', 'default export'],
    ['has half a codec', 'half-codec.mjs', {}, 'KEELSON_INVALID_ARGUMENT', 'encode and decode'],
    ['has a bad version', 'bad-version.mjs', {}, 'KEELSON_INVALID_ARGUMENT', 'version must be'],
    ['hides its codec', 'hidden-codec.mjs', {}, 'KEELSON_INVALID_ARGUMENT', 'export const codec'],
    ['cannot make its machine', 'bad-factory.mjs', {}, 'KEELSON_STATE_MACHINE_FAILED', 'no room'],
  ])('because it %s fails with its name and a remedy', async (_, name, options, code, reason) => {
    const { host, events } = start(name, options);
    const before = performance.now();
    const failure = await failureOf(host.open());
    expect(performance.now() - before).toBeLessThan(5000);
    expect(failure.code).toBe(code);
    expect(failure.message).toContain(name);
    expect(failure.message).toContain(reason);
    const details = code === 'KEELSON_STATE_MACHINE_FAILED' ? {} : { file: fixture(name).pathname };
    expect(failure.details).toEqual(details);
    expect(events.failures).toEqual([]);
    await expect(host.query('entries')).rejects.toBe(failure);
  });

  test('a missing worker file is named, with a remedy', async () => {
    const { host } = start('recorder.mjs', { workerFile: fixture('no-worker.js') });
    const failure = await failureOf(host.open());
    expect(failure.code).toBe('KEELSON_MISSING_FILE');
    expect(failure.message).toContain('no-worker.js');
    expect(failure.details).toEqual({ file: fixture('no-worker.js').pathname });
    expect(failure.message).toContain('bundle');
  });

  test('a worker file that does not run is named, and nothing hangs', async () => {
    const { host } = start('recorder.mjs', { workerFile: fixture('broken.mjs') });
    const failure = await failureOf(host.open());
    expect(failure.code).toBe('KEELSON_MISSING_FILE');
    expect(failure.message).toContain('broken.mjs');
    expect(failure.details).toEqual({ file: fixture('broken.mjs').pathname });
  });
});

describe('what a module may export', () => {
  test.each(['recorder.mjs', 'factory.mjs', 'instance.mjs'])('a machine by %s', async (name) => {
    const { host, events } = start(name);
    expect(await host.open()).toBe(0);
    host.apply(commandLease(1, [{ echo: 1 }]), 1, 1);
    await events.untilApplied(1);
    expect(events.responses).toEqual([{ index: 1, echo: 1 }]);
  });

  test('a codec of its own, used by both threads, and a machine that is durable itself', async () => {
    const { host, events } = start('own-codec.mjs');
    expect(await host.open()).toBe(8);
    const payload = host.encode(2);
    expect(Buffer.from(payload).toString()).toBe('2');
    host.apply(lease(9, 9, [shared(block(9, [{ payload }]))]), 9, 9);
    await events.untilApplied(9);
    expect(await host.query(undefined)).toBe(42);
  });
});

describe('a worker that dies', () => {
  test('while it applies: the group stops, and no batch is run again', async () => {
    const { host, events } = start('recorder.mjs', { maxQueuedApplies: 2 });
    await host.open();
    host.apply(commandLease(1, [{ echo: 1 }]), 1, 1);
    await events.untilApplied(1);
    const leases = [];
    for (let index = 2; index <= 40; index++) {
      const next = commandLease(index, [index === 3 ? { op: 'exit' } : { echo: index }]);
      leases.push(next);
      host.apply(next, index, index);
    }
    await events.untilFailed();
    const [failure] = events.failures as KeelsonError[];
    expect(failure!.code).toBe('KEELSON_STATE_MACHINE_FAILED');
    expect(failure!.outcome).toBe('unknown');
    expect(failure!.message).toMatch(/group 5 died while it applied the indexes [23]…\d+/);
    await expect(host.query('entries')).rejects.toBe(failure);
    await expect(host.digest()).rejects.toBe(failure);
    await host.close();
    expect(events.failures).toHaveLength(1);
    expect(events.appliedIndex).toBeLessThan(3);
    expect(leases.map(({ references }) => references)).toEqual(leases.map(() => 1));
  });

  test('while it answers a query: the query and the group fail', async () => {
    const { host, events } = start('recorder.mjs');
    await host.open();
    const failure = await failureOf(host.query('exit'));
    expect(failure.code).toBe('KEELSON_STATE_MACHINE_FAILED');
    expect(events.failures).toEqual([failure]);
  });

  test('while nothing runs: the group fails too', async () => {
    const { host, events } = start('recorder.mjs');
    await host.open();
    const { pool } = host as unknown as { pool: { threads: Worker[] } };
    await pool.threads[0]!.terminate();
    await events.untilFailed();
    expect(events.failures[0]!.message).toContain('while no entry was being applied');
  });
});

test('bytes outside shared memory are copied, so that their buffer stays with the store', async () => {
  const { host, events } = start('recorder.mjs');
  await host.open();
  const own = commandLease(1, [{ echo: 'own' }], { memory: 'own' });
  host.apply(own, 1, 1);
  expect(own.references).toBe(1);
  expect(own.parts[0]!.length).toBeGreaterThan(0);
  await events.untilApplied(1);
  expect(events.responses).toEqual([{ index: 1, echo: 'own' }]);
});

test('memory that the worker reads is held until the task has ended', async () => {
  const { host, events } = start('recorder.mjs');
  await host.open();
  const held = commandLease(1, [{ echo: 1 }]);
  host.apply(held, 1, 1);
  expect(held.references).toBe(2);
  await events.untilApplied(1);
  expect(held.references).toBe(1);
});

test('what waits is joined, so that many small batches cost few tasks', async () => {
  const { host, events } = start('recorder.mjs', { maxQueuedApplies: 2 });
  await host.open();
  const { pool } = host as unknown as { pool: { completed: number } };
  const before = pool.completed;
  for (let index = 1; index <= 500; index++) host.apply(commandLease(index, [{}]), index, index);
  await events.untilApplied(500);
  expect(pool.completed - before).toBeLessThan(20);
});
