import { afterEach, describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/index.js';
import { testCluster } from '../../dist/testing/index.js';
import { Counter, type CounterCluster, machines, type Node, startCounters } from './counter.js';

let cluster: CounterCluster;

async function start(nodes = 3, config = {}): Promise<Node> {
  cluster = await startCounters(nodes, config);
  return cluster.leader();
}

afterEach(async () => {
  await cluster.close();
});

/** What was proposed before stands in the log behind it. */
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const idOf = (node: Node): number => node.status().nodeId;
const others = (node: Node): Node[] => cluster.nodes.filter((other) => other !== node);

describe('a cluster in one process', () => {
  it.each([1, 2, 3, 5, 7])('of %i voters elects a leader and writes', async (nodes) => {
    const leader = await start(nodes);
    const { response, logId } = await leader.write(5);
    expect(response).toBe(5);
    expect(logId).toEqual({ term: leader.status().term, index: leader.status().lastLogIndex });
    await cluster.waitForApplied(logId.index);
    for (const machine of machines.values()) expect(machine.sum).toBe(5);
  });

  it('forwards writes and linearizable reads from any follower', async () => {
    const leader = await start();
    for (const follower of others(leader)) {
      const { response } = await follower.write(1);
      expect(response).toBeGreaterThan(0);
      expect(await follower.read('sum')).toBe(response);
    }
    expect(await leader.read('sum')).toBe(2);
  });

  it('answers many concurrent writes in the order of the log, each with its own response', async () => {
    const leader = await start();
    const results = await Promise.all(Array.from({ length: 5_000 }, () => leader.write(1)));
    const byIndex = [...results].sort((a, b) => a.logId.index - b.logId.index);
    expect(byIndex.map(({ response }) => response)).toEqual(byIndex.map((_, i) => i + 1));
    expect(results).toEqual(byIndex);
  });

  it('writes many commands side by side with one promise', async () => {
    const leader = await start();
    const results = await leader.writeMany([1, 2, 3]);
    expect(results.map(({ response }) => response)).toEqual([1, 3, 6]);
    expect(results[2]?.logId.index).toBe((results[0]?.logId.index ?? 0) + 2);
    expect(await others(leader)[0]?.writeMany([4, 5])).toHaveLength(2);
    expect(await leader.writeMany([])).toEqual([]);
  });

  it('refuses a writeMany as a whole when one of its commands is too large, on any node', async () => {
    const leader = await start(3, { limits: { maxEntryBytes: 1024 } });
    const tooLarge = 'x'.repeat(2_000) as unknown as number;
    for (const node of cluster.nodes) {
      await expect(node.writeMany([1, tooLarge, 2])).rejects.toMatchObject({
        code: 'KEELSON_ENTRY_TOO_LARGE',
        outcome: 'rejected',
      });
    }
    expect(await leader.read('sum')).toBe(0);
  });

  it('does not let go of one write when another, refused one is aborted', async () => {
    const leader = await start(3, { limits: { maxEntryBytes: 1024 } });
    const abort = new AbortController();
    const write = leader.write(1);
    const refused = leader.writeMany(['x'.repeat(2_000) as unknown as number], {
      signal: abort.signal,
    });
    abort.abort();
    await expect(refused).rejects.toMatchObject({ outcome: 'rejected' });
    expect((await write).response).toBe(1);
  });

  it('takes a time limit that no timer can hold', async () => {
    const leader = await start();
    const follower = others(leader)[0] as Node;
    expect((await follower.write(1, { timeoutMs: Number.POSITIVE_INFINITY })).response).toBe(1);
  });

  it('reads at least what a log id names, on a follower', async () => {
    const leader = await start();
    const { logId } = await leader.write(7);
    for (const follower of others(leader)) {
      expect(await follower.read('sum', { consistency: { atLeast: logId } })).toBe(7);
    }
  });

  it('reads its own machine fresh behind a read barrier, on a node that had fallen behind', async () => {
    const leader = await start();
    const behind = idOf(others(leader)[0] as Node);
    await cluster.crash(behind);
    const { response } = await leader.write(7);
    const node = await cluster.restart(behind);
    await node.readBarrier();
    expect(machines.get(behind)?.sum).toBe(response);
    await leader.readBarrier();
    expect(machines.get(idOf(leader))?.sum).toBe(response);
  });

  it('lets nobody past a read barrier who is cut off from a majority', async () => {
    const leader = await start();
    const follower = others(leader)[0] as Node;
    cluster.partition([1], [2], [3]);
    for (const node of [leader, follower]) {
      const error = await node.readBarrier({ timeoutMs: 200 }).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(KeelsonError);
      expect(error).toMatchObject({ outcome: 'rejected' });
    }
  });

  it('assigns a time that never decreases along the log, the same on every node', async () => {
    const leader = await start();
    await leader.write(1);
    await cluster.restart(idOf(leader));
    const next = await cluster.leader();
    const { logId } = await next.write(1);
    await cluster.waitForApplied(logId.index);
    const [first, ...rest] = [...machines.values()].map((machine) => machine.applied);
    for (const applied of rest) expect(applied).toEqual(first);
    const times = first?.map(({ time }) => time) ?? [];
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times[0]).toBeGreaterThan(0);
  });

  it('keeps every acknowledged write through the crash of its leader', async () => {
    let leader = await start();
    let sum = 0;
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 10; i++) sum = (await leader.write(1)).response;
      const crashed = idOf(leader);
      await cluster.crash(crashed);
      leader = await cluster.leader();
      expect(idOf(leader)).not.toBe(crashed);
      expect(await leader.read('sum')).toBe(sum);
      await cluster.restart(crashed);
    }
    expect(sum).toBe(30);
  });

  it('commits nothing in a minority, and tells the truth about it', async () => {
    const leader = await start();
    const { logId } = await leader.write(1);
    await cluster.waitForApplied(logId.index);
    cluster.partition([idOf(leader)]);
    const failed = await leader.write(10, { timeoutMs: 300 }).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(KeelsonError);
    expect((failed as KeelsonError).outcome).toBe('unknown');
    await leader.waitFor((status) => status.state !== 'leader');
    const next = await Promise.any(
      others(leader).map(async (node) => {
        await node.waitFor((status) => status.readyToLead);
        return node;
      }),
    );
    const { response } = await next.write(100);
    expect(response).toBe(101);
    cluster.heal();
    await leader.waitFor((status) => status.leader === idOf(next));
    expect(await leader.read('sum')).toBe(101);
    const crashed = machines.get(idOf(leader));
    expect(crashed?.applied.map(({ command }) => command)).toEqual([1, 100]);
  });

  it('refuses a linearizable read on a leader that is cut off', async () => {
    const leader = await start();
    await leader.write(1);
    cluster.partition([idOf(leader)]);
    await expect(leader.read('sum', { timeoutMs: 300 })).rejects.toMatchObject({
      name: 'KeelsonError',
      outcome: 'rejected',
    });
    expect(await leader.read('sum', { consistency: 'local' })).toBe(1);
  });

  it('waits for a leader until the time of the call is up', async () => {
    const leader = await start();
    cluster.partition(...cluster.nodes.map((n) => [idOf(n)]));
    const follower = others(leader)[0] as Node;
    await follower.waitFor((status) => status.leader === undefined);
    await expect(follower.write(1, { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'KEELSON_NO_LEADER',
      outcome: 'rejected',
    });
  });

  it('gives up waiting when the signal of a call fires', async () => {
    const leader = await start();
    await leader.write(1);
    cluster.partition([idOf(leader)]);
    const abort = new AbortController();
    const write = leader.write(2, { signal: abort.signal });
    const read = leader.read('sum', { signal: abort.signal });
    const settled = Promise.allSettled([write, read]);
    await nextTurn();
    abort.abort();
    expect(await settled).toMatchObject([
      { reason: { code: 'KEELSON_ABORTED', outcome: 'unknown' } },
      { reason: { code: 'KEELSON_ABORTED', outcome: 'rejected' } },
    ]);
    await expect(leader.write(2, { signal: abort.signal })).rejects.toMatchObject({
      code: 'KEELSON_ABORTED',
      outcome: 'rejected',
    });
  });

  it('runs tasks only while a node leads', async () => {
    const leader = await start();
    const running = new Set<number>();
    const signals: AbortSignal[] = [];
    for (const node of cluster.nodes) {
      node.whileLeader(({ signal }) => {
        running.add(idOf(node));
        signals.push(signal);
        signal.addEventListener('abort', () => running.delete(idOf(node)));
      });
    }
    await leader.write(1);
    expect([...running]).toEqual([idOf(leader)]);
    cluster.partition([idOf(leader)]);
    await leader.waitFor((status) => status.state !== 'leader');
    const next = await cluster.leader();
    await next.write(1);
    expect([...running]).toEqual([idOf(next)]);
    expect(signals[0]?.aborted).toBe(true);
  });

  it('tells about leaders and membership by events', async () => {
    const leader = await start();
    const follower = others(leader)[0] as Node;
    const leaders: (number | undefined)[] = [];
    follower.on('leader', ({ nodeId }) => leaders.push(nodeId));
    await cluster.crash(idOf(leader));
    const next = await cluster.leader();
    await follower.waitFor((status) => status.leader === idOf(next));
    expect(leaders.at(-1)).toBe(idOf(next));
    expect(follower.status().voters).toEqual([1, 2, 3]);
  });

  it('refuses writes beyond its limits, and says when it takes them again', async () => {
    const leader = await start(3, { limits: { maxPendingWrites: 16 } });
    const writes = Array.from({ length: 20 }, () => leader.write(1));
    const results = await Promise.allSettled(writes);
    const refused = results.filter(({ status }) => status === 'rejected');
    expect(refused).toHaveLength(4);
    expect(refused[0]).toMatchObject({
      reason: { code: 'KEELSON_OVERLOADED', outcome: 'rejected' },
    });
    await leader.writable();
    expect((await leader.write(1)).response).toBe(17);
  });

  it('refuses reads beyond its limit, and takes them again when others are answered', async () => {
    const leader = await start(3, { limits: { maxPendingReads: 4 } });
    for (const consistency of ['linearizable', { atLeast: { index: 1 } }] as const) {
      const reads = Array.from({ length: 6 }, () => leader.read('sum', { consistency }));
      const results = await Promise.allSettled(reads);
      expect(results.map(({ status }) => status)).toEqual([
        ...new Array(4).fill('fulfilled'),
        ...new Array(2).fill('rejected'),
      ]);
      expect(results.at(-1)).toMatchObject({
        reason: { code: 'KEELSON_OVERLOADED', outcome: 'rejected' },
      });
      expect(await leader.read('sum', { consistency })).toBe(0);
    }
  });

  it('takes reads again when others have failed', async () => {
    const leader = await start(3, { limits: { maxPendingReads: 1 } });
    cluster.partition([1], [2], [3]);
    await expect(leader.read('sum', { timeoutMs: 50 })).rejects.toMatchObject({
      outcome: 'rejected',
    });
    cluster.heal();
    const next = await cluster.leader();
    expect(await next.read('sum')).toBe(0);
    expect(await leader.read('sum')).toBe(0);
  });

  it('stops a node whose state machine throws, and names the place', async () => {
    const leader = await start();
    const follower = others(leader)[0] as Node;
    const machine = machines.get(idOf(follower)) as Counter;
    const errors: KeelsonError[] = [];
    follower.on('error', (error) => errors.push(error));
    machine.apply = () => {
      throw new Error('a bug of the application');
    };
    const { logId } = await leader.write(1);
    const status = await follower.waitFor(({ state }) => state === 'stopped');
    expect(status.failure).toMatchObject({ code: 'KEELSON_STATE_MACHINE_FAILED' });
    expect(status.failure?.message).toContain(String(logId.index));
    expect(errors).toHaveLength(1);
    expect((await leader.write(1)).response).toBe(2);
    const refused = { code: 'KEELSON_STATE_MACHINE_FAILED', outcome: 'rejected' };
    await expect(follower.write(1)).rejects.toMatchObject(refused);
    await expect(follower.writeMany([1, 2])).rejects.toMatchObject(refused);
    await expect(follower.read('sum')).rejects.toMatchObject(refused);
    await expect(follower.read('sum', { consistency: 'local' })).rejects.toMatchObject(refused);
    await expect(follower.readBarrier()).rejects.toMatchObject(refused);
    expect(await leader.read('sum')).toBe(2);
  });

  it('closes what it has opened when a node cannot start', async () => {
    await start(1);
    let made = 0;
    const failed = testCluster({
      nodes: 3,
      stateMachine: () => {
        if (++made === 3) throw new Error('no third machine');
        return new Counter();
      },
    });
    await expect(failed).rejects.toThrow('no third machine');
    expect(made).toBe(3);
  });

  it('refuses what is no state machine', async () => {
    await start(1);
    const failed = testCluster({ stateMachine: () => ({ apply() {} }) as unknown as Counter });
    await expect(failed).rejects.toMatchObject({
      code: 'KEELSON_INVALID_ARGUMENT',
      message: expect.stringContaining('apply and query'),
    });
  });

  it('fails what waits when it is closed', async () => {
    const leader = await start();
    await leader.write(1);
    cluster.partition([idOf(leader)]);
    const write = leader.write(1);
    const wait = leader.waitFor(() => false);
    const closed = Promise.allSettled([write, wait]);
    await nextTurn();
    await leader.close();
    expect(await closed).toMatchObject([
      { reason: { code: 'KEELSON_CLOSED', outcome: 'unknown' } },
      { reason: { code: 'KEELSON_CLOSED' } },
    ]);
    await expect(leader.write(1)).rejects.toMatchObject({ code: 'KEELSON_CLOSED' });
  });

  it('fails what is awaited after it was closed, at once', async () => {
    const leader = await start(1);
    const states: string[] = [];
    leader.on('status', ({ state }) => states.push(state));
    await leader.close();
    const options = { timeoutMs: 3_600_000 };
    const closed = { code: 'KEELSON_CLOSED', outcome: 'rejected' };
    await expect(leader.waitFor(() => false, options)).rejects.toMatchObject(closed);
    await expect(leader.writable(options)).rejects.toMatchObject(closed);
    await expect(leader.read('sum', options)).rejects.toMatchObject(closed);
    // What holds already needs no waiting.
    expect((await leader.waitFor(({ state }) => state === 'stopped')).state).toBe('stopped');
    expect(states.at(-1)).toBe('stopped');
  });

  it('fails what waits for the status of a node that has stopped for good', async () => {
    const leader = await start();
    const follower = others(leader)[0] as Node;
    const machine = machines.get(idOf(follower)) as Counter;
    machine.apply = () => {
      throw new Error('a bug of the application');
    };
    const never = follower.waitFor(() => false, { timeoutMs: 3_600_000 });
    await leader.write(1);
    await expect(never).rejects.toMatchObject({
      code: 'KEELSON_STATE_MACHINE_FAILED',
      outcome: 'rejected',
    });
  });
});
