/** One real node that follows, and a leader that is the test. */
import { expect } from 'vitest';
import type { SystemScheduler } from '../../../dist/base/system-scheduler.js';
import { ScriptedPeers, type SentRequest } from './scripted-peers.js';
import { SeamCluster, type SeamNode } from './seam-cluster.js';

export interface Follower extends AsyncDisposable {
  readonly node: SeamNode;
  readonly peers: ScriptedPeers;
  readonly cluster: SeamCluster;
  /** Resolves with the nth request that the node sends, from 1; its leader lives meanwhile. */
  request(nth: number): Promise<SentRequest>;
}

/** Node 1, which follows node 2. */
export async function follower(config = {}, scheduler?: SystemScheduler): Promise<Follower> {
  const peers = new ScriptedPeers();
  const cluster = await SeamCluster.start({
    started: [1],
    config,
    createNetwork: () => peers,
    ...(scheduler && { scheduler }),
  });
  const node = cluster.node(1);
  peers.lead(2, 5);
  await node.waitFor(({ leader }) => leader === 2);
  return {
    node,
    peers,
    cluster,
    request: async (nth) => {
      await expect
        .poll(
          () => {
            peers.beat();
            return peers.requests.length;
          },
          { interval: 5, timeout: 20_000 },
        )
        .toBeGreaterThanOrEqual(nth);
      return peers.requests[nth - 1]!;
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}
