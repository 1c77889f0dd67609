import { expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { testCluster } from '../../dist/testing/index.js';
import { Counter } from './counter.js';

const SEED = Number(process.env.KEELSON_TEST_SEED ?? Date.now() % 1_000_000);
const ROUNDS = 5;
const CLIENTS = 6;

interface Acknowledged {
  readonly id: number;
  readonly index: number;
  /** Positions in the order of all beginnings and ends. */
  readonly began: number;
  readonly ended: number;
}

it(`acknowledged writes are there once, in an order that agrees with time, whatever fails (seed ${SEED})`, async () => {
  const random = new SeededRandom(SEED);
  const machines = new Map<number, Counter>();
  await using cluster = await testCluster({
    stateMachine: (nodeId) => {
      const machine = new Counter();
      machines.set(nodeId, machine);
      return machine;
    },
  });
  await cluster.leader();
  const acknowledged: Acknowledged[] = [];
  let clock = 0;
  let lastId = 0;
  let stopping = false;
  const client = async (): Promise<void> => {
    while (!stopping) {
      const { nodes } = cluster;
      const node = nodes[random.integer(nodes.length)];
      const id = ++lastId;
      const began = ++clock;
      const result = await node?.write(id, { timeoutMs: 400 }).catch(() => undefined);
      if (result !== undefined) {
        acknowledged.push({ id, index: result.logId.index, began, ended: ++clock });
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const clients = Array.from({ length: CLIENTS }, client);
  for (let round = 0; round < ROUNDS; round++) {
    const victim = 1 + random.integer(3);
    const before = acknowledged.length;
    if (random.integer(2) === 0) cluster.partition([victim]);
    else await cluster.crash(victim);
    // The rest goes on, or elects first.
    await expect.poll(() => acknowledged.length, { timeout: 10_000 }).toBeGreaterThan(before + 50);
    cluster.heal();
    await cluster.start();
  }
  stopping = true;
  await Promise.all(clients);
  const leader = await cluster.leader();
  const { logId } = await leader.write(++lastId);
  await cluster.waitForApplied(logId.index);
  const context = `seed ${SEED}`;
  for (const { applied } of machines.values()) {
    const indexOf = new Map(applied.map(({ command, index }) => [command, index]));
    expect(indexOf.size, `${context}: nothing is applied twice`).toBe(applied.length);
    const wrong = acknowledged.filter(({ id, index }) => indexOf.get(id) !== index);
    expect(wrong, `${context}: acknowledged and not there`).toEqual([]);
  }
  // Whoever began after another had ended stands behind it.
  const byEnd = [...acknowledged].sort((a, b) => a.ended - b.ended);
  const byBegin = [...acknowledged].sort((a, b) => a.began - b.began);
  let highestEnded = 0;
  let next = 0;
  for (const { began, index } of byBegin) {
    while (next < byEnd.length && (byEnd[next] as Acknowledged).ended < began) {
      highestEnded = Math.max(highestEnded, (byEnd[next++] as Acknowledged).index);
    }
    expect(index, `${context}: order of time`).toBeGreaterThan(highestEnded);
  }
  expect(acknowledged.length).toBeGreaterThan(ROUNDS * 50);
});
