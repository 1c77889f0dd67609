/** One node, whose peers are the test: what it tells its application of what it hears from them. */
import { expect, it } from 'vitest';
import { encodeMembership } from '../../dist/runtime/membership-codec.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import { createBench, encodeBlocks } from '../wasm/support.js';
import { SeamCluster } from './support/seam-cluster.js';

const bench = createBench(64 * 1024);

/** Bytes of one entry at index 2. */
function entry(term: number, kind: number, payload: Uint8Array): Uint8Array {
  const spec = { group: 0, firstIndex: 2, term, kind, payloads: [payload] };
  const bytes = encodeBlocks(bench, bench.region, [spec]);
  return bench.heap.bytes.slice(bench.region, bench.region + bytes);
}

it('`leader` does not come for a vote that was given', async () => {
  await using cluster = await SeamCluster.start({ started: [1] });
  const node = cluster.node(1);
  const heard: unknown[] = [];
  node.on('leader', (leader) => heard.push(leader));
  cluster.handler(1).message(2, { type: 'HeartbeatResponse', term: 7, round: 0 });
  const lastLogId = { term: 6, index: 100 };
  cluster.handler(1).message(3, { type: 'VoteRequest', term: 7, lastLogId });
  cluster.handler(1).message(3, { type: 'HeartbeatRequest', term: 7, committed: 0, round: 1 });
  expect(node.status()).toMatchObject({ state: 'follower', term: 7, leader: 3 });
  expect(heard).toEqual([
    { nodeId: undefined, term: 7 },
    { nodeId: 3, term: 7 },
  ]);
});

it('`membership` comes when a membership is appended, and when it is overwritten', async () => {
  await using cluster = await SeamCluster.start({ started: [1] });
  const node = cluster.node(1);
  const { addresses } = node.status();
  const heard: unknown[] = [];
  const unheard: unknown[] = [];
  const listener = (membership: unknown): void => void unheard.push(membership);
  node.on('membership', (membership) => heard.push(membership));
  node.on('membership', listener).off('membership', listener);
  const append = (from: number, term: number, bytes: Uint8Array): void => {
    const request = { type: 'AppendRequest', session: term, committed: 0, lastIndex: 2 } as const;
    const prevLogId = { term: 1, index: 1 };
    cluster.handler(1).append(from, { ...request, term, prevLogId }, [bytes]);
  };

  const joint = {
    configs: [
      [1, 2, 3],
      [2, 3, 4],
    ],
    learners: [5],
    addresses: { ...addresses, 4: 'in-process:4', 5: 'in-process:5' },
  };
  append(2, 3, entry(3, ENTRY_KIND.membership, encodeMembership(joint)));
  expect(heard).toEqual([{ voters: [1, 2, 3, 4], learners: [5] }]);
  expect(node.status()).toMatchObject({ voters: [1, 2, 3, 4], learners: [5] });
  expect(node.status().addresses).toEqual(joint.addresses);

  append(3, 4, entry(4, ENTRY_KIND.blank, new Uint8Array(0)));
  expect(heard.slice(1)).toEqual([{ voters: [1, 2, 3], learners: [] }]);
  expect(node.status()).toMatchObject({ voters: [1, 2, 3], learners: [], addresses });
  expect(heard.every(Object.isFrozen)).toBe(true);
  expect(unheard).toEqual([]);
});
