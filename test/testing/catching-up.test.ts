import { describe, expect, it } from 'vitest';
import type { LogFields, Logger } from '../../dist/base/logger.js';
import type { ConfigInput } from '../../dist/config/types.js';
import type { Entry, KeelsonError, Raft, StateMachine } from '../../dist/index.js';
import { type TestCluster, testCluster } from '../../dist/testing/index.js';

/** Every command in the order in which it was applied: a lost one, or one applied twice, is seen. */
class Register implements StateMachine<number, number, 'all', readonly number[]> {
  readonly concurrentSnapshot = true;
  private values: number[] = [];

  apply(entries: readonly Entry<number>[]): number[] {
    return entries.map(({ command }) => this.values.push(command));
  }

  query(): readonly number[] {
    return [...this.values];
  }

  *snapshot(): Generator<Uint8Array, void> {
    const bytes = new Uint8Array(Float64Array.from(this.values).buffer);
    yield bytes.subarray(0, 0);
    for (let at = 0; at < bytes.length; at += 1024) yield bytes.subarray(at, at + 1024);
  }

  async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    this.values = [...new Float64Array(Uint8Array.from(Buffer.concat(parts)).buffer)];
  }
}

type Node = Raft<number, number, 'all', readonly number[]>;

const AWAY = 3;
const SNAPSHOTS = { everyEntries: 500, keepEntries: 0, keep: 1, chunkBytes: 4096 };
/** Some 40 KiB of state take a while at this rate. */
const SLOW = { maxBytesPerSecond: 100_000, maxInflightBytes: 8192 };

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

function leaderOf(nodes: readonly Node[]): Promise<Node> {
  return Promise.any(
    nodes.map(async (node) => {
      await node.waitFor(({ readyToLead }) => readyToLead);
      return node;
    }),
  );
}

/** 5,000 writes. */
async function fill(leader: Node): Promise<void> {
  for (let from = 0; from < 5_000; from += 500) {
    await leader.writeMany(Array.from({ length: 500 }, (_, at) => from + at));
  }
}

/** Writers that go on until they are stopped, and end with how many writes were acknowledged. */
function load(cluster: TestCluster<number, number, 'all', readonly number[]>): {
  stop(): Promise<number>;
} {
  let stopped = false;
  let acknowledged = 0;
  const writers = Array.from({ length: 8 }, async (_, writer) => {
    for (let at = 0; !stopped; at++) {
      await cluster
        .node(2)
        .write(1_000_000 * (writer + 1) + at)
        .then(
          () => acknowledged++,
          () => new Promise((resolve) => setImmediate(resolve)),
        );
    }
  });
  return {
    stop: async () => {
      stopped = true;
      await Promise.all(writers);
      return acknowledged;
    },
  };
}

class Scene implements AsyncDisposable {
  readonly events: LogFields[] = [];
  onEvent: (fields: LogFields) => void = () => {};
  cluster!: TestCluster<number, number, 'all', readonly number[]>;

  static async start(snapshot: ConfigInput['snapshot'] = {}): Promise<Scene> {
    const scene = new Scene();
    scene.cluster = await testCluster({
      stateMachine: () => new Register(),
      logger: scene.logger(),
      config: { snapshot: { ...SNAPSHOTS, ...snapshot } },
    });
    return scene;
  }

  /** Three nodes; node 3 was away while the others purged what it needs. */
  static async leftBehind(snapshot: ConfigInput['snapshot'] = {}): Promise<Scene> {
    const scene = await Scene.start(snapshot);
    await scene.cluster.leader();
    scene.cluster.partition([AWAY]);
    const leader = await scene.leader();
    const last = scene.away.status().lastLogIndex;
    await fill(leader);
    await Promise.all(
      scene.others.map((node) => node.waitFor(({ purgedIndex }) => purgedIndex > last + 1_000)),
    );
    return scene;
  }

  get away(): Node {
    return this.cluster.node(AWAY);
  }

  get others(): Node[] {
    return this.cluster.nodes.filter((node) => node.status().nodeId !== AWAY);
  }

  /** The one that leads nodes 1 and 2. */
  leader(): Promise<Node> {
    return leaderOf(this.others);
  }

  logged(event: string): LogFields[] {
    return this.events.filter((fields) => fields.event === event);
  }

  /** Node 3 has all that the others have, and they agree in every value. */
  async expectSameStates(): Promise<void> {
    const leader = await this.cluster.leader();
    const { logId } = await leader.write(-1);
    await this.cluster.waitForApplied(logId.index);
    const [first, ...rest] = await Promise.all(
      this.cluster.nodes.map((node) => node.read('all', { consistency: 'local' })),
    );
    expect(rest.length).toBe(2);
    for (const values of rest) expect(values).toEqual(first);
    expect(new Set(first).size).toBe(first!.length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster.close();
  }

  private logger(): Logger {
    const note = (fields: LogFields): void => {
      this.events.push(fields);
      this.onEvent(fields);
    };
    return { debug: note, info: note, warn: note, error: note };
  }
}

describe('a follower that needs purged entries', () => {
  it('catches up by a snapshot and goes on by the log, under load; what it has applied never shrinks', async () => {
    await using scene = await Scene.leftBehind();
    const applied: number[] = [];
    scene.away.on('status', ({ appliedIndex }) => applied.push(appliedIndex));
    const writers = load(scene.cluster);
    scene.cluster.heal();
    await scene.away.waitFor(({ snapshotIndex }) => snapshotIndex > 0);
    await until(() => scene.logged('snapshot.sent').length > 0);
    await scene.away.waitFor(({ appliedIndex, snapshotIndex }) => appliedIndex > snapshotIndex);
    expect(await writers.stop()).toBeGreaterThan(0);
    await scene.expectSameStates();
    expect(scene.logged('snapshot.installed').length).toBeGreaterThan(0);
    expect(applied).toEqual([...applied].sort((a, b) => a - b));
    expect(scene.away.status().snapshotReceived).toBeUndefined();
  });

  it('answers a read that waited for an entry when the snapshot with that entry is installed', async () => {
    await using scene = await Scene.leftBehind();
    const leader = await scene.leader();
    const { appliedIndex } = leader.status();
    const waiting = scene.away.read('all', { consistency: { atLeast: { index: appliedIndex } } });
    scene.cluster.heal();
    expect((await waiting).length).toBeGreaterThanOrEqual(5_000);
  });

  it('shows how far a transfer is, on both sides', async () => {
    await using scene = await Scene.leftBehind(SLOW);
    const leader = await scene.leader();
    scene.cluster.heal();
    await until(() => (leader.status().snapshotsSent[AWAY]?.bytes ?? 0) > 0);
    const sent = leader.status().snapshotsSent[AWAY]!;
    const received = scene.away.status().snapshotReceived!;
    expect(received).toMatchObject({ from: leader.status().nodeId, totalBytes: sent.totalBytes });
    expect(sent.index).toBe(leader.status().snapshotIndex);
    expect(received.bytes).toBeLessThanOrEqual(sent.totalBytes);
    await scene.expectSameStates();
    expect(leader.status().snapshotsSent).toEqual({});
  });
});

describe('a transfer that is cut', () => {
  it('goes on where it ended when the partition is over', async () => {
    await using scene = await Scene.leftBehind(SLOW);
    const leader = await scene.leader();
    scene.cluster.heal();
    await until(() => (leader.status().snapshotsSent[AWAY]?.bytes ?? 0) > 8192);
    scene.cluster.partition([AWAY]);
    await until(() => Object.keys(leader.status().snapshotsSent).length === 0);
    const { bytes } = scene.away.status().snapshotReceived!;
    scene.cluster.heal();
    await until(() => (leader.status().snapshotsSent[AWAY]?.bytes ?? 0) > 0);
    expect(leader.status().snapshotsSent[AWAY]!.bytes).toBeGreaterThanOrEqual(bytes);
    await scene.expectSameStates();
  });

  it('by a change of the leader is begun by the new one', async () => {
    await using scene = await Scene.leftBehind(SLOW);
    const leader = await scene.leader();
    const { nodeId } = leader.status();
    scene.cluster.heal();
    await until(() => (leader.status().snapshotsSent[AWAY]?.bytes ?? 0) > 8192);
    await scene.cluster.crash(nodeId);
    await scene.away.waitFor(({ appliedIndex, snapshotIndex }) =>
      Boolean(snapshotIndex > 0 && appliedIndex >= snapshotIndex),
    );
    await scene.cluster.restart(nodeId);
    await scene.expectSameStates();
    const senders = new Set(scene.logged('snapshot.receiving').map(({ from }) => from));
    expect(senders).toEqual(new Set([1, 2]));
  });

  it.each(['snapshot.receiving', 'snapshot.received', 'snapshot.installed'])(
    'known bug 36: a follower that loses power at %s is stranded',
    async (event) => {
      await using scene = await Scene.leftBehind();
      let crashed: Promise<void> | undefined;
      scene.onEvent = (fields) => {
        if (fields.event === event) crashed ??= scene.cluster.crash(AWAY);
      };
      scene.cluster.heal();
      await until(() => crashed !== undefined);
      await crashed;
      await scene.cluster.restart(AWAY);
      await scene.expectSameStates();
    },
  );
});

it('known bug 47: the log that a running transfer needs is purged while snapshots follow one another', async () => {
  await using scene = await Scene.leftBehind({ ...SLOW, maxBytesPerSecond: 20_000 });
  const leader = await scene.leader();
  scene.cluster.heal();
  await until(() => (leader.status().snapshotsSent[AWAY]?.bytes ?? 0) > 0);
  const { index } = leader.status().snapshotsSent[AWAY]!;
  for (let round = 0; round < 3; round++) {
    await leader.writeMany(Array.from({ length: 600 }, (_, at) => 10_000 + round * 600 + at));
    await leader.snapshot();
  }
  expect(leader.status().snapshotIndex).toBeGreaterThan(index + 1_000);
  expect(leader.status().snapshotsSent[AWAY]).toMatchObject({ index });
  expect(leader.status().purgedIndex).toBeLessThanOrEqual(index);
  await scene.expectSameStates();
  expect(scene.logged('snapshot.sending')).toHaveLength(1);
});

it('known bug 17: a snapshot meets the entries of a deposed leader at its index; their writers never know', async () => {
  await using scene = await Scene.start();
  const deposed = await scene.cluster.leader();
  const { nodeId, lastLogIndex } = deposed.status();
  const others = scene.cluster.nodes.filter((node) => node !== deposed);
  scene.cluster.partition([nodeId]);
  const lost = Array.from({ length: 20 }, (_, at) =>
    deposed.write(500_000 + at, { timeoutMs: 60_000 }).then(
      () => 'acknowledged',
      (error: KeelsonError) => error.outcome,
    ),
  );
  await until(() => deposed.status().lastLogIndex >= lastLogIndex + 20);
  const leader = await leaderOf(others);
  await fill(leader);
  await Promise.all(others.map((node) => node.waitFor(({ purgedIndex }) => purgedIndex > 1_000)));
  scene.cluster.heal();
  expect(new Set(await Promise.all(lost))).toEqual(new Set(['unknown']));
  await scene.expectSameStates();
  expect(scene.logged('snapshot.installed').length).toBeGreaterThan(0);
  const values = await leader.read('all');
  expect(values.filter((value) => value >= 500_000)).toEqual([]);
});
