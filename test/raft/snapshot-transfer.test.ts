import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { KeyValueMachine, keyValueModule } from '../../dist/index.js';
import { idOf, type LogLine, type Node, put, RealCluster, smallConfig } from './support.js';

const AWAY = 3;
const VALUE = 'v'.repeat(200);

let cluster: RealCluster;

afterEach(async () => {
  await cluster.close();
});

const lines = (event: string): LogLine[] =>
  cluster.lines.filter((line) => line.nodeId === AWAY && line.event === event);

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

async function fill(node: Node, from: number, count: number): Promise<number> {
  let index = 0;
  for (let key = from; key < from + count; key += 200) {
    const commands = Array.from({ length: 200 }, (_, i) =>
      put(`key ${key + i}`, VALUE + (key + i)),
    );
    index = (await node.writeMany(commands)).at(-1)!.logId.index;
  }
  return index;
}

/** Three nodes, of which node 3 is down, and the others have purged what it needs. */
async function leftBehind(machine: () => KeyValueMachine | URL, snapshot = {}): Promise<Node> {
  cluster = new RealCluster(machine, {
    ...smallConfig,
    snapshot: { everyEntries: 1_000, keepEntries: 0, keep: 1, chunkBytes: 16_384, ...snapshot },
  });
  await cluster.start(3);
  await fill(await cluster.leader(), 0, 400);
  await cluster.stop(AWAY);
  const leader = await cluster.leader();
  await fill(leader, 400, 4_000);
  await Promise.all(
    [...cluster.nodes.values()].map((node) =>
      node.waitFor(({ purgedIndex }) => purgedIndex > 2_000),
    ),
  );
  return leader;
}

async function expectAll(node: Node, count: number, index: number): Promise<void> {
  for (let key = 0; key < count; key += 97) {
    const found = await node.read(
      { op: 'get', key: `key ${key}` },
      { consistency: { atLeast: { index } } },
    );
    expect(new TextDecoder().decode((found as { value: Uint8Array }).value)).toBe(VALUE + key);
  }
}

it.each([
  ['an object on the main thread', () => new KeyValueMachine()],
  ['the URL of a module in a worker', () => keyValueModule],
] as const)(
  'a node whose machine is %s is brought up by a snapshot over TCP, and starts again from it',
  async (_, machine) => {
    await leftBehind(machine);
    const away = await cluster.open(AWAY);
    await until(() => lines('snapshot.installed').length > 0);
    const index = await fill(await cluster.leader(), 4_400, 200);
    await expectAll(away, 4_600, index);
    expect(away.status().purgedIndex).toBeGreaterThan(2_000);
    expect(lines('snapshot.refused')).toEqual([]);
    const folder = join(cluster.directory(AWAY), 'snapshots', 'group-0');
    expect(readdirSync(folder).filter((name) => name.startsWith('receive-'))).toEqual([]);

    await cluster.stop(AWAY);
    const again = await cluster.open(AWAY);
    expect(lines('snapshot.restored').length).toBeGreaterThan(0);
    await expectAll(again, 4_600, index);
  },
);

it('a node that stops in the middle is sent the snapshot again when it is back, and others serve meanwhile', async () => {
  const leader = await leftBehind(() => new KeyValueMachine(), {
    maxBytesPerSecond: 500_000,
    maxInflightBytes: 32_768,
  });
  await cluster.open(AWAY);
  await until(() => (leader.status().snapshotsSent[AWAY]?.bytes ?? 0) > 100_000);
  await fill(leader, 4_400, 200);
  expect(idOf(leader)).toBe(leader.status().leader);
  await cluster.stop(AWAY);
  const away = await cluster.open(AWAY);
  await until(() => lines('snapshot.installed').length > 0);
  const index = await fill(leader, 4_600, 200);
  await expectAll(away, 4_800, index);
});
