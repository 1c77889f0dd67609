import { describe, expect, it } from 'vitest';
import type { HeartbeatRequest } from '../../dist/engine/messages.js';
import { ScriptedPeers } from './support/scripted-peers.js';
import { SeamCluster, type SeamNode, StoppableScheduler } from './support/seam-cluster.js';

interface Leader extends AsyncDisposable {
  readonly node: SeamNode;
  readonly peers: ScriptedPeers;
  /** The heartbeats to node 2 since the last call. */
  newHeartbeats(): HeartbeatRequest[];
}

/** Node 1 leads nodes 2 and 3, and time stands still: heartbeats are sent for reads alone. */
async function leader(): Promise<Leader> {
  const peers = new ScriptedPeers();
  const scheduler = new StoppableScheduler();
  const cluster = await SeamCluster.start({
    started: [1],
    scheduler,
    createNetwork: () => peers,
  });
  const node = cluster.node(1);
  await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 30_000 });
  scheduler.stop();
  let seen = peers.heartbeats(2).length;
  return {
    node,
    peers,
    newHeartbeats: () => {
      const fresh = peers.heartbeats(2).slice(seen);
      seen += fresh.length;
      return fresh;
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

/** Follows a read without waiting for it. */
function watch(read: Promise<number>): { answered: boolean } {
  const seen = { answered: false };
  read.then(() => {
    seen.answered = true;
  });
  return seen;
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe('linearizable reads on a leader', () => {
  it('that arrive while a round is under way share the next one', async () => {
    await using leading = await leader();
    const { node, peers, newHeartbeats } = leading;
    const first = watch(node.read('sum'));
    const [round, ...more] = newHeartbeats();
    expect(more).toEqual([]);
    const later = Array.from({ length: 20 }, () => watch(node.read('sum')));
    await turns();
    expect(newHeartbeats()).toEqual([]);

    peers.answerHeartbeat(2, round!);
    await turns();
    expect(first.answered).toBe(true);
    expect(later.filter(({ answered }) => answered)).toEqual([]);
    const [next, ...others] = newHeartbeats();
    expect(others).toEqual([]);
    expect(next!.round).toBe(round!.round + 1);

    peers.answerHeartbeat(3, next!);
    await turns();
    expect(later.filter(({ answered }) => !answered)).toEqual([]);
    expect(newHeartbeats()).toEqual([]);
  });

  it('are not confirmed by an answer to a round that began before them', async () => {
    await using leading = await leader();
    const { node, peers, newHeartbeats } = leading;
    const first = watch(node.read('sum'));
    const [round] = newHeartbeats();
    const second = watch(node.read('sum'));
    peers.answerHeartbeat(2, round!);
    await turns();
    expect(first.answered).toBe(true);
    // Node 3 is slow: it answers the first round only now, when the second has begun.
    peers.answerHeartbeat(3, round!);
    peers.answerHeartbeat(2, round!);
    await turns();
    expect(second.answered).toBe(false);
    const [next] = newHeartbeats();
    peers.answerHeartbeat(3, next!);
    await turns();
    expect(second.answered).toBe(true);
  });

  it('cost one heartbeat to each follower, however many ask in one turn', async () => {
    await using leading = await leader();
    const { node, peers, newHeartbeats } = leading;
    const reads = Array.from({ length: 100 }, () => node.read('sum'));
    const [first] = newHeartbeats();
    peers.answerHeartbeat(2, first!);
    const [second, ...more] = newHeartbeats();
    expect(more).toEqual([]);
    peers.answerHeartbeat(2, second!);
    expect(await Promise.all(reads)).toHaveLength(100);
    expect(newHeartbeats()).toEqual([]);
  });
});
