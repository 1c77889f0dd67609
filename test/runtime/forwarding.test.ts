import { pack } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/index.js';
import { follower } from './support/scripted-follower.js';
import { idOf, SeamCluster, type SeamNode } from './support/seam-cluster.js';

const refused = { code: 'KEELSON_NOT_LEADER', message: 'no', outcome: 'rejected' } as const;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('a write on a follower', () => {
  it('goes to the leader with the time that is left, and is answered with what comes back', async () => {
    await using follower1 = await follower();
    const { node, request } = follower1;
    const written = node.write(7, { timeoutMs: 5_000 });
    const sent = await request(1);
    expect(sent.target).toBe(2);
    expect(sent.request).toMatchObject({ kind: 'write', payload: pack(7) });
    expect(sent.request.timeoutMs).toBeLessThanOrEqual(5_000);
    expect(sent.request.timeoutMs).toBeGreaterThan(0);
    sent.answer({ payload: pack(70), index: 12, term: 5 });
    expect(await written).toEqual({ response: 70, logId: { term: 5, index: 12 } });
  });

  it('that was refused before it was appended is sent again, to whoever leads then, with less time', async () => {
    await using follower1 = await follower();
    const { node, peers, request } = follower1;
    const written = node.write(7, { timeoutMs: 5_000 });
    const first = await request(1);
    peers.lead(3, 6);
    first.answer({ error: refused });
    const second = await request(2);
    expect(second.target).toBe(3);
    expect(second.request.timeoutMs).toBeLessThan(first.request.timeoutMs);
    second.fail(new KeelsonError('KEELSON_NO_LEADER', 'not connected'));
    const third = await request(3);
    expect(third.request.timeoutMs).toBeLessThan(second.request.timeoutMs);
    third.answer({ payload: pack(70), index: 12, term: 6 });
    expect((await written).response).toBe(70);
    expect(peers.requests).toHaveLength(3);
  });

  it.each([
    ['the connection', new KeelsonError('KEELSON_NO_LEADER', 'lost', { outcome: 'unknown' })],
    ['its time', new KeelsonError('KEELSON_TIMEOUT', 'no answer', { outcome: 'unknown' })],
    ['the network', new KeelsonError('KEELSON_CLOSED', 'closed', { outcome: 'unknown' })],
  ])('that loses %s once it was sent is never sent again', async (_what, error) => {
    await using follower1 = await follower();
    const { node, peers, request } = follower1;
    const written = node.write(7).catch((reason: unknown) => reason);
    const sent = await request(1);
    sent.fail(error);
    expect(await written).toBe(error);
    peers.lead(3, 6);
    await node.waitFor(({ leader }) => leader === 3);
    const next = node.write(8);
    (await request(2)).answer({ payload: pack(80), index: 13, term: 6 });
    await next;
    expect(peers.requests.map(({ request: { payload } }) => payload)).toEqual([pack(7), pack(8)]);
  });

  it.each([
    ['KEELSON_LEADERSHIP_LOST', 'unknown'],
    ['KEELSON_OVERLOADED', 'rejected'],
    ['KEELSON_ENTRY_TOO_LARGE', 'rejected'],
  ] as const)('that its leader answers with %s fails with that', async (code, outcome) => {
    await using follower1 = await follower();
    const { node, peers, request } = follower1;
    const written = node.write(7).catch((reason: unknown) => reason);
    (await request(1)).answer({ error: { code, message: 'why', outcome } });
    expect(await written).toMatchObject({ code, outcome, message: 'why' });
    expect(peers.requests).toHaveLength(1);
  });

  it('whose signal fires after it was sent has an unknown outcome', async () => {
    await using follower1 = await follower();
    const { node, request } = follower1;
    const abort = new AbortController();
    const written = node.write(7, { signal: abort.signal }).catch((reason: unknown) => reason);
    await request(1);
    abort.abort();
    expect(await written).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'unknown' });
  });
});

describe('a write on a follower whose link is down for a moment', () => {
  it('is executed once, however far it has come', async () => {
    await using cluster = await SeamCluster.start();
    const leader = await cluster.leader();
    const [node] = cluster.followersOf(leader) as [SeamNode, SeamNode];
    await node.waitFor(({ leader }) => leader !== undefined);
    let acknowledged = 0;
    // Each write adds to a decimal place of its own, which tells how often it was executed.
    for (let turns = 0; turns < 6; turns++) {
      const written = node.write(10 ** turns).then(
        () => acknowledged++,
        (error: unknown) => expect(error).toMatchObject({ outcome: 'unknown' }),
      );
      for (let i = 0; i < turns; i++) await Promise.resolve();
      cluster.hub.disconnect(idOf(node));
      cluster.hub.heal();
      await written;
    }
    await leader.write(0);
    expect(String(await leader.read('sum'))).toMatch(/^[01]+$/);
    expect(acknowledged).toBeGreaterThan(0);
  });
});

describe('a writeMany on a follower', () => {
  const overloaded = { code: 'KEELSON_OVERLOADED', message: 'full', outcome: 'rejected' } as const;

  it('sends each command on its own, and is answered with all that comes back', async () => {
    await using follower1 = await follower();
    const { node, peers, request } = follower1;
    const written = node.writeMany([7, 8]);
    await request(2);
    for (const [at, sent] of peers.requests.entries()) {
      sent.answer({ payload: pack(at), index: 12 + at, term: 5 });
    }
    expect(await written).toEqual([
      { response: 0, logId: { term: 5, index: 12 } },
      { response: 1, logId: { term: 5, index: 13 } },
    ]);
  });

  it('has an unknown outcome when a part of it took effect, and is rejected when none did', async () => {
    await using follower1 = await follower();
    const { node, request } = follower1;
    const partial = node.writeMany([7, 8]).catch((reason: unknown) => reason);
    (await request(1)).answer({ payload: pack(1), index: 12, term: 5 });
    (await request(2)).answer({ error: overloaded });
    expect(await partial).toMatchObject({ code: 'KEELSON_OVERLOADED', outcome: 'unknown' });
    const none = node.writeMany([7, 8]).catch((reason: unknown) => reason);
    (await request(3)).answer({ error: overloaded });
    (await request(4)).answer({ error: overloaded });
    expect(await none).toMatchObject({ code: 'KEELSON_OVERLOADED', outcome: 'rejected' });
  });
});

describe('a request that was forwarded to a node', () => {
  it.each(['write', 'readIndex'] as const)('goes no further: %s', async (kind) => {
    await using follower1 = await follower();
    const { peers, cluster } = follower1;
    const request = { kind, payload: pack(7), timeoutMs: 1_000 };
    const { error } = await cluster.handler(1).request(3, request);
    expect(error).toMatchObject({
      code: 'KEELSON_NOT_LEADER',
      outcome: 'rejected',
      leader: { nodeId: 2, address: 'in-process:2' },
    });
    await turn();
    expect(peers.requests).toEqual([]);
  });

  it.each(['write', 'readIndex'] as const)(
    'is told that its time is up when none was left for it: %s',
    async (kind) => {
      await using cluster = await SeamCluster.start({ voters: [1] });
      const leader = await cluster.leader();
      const request = { kind, payload: pack(7), timeoutMs: 0 };
      const { error } = await cluster.handler(1).request(3, request);
      expect(error).toMatchObject({ code: 'KEELSON_TIMEOUT', outcome: 'rejected' });
      expect(await leader.read('sum')).toBe(0);
    },
  );

  it.each(['write', 'readIndex'] as const)(
    'finds no leader in one that was closed: %s',
    async (kind) => {
      await using cluster = await SeamCluster.start({ voters: [1] });
      const leader = await cluster.leader();
      await leader.close();
      const request = { kind, payload: pack(7), timeoutMs: 1_000 };
      const { error } = await cluster.handler(1).request(3, request);
      expect(error).toMatchObject({ code: 'KEELSON_NOT_LEADER', outcome: 'rejected' });
    },
  );
});

describe('a linearizable read on a follower', () => {
  it('shares a request with those that arrive while another one is under way', async () => {
    await using follower1 = await follower();
    const { node, peers, request } = follower1;
    const first = node.read('sum');
    const sent = await request(1);
    const later = [node.read('sum'), node.readBarrier(), node.read('sum')];
    await turn();
    expect(peers.requests).toHaveLength(1);
    sent.answer({ index: 0, term: 5 });
    expect(await first).toBe(0);
    // What was asked before they began says nothing about them.
    (await request(2)).answer({ index: 0, term: 5 });
    await Promise.all(later);
    expect(peers.requests).toHaveLength(2);
  });

  it('is asked of the new leader at once, however long the old one hangs', async () => {
    await using follower1 = await follower();
    const { node, peers, request } = follower1;
    const reads = [node.read('sum')];
    await request(1);
    reads.push(node.read('sum'));
    peers.lead(3, 6);
    const again = await request(2);
    expect(again.target).toBe(3);
    again.answer({ index: 0, term: 6 });
    (await request(3)).answer({ index: 0, term: 6 });
    expect(await Promise.all(reads)).toEqual([0, 0]);
    // The old leader's answer comes too late to count.
    peers.requests[0]!.answer({ index: 1_000, term: 5 });
    const after = node.read('sum');
    (await request(4)).answer({ index: 0, term: 6 });
    expect(await after).toBe(0);
  });

  it('is asked again when the connection is lost: it changes nothing', async () => {
    await using follower1 = await follower();
    const { node, request } = follower1;
    const read = node.read('sum');
    const lost = new KeelsonError('KEELSON_NO_LEADER', 'lost', { outcome: 'unknown' });
    (await request(1)).fail(lost);
    (await request(2)).answer({ index: 0, term: 5 });
    expect(await read).toBe(0);
  });

  it('waits for one answer no longer than an election takes, and is then asked again', async () => {
    await using follower1 = await follower({ raft: { electionTimeoutMs: 1_500 } });
    const { node, request } = follower1;
    const read = node.read('sum', { timeoutMs: 9_000 });
    const sent = await request(1);
    expect(sent.request.timeoutMs).toBeLessThanOrEqual(1_500);
    sent.fail(new KeelsonError('KEELSON_TIMEOUT', 'no answer', { outcome: 'unknown' }));
    (await request(2)).answer({ index: 0, term: 5 });
    expect(await read).toBe(0);
  });

  it('is asked for again after a pause, however short the time of calls is', async () => {
    await using follower1 = await follower({ limits: { callTimeoutMs: 1 } });
    const { node, peers, cluster } = follower1;
    let asked = 0;
    const { request } = peers;
    peers.request = (target, question) => {
      // Ends what would hold this thread for ever, and the test with it.
      if (++asked > 1_000) return request.call(peers, target, question);
      return Promise.reject(new KeelsonError('KEELSON_NO_LEADER', 'not connected'));
    };
    const startMs = cluster.scheduler.now();
    const read = node.read('sum', { timeoutMs: 300 }).catch((reason: unknown) => reason);
    expect(await read).toMatchObject({ outcome: 'rejected' });
    const tookMs = cluster.scheduler.now() - startMs;
    // Each pause is of 20 ms at least; one question more when a batch ends.
    expect(asked).toBeGreaterThan(1);
    expect(asked).toBeLessThanOrEqual(tookMs / 20 + 2);
  });

  it('that nobody answers is rejected when its own time is up, and the others wait on', async () => {
    await using follower1 = await follower({ limits: { callTimeoutMs: 50 } });
    const { node, request } = follower1;
    const patient = node.read('sum', { timeoutMs: 20_000 });
    const hasty = node.read('sum', { timeoutMs: 100 }).catch((reason: unknown) => reason);
    expect(await hasty).toMatchObject({ code: 'KEELSON_TIMEOUT', outcome: 'rejected' });
    // The question that the hasty one waited for is asked all the same, and the next one counts.
    for (const nth of [2, 3]) (await request(nth)).answer({ index: 0, term: 5 });
    expect(await patient).toBe(0);
  });
});
