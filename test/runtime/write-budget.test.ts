/**
 * One budget bounds the writes that a node has yet to answer: those that it proposes, those that it
 * holds for another leader, and those that followers have sent it.
 */
import { pack } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import type { Timer } from '../../dist/base/scheduler.js';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { follower } from './support/scripted-follower.js';
import { ScriptedPeers } from './support/scripted-peers.js';
import { idOf, SeamCluster, StoppableScheduler } from './support/seam-cluster.js';

const overloaded = { code: 'KEELSON_OVERLOADED', outcome: 'rejected' };
const limits = { maxPendingWrites: 4 };
const answer = { payload: pack(1), index: 2, term: 5 };

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const refusal = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'it was not refused',
    (error: unknown) => error,
  );

/** Follows a promise without waiting for it. */
function watch(promise: Promise<unknown>): { settled: boolean } {
  const seen = { settled: false };
  const settle = (): void => {
    seen.settled = true;
  };
  promise.then(settle, settle);
  return seen;
}

describe('on a follower, writes beyond the budget are refused', () => {
  it('while others are under way to the leader, until one of them is answered', async () => {
    await using follower1 = await follower({ limits });
    const { node, peers, request } = follower1;
    const writes = [1, 2, 3, 4].map((command) => node.write(command));
    expect(await refusal(node.write(5))).toMatchObject(overloaded);
    expect(await refusal(node.write(6, { timeoutMs: 1_000 }))).toMatchObject(overloaded);
    expect(node.status().pendingWrites).toBe(4);
    const writable = watch(node.writable());
    await turns();
    expect(peers.requests.map(({ request: { payload } }) => payload)).toEqual(
      [1, 2, 3, 4].map((command) => pack(command)),
    );
    expect(writable.settled).toBe(false);

    peers.requests[2]!.answer(answer);
    await node.writable();
    expect(node.status().pendingWrites).toBe(3);
    writes.push(node.write(7));
    await request(5);
    expect(await refusal(node.write(8))).toMatchObject(overloaded);
    for (const sent of peers.requests) sent.answer(answer);
    await Promise.all(writes);
    expect(node.status().pendingWrites).toBe(0);
  });

  it('by their bytes too', async () => {
    const bytes = { maxEntryBytes: 2048, maxPendingBytes: 4096 };
    await using follower1 = await follower({ limits: bytes });
    const { node, peers } = follower1;
    const large = 'x'.repeat(1_500) as unknown as number;
    const writes = [node.write(large), node.write(large)];
    expect(await refusal(node.write(large))).toMatchObject(overloaded);
    writes.push(node.write(1));
    const writable = watch(node.writable());
    await turns();
    expect(peers.requests).toHaveLength(3);
    expect(writable.settled).toBe(false);
    for (const sent of peers.requests) sent.answer(answer);
    await Promise.all(writes);
    await node.writable();
  });

  it('while others wait for a leader', async () => {
    const peers = new ScriptedPeers();
    await using cluster = await SeamCluster.start({
      started: [1],
      config: { limits },
      createNetwork: () => peers,
    });
    const node = cluster.node(1);
    const writes = [1, 2, 3, 4].map((command) => node.write(command));
    expect(node.status().pendingWrites).toBe(4);
    expect(await refusal(node.write(5))).toMatchObject(overloaded);
    peers.lead(2, 5);
    await expect.poll(() => peers.requests.length, { interval: 2 }).toBe(4);
    for (const sent of peers.requests) sent.answer(answer);
    await Promise.all(writes);
  });

  it('whatever becomes of the others, which give their room back once', async () => {
    await using follower1 = await follower({ limits });
    const { node, request } = follower1;
    const abort = new AbortController();
    const ends = [
      node.write(1, { signal: abort.signal }),
      node.write(2, { timeoutMs: 1 }),
      node.write(3),
      node.write(4),
    ].map(refusal);
    (await request(3)).answer({ error: { ...overloaded, message: 'why' } as never });
    abort.abort();
    await Promise.all(ends.slice(0, 3));
    expect(node.status().pendingWrites).toBe(1);
    await node.close();
    await ends[3];
    expect(node.status().pendingWrites).toBe(0);
  });

  it('all of a writeMany or nothing of it, and there is room when there is room for all', async () => {
    await using follower1 = await follower({ limits });
    const { node, peers } = follower1;
    const writes = [node.write(1), node.write(2)];
    expect(await refusal(node.writeMany([3, 4, 5]))).toMatchObject(overloaded);
    const writable = watch(node.writable());
    await turns();
    expect(peers.requests).toHaveLength(2);
    expect(writable.settled).toBe(false);
    expect(await refusal(node.writeMany([3, 4, 5, 6, 7]))).toMatchObject({
      code: 'KEELSON_ENTRY_TOO_LARGE',
      outcome: 'rejected',
    });
    peers.requests[0]!.answer(answer);
    await node.writable();
    const many = node.writeMany([3, 4, 5]);
    await turns();
    for (const sent of peers.requests) sent.answer(answer);
    await Promise.all([...writes, many]);
  });
});

/** Short timers run when the test says so. */
class PausedScheduler extends SystemScheduler {
  private readonly pauses: (() => void)[] = [];

  override setTimer(delayMs: number, callback: () => void): Timer {
    if (delayMs > 100) return super.setTimer(delayMs, callback);
    this.pauses.push(callback);
    return { cancel: () => {} };
  }

  endPauses(): void {
    for (const callback of this.pauses.splice(0)) callback();
  }
}

describe('a follower whose leader has no room', () => {
  it.each([
    ['KEELSON_OVERLOADED', 'after a pause', 'pause'],
    ['KEELSON_STORAGE_FULL', 'after a pause', 'pause'],
    ['KEELSON_OVERLOADED', 'when another node leads', 'leader'],
  ] as const)('(%s) is writable again %s', async (code, _when, what) => {
    const scheduler = new PausedScheduler();
    await using follower1 = await follower({}, scheduler);
    const { node, peers, request } = follower1;
    const refused = refusal(node.write(1));
    (await request(1)).answer({ error: { code, outcome: 'rejected', message: 'full' } });
    expect(await refused).toMatchObject({ code, outcome: 'rejected' });
    const writable = node.writable();
    const seen = watch(writable);
    await turns();
    expect(seen.settled).toBe(false);
    if (what === 'pause') scheduler.endPauses();
    else peers.lead(3, 6);
    await writable;
    await node.writable();
  });
});

describe('on a leader', () => {
  it('what followers send counts in the budget, and the rest of it is left to its own clients', async () => {
    await using cluster = await SeamCluster.start({ voters: [1], config: { limits } });
    const leader = await cluster.leader();
    const send = () =>
      cluster.handler(1).request(3, { kind: 'write', payload: pack(1), timeoutMs: 9_000 });
    const sent = [send(), send(), send()];
    const own = leader.write(1);
    const flood = Array.from({ length: 20 }, send);
    expect(await refusal(leader.write(1))).toMatchObject(overloaded);
    await leader.writable();
    const answered = await Promise.all(sent);
    expect(answered.map(({ error }) => error)).toEqual([undefined, undefined, undefined]);
    for (const { error } of await Promise.all(flood)) expect(error).toMatchObject(overloaded);
    expect((await own).response).toBe(4);
    expect((await leader.write(1)).response).toBe(5);
  });

  it('there is room again when there is room for all of a writeMany that was refused', async () => {
    await using cluster = await SeamCluster.start({ config: { limits } });
    const leader = await cluster.leader();
    const followers = cluster.followersOf(leader).map(idOf);
    cluster.hub.partition([[idOf(leader)], followers]);
    const writes = [leader.write(1), leader.write(1)];
    expect(await refusal(leader.writeMany([1, 1, 1]))).toMatchObject(overloaded);
    const writable = leader.writable();
    const seen = watch(writable);
    await turns();
    expect(seen.settled).toBe(false);
    writes.push(leader.write(1));
    cluster.hub.heal();
    await writable;
    await leader.writeMany([1, 1, 1]);
    // Cut off for too long, it loses its office and does not know.
    await Promise.allSettled(writes);
  });

  it('one turn may bring more than may be uncommitted: what fits is taken, and room comes back', async () => {
    await using cluster = await SeamCluster.start({
      voters: [1],
      config: { raft: { maxUncommittedEntries: 4 }, storage: { maxBatchEntries: 4 } },
    });
    const leader = await cluster.leader();
    for (let round = 0; round < 3; round++) {
      const taken = Array.from({ length: 4 }, () => leader.write(1));
      const refused = Array.from({ length: 4 }, () => refusal(leader.write(1)));
      for (const error of await Promise.all(refused)) expect(error).toMatchObject(overloaded);
      await Promise.all(taken);
      await leader.writable();
      await leader.writeMany([1, 1, 1, 1]);
    }
    expect(await leader.read('sum')).toBe(24);
  });

  it('reads that followers ask for count in limits.maxPendingReads', async () => {
    const peers = new ScriptedPeers();
    const scheduler = new StoppableScheduler();
    await using cluster = await SeamCluster.start({
      started: [1],
      scheduler,
      config: { limits: { maxPendingReads: 4 } },
      createNetwork: () => peers,
    });
    const node = cluster.node(1);
    await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 30_000 });
    scheduler.stop();
    const seen = peers.heartbeats(2).length;
    const ask = () =>
      cluster
        .handler(1)
        .request(3, { kind: 'readIndex', payload: new Uint8Array(0), timeoutMs: 9_000 });
    const asked = [ask(), ask(), ask()];
    const own = node.read('sum');
    const flood = Array.from({ length: 20 }, ask);
    for (const { error } of await Promise.all(flood)) expect(error).toMatchObject(overloaded);
    expect(await refusal(node.read('sum'))).toMatchObject(overloaded);
    expect(await refusal(node.readBarrier())).toMatchObject(overloaded);

    for (let at = seen; at < peers.heartbeats(2).length; at++) {
      peers.answerHeartbeat(2, peers.heartbeats(2)[at]!);
    }
    expect(await own).toBe(0);
    for (const { error } of await Promise.all(asked)) expect(error).toBeUndefined();
    const again = ask();
    peers.answerHeartbeat(2, peers.heartbeats(2).at(-1)!);
    expect((await again).error).toBeUndefined();
  });
});
