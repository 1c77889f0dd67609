import { afterEach, expect, it } from 'vitest';
import { type CounterCluster, machines, startCounters } from './counter.js';

let cluster: CounterCluster;

afterEach(async () => {
  await cluster.close();
});

it('a node that has crashed starts again from its snapshot, which it made durable', async () => {
  const snapshot = { everyEntries: 0, everyBytes: 0, keep: 1, keepEntries: 0 };
  cluster = await startCounters(3, { snapshot });
  const leader = await cluster.leader();
  await leader.writeMany(Array.from({ length: 50 }, () => 1));
  const { nodeId } = leader.status();
  const { logId } = await leader.snapshot();
  expect(leader.status().purgedIndex).toBe(logId.index);
  await leader.write(1);
  await cluster.crash(nodeId);
  const again = await cluster.restart(nodeId);
  expect(again.status().snapshotIndex).toBe(logId.index);
  await again.waitFor(({ appliedIndex }) => appliedIndex > logId.index);
  expect(await again.read('sum')).toBe(51);
  expect(machines.get(nodeId)?.applied[0]?.index).toBe(logId.index + 1);
});
