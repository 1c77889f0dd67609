/**
 * The network takes so many requests at once. On a follower, writes that were admitted wait for their
 * place among them: nothing is refused that a leader would take.
 */
import { pack } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { CallScope } from '../../dist/runtime/call-scope.js';
import { RequestWindow } from '../../dist/runtime/request-window.js';
import { follower } from './support/scripted-follower.js';
import { SeamCluster, type SeamNode } from './support/seam-cluster.js';

const answer = { payload: pack(1), index: 2, term: 5 };
/** One of them is kept for reads. */
const config = { network: { maxRequests: 3 } };

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const refusal = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'it was not refused',
    (error: unknown) => error,
  );

describe('on a follower, writes beyond network.maxRequests', () => {
  it('are sent in the order in which they came, each when another one is answered', async () => {
    await using follower1 = await follower(config);
    const { node, peers } = follower1;
    const writes = [node.write(1), node.writeMany([2, 3, 4]), node.write(5)];
    for (let answered = 0; answered < 5; answered++) {
      await turns();
      expect(peers.requests).toHaveLength(Math.min(5, answered + 2));
      expect(node.status().pendingWrites).toBe(5 - answered);
      peers.requests[answered]!.answer(answer);
    }
    await Promise.all(writes);
    const sent = peers.requests.map(({ request: { payload } }) => payload);
    expect(sent).toEqual([1, 2, 3, 4, 5].map((command) => pack(command)));
    expect(node.status().pendingWrites).toBe(0);
  });

  it('keep no linearizable read waiting', async () => {
    await using follower1 = await follower(config);
    const { node, peers, request } = follower1;
    const writes = [1, 2, 3, 4].map((command) => node.write(command));
    await request(2);
    const read = node.read('sum');
    (await request(3)).answer({ index: 0, term: 5 });
    expect(await read).toBe(0);
    for (let nth = 0; nth < 5; nth++) (await request(nth + 1)).answer(answer);
    await Promise.all(writes);
    expect(peers.requests).toHaveLength(5);
  });

  it('are rejected when they give up before it is their turn, and hold up nobody', async () => {
    await using follower1 = await follower(config);
    const { node, peers, request } = follower1;
    const abort = new AbortController();
    const writes = [node.write(1), node.write(2)];
    const impatient = [
      refusal(node.write(3, { signal: abort.signal })),
      refusal(node.write(4, { timeoutMs: 20 })),
    ];
    writes.push(node.write(5));
    await request(2);
    abort.abort();
    const [aborted, late] = await Promise.all(impatient);
    expect(aborted).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected' });
    expect(late).toMatchObject({ code: 'KEELSON_TIMEOUT', outcome: 'rejected' });
    peers.requests[0]!.answer(answer);
    const third = await request(3);
    expect(third.request.payload).toEqual(pack(5));
    third.answer(answer);
    peers.requests[1]!.answer(answer);
    await Promise.all(writes);
  });

  it('give back the place that they were given in the same turn', async () => {
    const window = new RequestWindow({ maxRequests: 2, maxQueuedBytes: 1_000 });
    const abort = new AbortController();
    const scope = new CallScope(new SystemScheduler(), { signal: abort.signal }, 1_000);
    expect(window.enter(10, scope)).toBeUndefined();
    const given = refusal(window.enter(10, scope) as Promise<void>);
    window.leave(10);
    abort.abort();
    expect(await given).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected' });
    expect(window.enter(10, scope)).toBeUndefined();
  });

  it('wait for one that was given up until the network holds it no more', async () => {
    await using follower1 = await follower(config);
    const { node, peers, request } = follower1;
    const abort = new AbortController();
    const given = refusal(node.write(1, { signal: abort.signal }));
    const writes = [node.write(2), node.write(3)];
    await request(2);
    abort.abort();
    expect(await given).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'unknown' });
    await turns();
    expect(peers.requests).toHaveLength(2);
    peers.requests[0]!.answer(answer);
    (await request(3)).answer(answer);
    peers.requests[1]!.answer(answer);
    await Promise.all(writes);
  });

  it('wait by their bytes too (network.maxQueuedBytes)', async () => {
    const KIB = 1024;
    await using follower1 = await follower({
      network: { maxFrameBytes: 64 * KIB, maxQueuedBytes: 64 * KIB },
      limits: { maxEntryBytes: 32 * KIB },
      raft: { maxAppendBytes: 32 * KIB },
      snapshot: { chunkBytes: 32 * KIB },
    });
    const { node, peers, request } = follower1;
    const large = 'x'.repeat(31 * KIB) as unknown as number;
    const writes = [large, large, large, 4].map((command) => node.write(command));
    await request(2);
    await turns();
    expect(peers.requests).toHaveLength(2);
    peers.requests[1]!.answer(answer);
    await request(4);
    for (const sent of peers.requests) sent.answer(answer);
    await Promise.all(writes);
  });

  it('fail when the node is closed', async () => {
    await using follower1 = await follower(config);
    const { node, request } = follower1;
    const ends = [1, 2, 3, 4].map((command) => refusal(node.write(command)));
    await request(2);
    await node.close();
    for (const end of (await Promise.all(ends)).slice(2)) {
      expect(end).toMatchObject({ outcome: 'rejected' });
    }
  });
});

describe('a writeMany', () => {
  it.each([1, 2, 8])(
    'larger than a network.maxRequests of %i is taken whole by every node',
    async (maxRequests) => {
      await using cluster = await SeamCluster.start({ config: { network: { maxRequests } } });
      const leader = await cluster.leader();
      const [node] = cluster.followersOf(leader) as [SeamNode, SeamNode];
      await node.waitFor(({ leader }) => leader !== undefined);
      const commands = Array.from({ length: 100 }, () => 1);
      const results = [...(await leader.writeMany(commands)), ...(await node.writeMany(commands))];
      const sums = results.map(({ response }) => response);
      expect(sums).toEqual(Array.from({ length: 200 }, (_, at) => at + 1));
    },
  );
});
