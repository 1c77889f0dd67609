import { afterEach, expect, it } from 'vitest';
import { KeyValueMachine } from '../../dist/index.js';
import { get, idOf, put, RealCluster, refusal, smallConfig } from './support.js';

const MIB = 1024 * 1024;
const config = { ...smallConfig, storage: { ...smallConfig.storage, maxIndexBytes: MIB } };
const full = expect.objectContaining({ code: 'KEELSON_STORAGE_FULL', outcome: 'rejected' });
let cluster: RealCluster;
afterEach(() => cluster.close());

const batch = (from: number) =>
  Array.from({ length: 2000 }, (_, at) => put(`key-${from + at}`, 'v'));

it('refuses writes to a full log on every node, serves all else, and starts again as it is', async () => {
  cluster = new RealCluster(() => new KeyValueMachine(), config);
  await cluster.start();
  let leader = await cluster.leader();
  let written = 0;
  let refused: unknown;
  while (refused === undefined) {
    await leader.writeMany(batch(written)).then(
      (results) => {
        written += results.length;
      },
      (error: unknown) => {
        refused = error;
      },
    );
  }
  expect(refused).toEqual(full);
  expect(written).toBeGreaterThan(20_000);

  // Whoever waits for room does not wake up to be refused again.
  const waited = refusal(leader.writable({ timeoutMs: 300 }));
  expect(await waited).toMatchObject({ code: 'KEELSON_TIMEOUT' });
  const follower = [...cluster.nodes.values()].find((node) => node !== leader)!;
  expect(await refusal(leader.writeMany(batch(0)))).toEqual(full);
  expect(await get(follower, `key-${written - 1}`)).toBe('v');
  for (const node of cluster.nodes.values()) expect(node.status().failure).toBeUndefined();

  // The next leader opens its term in the full log.
  await cluster.stop(idOf(leader));
  leader = await cluster.leader();
  expect(await refusal(leader.writeMany(batch(0)))).toEqual(full);
  expect(await get(leader, `key-${written - 1}`)).toBe('v');

  await cluster.stopAll();
  await Promise.all([1, 2, 3].map((nodeId) => cluster.open(nodeId)));
  leader = await cluster.leader();
  expect(await get(leader, 'key-0')).toBe('v');
  expect(await get(leader, `key-${written - 1}`)).toBe('v');
  expect(await refusal(leader.writeMany(batch(0)))).toEqual(full);
  for (const node of cluster.nodes.values()) expect(node.status().failure).toBeUndefined();
});
