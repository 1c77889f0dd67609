import { expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { KeelsonError, type Raft } from '../../dist/index.js';
import { testCluster } from '../../dist/testing/index.js';
import { Counter } from './counter.js';

type Node = Raft<number, number, 'sum', number>;

const SEED = Number(process.env.KEELSON_TEST_SEED ?? Date.now() % 1_000_000);
const ROUNDS = 5;
const WRITES_PER_ROUND = 200;
/** Calls of a node that is cut off give up before the next election ends. */
const CALL_TIMEOUT_MS = 400;
const WAIT = { timeout: 10_000 };

/** A read that missed what had been acknowledged before it began. */
interface StaleRead {
  readonly nodeId: number;
  readonly acknowledged: number;
  readonly seen: number;
}

/** One writer and one reader on each node. Every command adds one, so a sum tells how many it holds. */
class Clients {
  /** The highest sum that any writer was answered. */
  acknowledged = 0;
  /** Reads of each node that were answered. */
  readonly answered: Map<number, number> = new Map();
  readonly stale: StaleRead[] = [];
  private stopping = false;
  private readonly running: Promise<void>[];

  constructor(nodes: readonly Node[]) {
    this.running = nodes.flatMap((node) => [
      this.repeat(() => this.write(node)),
      this.repeat(() => this.read(node)),
    ]);
  }

  answeredBy(nodeId: number): number {
    return this.answered.get(nodeId) ?? 0;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.all(this.running);
  }

  private async write(node: Node): Promise<void> {
    const { response } = await node.write(1);
    this.acknowledged = Math.max(this.acknowledged, response);
  }

  private async read(node: Node): Promise<void> {
    const { acknowledged } = this;
    const { nodeId } = node.status();
    const seen = await node.read('sum');
    this.answered.set(nodeId, this.answeredBy(nodeId) + 1);
    if (seen < acknowledged) this.stale.push({ nodeId, acknowledged, seen });
  }

  private async repeat(call: () => Promise<void>): Promise<void> {
    while (!this.stopping) {
      await call().catch((error: unknown) => {
        if (!(error instanceof KeelsonError)) throw error;
      });
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

it(`a linearizable read on any node sees all that was acknowledged anywhere before it began, whoever is cut off (seed ${SEED})`, async () => {
  const random = new SeededRandom(SEED);
  await using cluster = await testCluster({
    config: { limits: { callTimeoutMs: CALL_TIMEOUT_MS } },
    stateMachine: () => new Counter(),
  });
  await cluster.leader();
  const clients = new Clients(cluster.nodes);
  for (let round = 0; round < ROUNDS; round++) {
    const leader = await cluster.leader();
    const followers = cluster.nodes.filter((node) => node !== leader);
    const victim = random.integer(2) === 0 ? leader : followers[random.integer(2)]!;
    const { nodeId } = victim.status();
    const enough = clients.acknowledged + WRITES_PER_ROUND;
    cluster.partition([nodeId]);
    await expect.poll(() => clients.acknowledged, WAIT).toBeGreaterThan(enough);
    const before = clients.answeredBy(nodeId);
    cluster.heal();
    // Those of the node that has missed all this are the ones that count.
    await expect.poll(() => clients.answeredBy(nodeId), WAIT).toBeGreaterThan(before + 10);
  }
  await clients.stop();
  expect(clients.stale, `seed ${SEED}`).toEqual([]);
  expect([...clients.answered.keys()].sort()).toEqual([1, 2, 3]);
});
