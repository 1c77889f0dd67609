/** Reads whose query is not answered at once: by a thread that is busy, or a machine that takes its time. */
import { setEnvironmentData } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { MainThreadHost } from '../../dist/state-machine/main-thread-host.js';
import { WorkerHost } from '../../dist/state-machine/worker-host.js';
import { Counter } from '../testing/counter.js';
import { SeamCluster, type SeamNode, type Seams } from './support/seam-cluster.js';

const BEGUN = 0;
const OPEN = 1;

const ONE = { voters: [1], config: { limits: { maxPendingReads: 4 } } } as const;

interface Held extends AsyncDisposable {
  readonly node: SeamNode;
  /** Lets the queries be answered, with 1. */
  release(): Promise<unknown>;
}

afterEach(() => setEnvironmentData('keelson-gate', undefined));

async function start(createMachine: Seams['createMachine']) {
  const cluster = await SeamCluster.start({ ...ONE, createMachine });
  return { cluster, node: await cluster.leader() };
}

function held(cluster: SeamCluster, node: SeamNode, release: Held['release']): Held {
  return {
    node,
    release,
    [Symbol.asyncDispose]: async () => {
      await release();
      await cluster[Symbol.asyncDispose]();
    },
  };
}

/** The machine promises an answer, and keeps the promise when it is released. */
async function promising(): Promise<Held> {
  let answer: (sum: number) => void = () => {};
  const answered = new Promise<number>((resolve) => {
    answer = resolve;
  });
  const { cluster, node } = await start((_nodeId, events, scheduler, config) => {
    const machine = Object.assign(new Counter(), { query: () => answered });
    return new MainThreadHost(machine, {
      group: 0,
      events,
      scheduler,
      limits: config.stateMachine,
    });
  });
  return held(cluster, node, async () => answer(1));
}

/** The machine's thread is in the middle of a command until it is released. */
async function busy(): Promise<Held> {
  const gate = new Int32Array(new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT));
  setEnvironmentData('keelson-gate', gate.buffer);
  const module = new URL('./support/gated-machine.mjs', import.meta.url);
  const { cluster, node } = await start(
    (_nodeId, events, scheduler, config) =>
      new WorkerHost(module, { group: 0, events, scheduler, limits: config.stateMachine }),
  );
  const written = node.write(1);
  const release = (): Promise<unknown> => {
    Atomics.store(gate, OPEN, 1);
    Atomics.notify(gate, OPEN);
    return written;
  };
  await Atomics.waitAsync(gate, BEGUN, 0).value;
  return held(cluster, node, release);
}

describe.each([
  ['on the main thread that answers later', promising],
  ['in a worker that is busy', busy],
])('a machine %s', (_where, hold) => {
  it('is waited for no longer than the time and the signal of a read allow', async () => {
    await using machine = await hold();
    const { node } = machine;
    const abort = new AbortController();
    const reads = Promise.allSettled([
      node.read('sum', { timeoutMs: 30 }),
      node.read('sum', { timeoutMs: 30, consistency: 'local' }),
      node.read('sum', { signal: abort.signal, consistency: 'local' }),
    ]);
    abort.abort('enough');
    const timedOut = { code: 'KEELSON_TIMEOUT', outcome: 'rejected' };
    expect(await reads).toMatchObject([
      { reason: timedOut },
      { reason: timedOut },
      { reason: { code: 'KEELSON_ABORTED', outcome: 'rejected', cause: 'enough' } },
    ]);
    await machine.release();
    expect(await node.read('sum')).toBe(1);
  });

  it('has no more reads waiting for it than limits.maxPendingReads', async () => {
    await using machine = await hold();
    const { node } = machine;
    const waiting = [
      node.read('sum', { consistency: { atLeast: { index: 1 } } }),
      ...Array.from({ length: 3 }, () => node.read('sum', { consistency: 'local' })),
    ];
    await new Promise((resolve) => setImmediate(resolve));
    const overloaded = { code: 'KEELSON_OVERLOADED', outcome: 'rejected' };
    for (const consistency of ['local', 'linearizable'] as const) {
      await expect(node.read('sum', { consistency })).rejects.toMatchObject(overloaded);
    }
    await machine.release();
    expect(await Promise.all(waiting)).toEqual([1, 1, 1, 1]);
    expect(await node.read('sum', { consistency: 'local' })).toBe(1);
  });
});

it('a machine that answers at once answers any number of local reads, and no timer is set for them', async () => {
  let timers = 0;
  await using cluster = await SeamCluster.start(ONE);
  const node = await cluster.leader();
  const { scheduler } = cluster;
  const { setTimer } = scheduler;
  scheduler.setTimer = (...given) => {
    timers++;
    return setTimer.apply(scheduler, given);
  };
  const reads = Array.from({ length: 100 }, () => node.read('sum', { consistency: 'local' }));
  expect(timers).toBe(0);
  expect(await Promise.all(reads)).toEqual(new Array(100).fill(0));
});

it('a local read is not begun when its signal has fired or its time limit is none', async () => {
  await using cluster = await SeamCluster.start(ONE);
  const node = await cluster.leader();
  const consistency = 'local';
  await expect(
    node.read('sum', { consistency, signal: AbortSignal.abort() }),
  ).rejects.toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected' });
  await expect(node.read('sum', { consistency, timeoutMs: 0 })).rejects.toMatchObject({
    code: 'KEELSON_INVALID_ARGUMENT',
  });
});
