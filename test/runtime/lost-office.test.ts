import { describe, expect, it } from 'vitest';
import { around, idOf, SeamCluster, type SeamNode } from './support/seam-cluster.js';

/** The leader hears of a later term, before it has appended what was proposed in this turn. */
function depose(cluster: SeamCluster, leader: SeamNode): void {
  const [peer] = cluster.followersOf(leader).map(idOf);
  const term = leader.status().term + 1;
  cluster
    .handler(idOf(leader))
    .message(peer as number, { type: 'HeartbeatResponse', term, round: 0 });
  expect(leader.status().state).toBe('follower');
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** How often each machine has applied the command. */
async function timesApplied(cluster: SeamCluster, command: number): Promise<number[]> {
  const { logId } = await cluster.nodes[0]!.write(0);
  await Promise.all(
    cluster.nodes.map((node) => node.waitFor(({ appliedIndex }) => appliedIndex >= logId.index)),
  );
  return [...cluster.machines.values()].map(
    ({ applied }) => applied.filter((entry) => entry.command === command).length,
  );
}

describe('in the turn in which a leader loses its office', () => {
  it.each([
    ['a write', (leader: SeamNode) => leader.write(5)],
    ['a write with a time limit', (leader: SeamNode) => leader.write(5, { timeoutMs: 20_000 })],
    [
      'a write with a signal',
      (leader: SeamNode) => leader.write(5, { signal: new AbortController().signal }),
    ],
    ['a writeMany', async (leader: SeamNode) => (await leader.writeMany([5]))[0]!],
  ])('%s goes to the next leader and is applied once', async (_name, write) => {
    await using cluster = await SeamCluster.start();
    const leader = await cluster.leader();
    const { term } = leader.status();
    const written = write(leader);
    depose(cluster, leader);
    const { logId, response } = await written;
    expect(logId.term).toBeGreaterThan(term);
    expect(response).toBe(5);
    expect(await timesApplied(cluster, 5)).toEqual([1, 1, 1]);
  });

  it('many writes keep their order', async () => {
    await using cluster = await SeamCluster.start();
    const leader = await cluster.leader();
    const writes = [1, 2, 3, 4, 5].map((command) => leader.write(command));
    depose(cluster, leader);
    const results = await Promise.all(writes);
    expect(results.map(({ response }) => response)).toEqual([1, 3, 6, 10, 15]);
  });

  it('all that it had taken goes on, though it is as much as it may hold, and nothing more is taken', async () => {
    await using cluster = await SeamCluster.start({ config: { limits: { maxPendingWrites: 8 } } });
    const leader = await cluster.leader();
    const overloaded = { code: 'KEELSON_OVERLOADED', outcome: 'rejected' };
    const refused = (): Promise<unknown> => leader.write(9).catch((error: unknown) => error);
    const writes: Promise<unknown>[] = [leader.write(1), leader.write(2), leader.write(3)];
    writes.push(leader.writeMany([4, 5, 6, 7]), leader.write(8, { timeoutMs: 20_000 }));
    const before = refused();
    depose(cluster, leader);
    expect(await before).toMatchObject(overloaded);
    expect(await refused()).toMatchObject(overloaded);
    expect(leader.status().pendingWrites).toBe(8);
    const results = await Promise.all(writes);
    expect(results.flat()).toHaveLength(8);
    expect(leader.status().pendingWrites).toBe(0);
    for (const command of [1, 4, 8])
      expect(await timesApplied(cluster, command)).toEqual([1, 1, 1]);
    expect(await refused()).toMatchObject({ response: expect.any(Number) });
  });

  it('a write with a signal still heeds it', async () => {
    await using cluster = await SeamCluster.start();
    const leader = await cluster.leader();
    cluster.hub.partition(cluster.nodes.map((node) => [idOf(node)]));
    const first = leader.write(1).catch((error: unknown) => error);
    await leader.waitFor(({ pendingWrites }) => pendingWrites === 1);
    await turn();
    // With others under way, this one is not appended before the end of the turn.
    const abort = new AbortController();
    const written = leader.write(2, { signal: abort.signal }).catch((error: unknown) => error);
    for (let step = 0; step < 20; step++) await Promise.resolve();
    const { lastLogIndex } = leader.status();
    depose(cluster, leader);
    await turn();
    expect(leader.status()).toMatchObject({ lastLogIndex, pendingWrites: 2 });
    abort.abort();
    // It stands in no log.
    expect(await written).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected' });
    expect(leader.status().pendingWrites).toBe(1);
    cluster.hub.heal();
    await first;
    expect(await timesApplied(cluster, 2)).toEqual([0, 0, 0]);
  });

  it('a write that a follower had sent is refused, and sent by it to the next leader', async () => {
    let forwarded: (() => void) | undefined;
    await using cluster = await SeamCluster.start({
      createNetwork: (_nodeId, inner) =>
        around(inner, {
          start: (handler) =>
            inner.start(
              around(handler, {
                request: (from, request) => {
                  const answer = handler.request(from, request);
                  forwarded?.();
                  return answer;
                },
              }),
            ),
        }),
    });
    const leader = await cluster.leader();
    const follower = cluster.followersOf(leader)[0]!;
    await follower.waitFor((status) => status.leader === idOf(leader));
    const { term } = leader.status();
    forwarded = () => {
      forwarded = undefined;
      depose(cluster, leader);
    };
    const { logId } = await follower.write(5);
    expect(logId.term).toBeGreaterThan(term);
    expect(await timesApplied(cluster, 5)).toEqual([1, 1, 1]);
  });

  it('a write is rejected for want of a leader only when its time is up', async () => {
    const callTimeoutMs = 300;
    await using cluster = await SeamCluster.start({ config: { limits: { callTimeoutMs } } });
    const leader = await cluster.leader();
    const written = leader.write(5).catch((error: unknown) => error);
    depose(cluster, leader);
    cluster.hub.partition(cluster.nodes.map((node) => [idOf(node)]));
    const before = cluster.scheduler.now();
    expect(await written).toMatchObject({ code: 'KEELSON_NO_LEADER', outcome: 'rejected' });
    expect(cluster.scheduler.now() - before).toBeGreaterThan(callTimeoutMs / 2);
  });
});
