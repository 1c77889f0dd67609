import { unpack } from 'msgpackr';
import { afterEach, expect, it, vi } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { KeelsonError, type Raft } from '../../dist/index.js';
import type { StagedEntries } from '../../dist/storage/log-store.js';
import { MemoryLogStore } from '../../dist/storage/memory-log-store.js';
import { testCluster } from '../../dist/testing/index.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import { Counter } from './counter.js';

const SEED = Number(process.env.KEELSON_TEST_SEED ?? Date.now() % 1_000_000);
const CLIENTS = 24;
const WRITES_PER_ROUND = 200;
/** Half of the calls give up before the next election ends, the others see what it does to them. */
const SHORT_TIMEOUT_MS = 400;
const CALL_TIMEOUT_MS = 3_000;
/** One round each, in an order that the seed decides. */
const FAULTS = [
  { fault: 'partition', victim: 'leader' },
  { fault: 'partition', victim: 'leader' },
  { fault: 'partition', victim: 'follower' },
  { fault: 'crash', victim: 'leader' },
  { fault: 'crash', victim: 'leader' },
  { fault: 'crash', victim: 'follower' },
] as const;

interface Acknowledged {
  readonly command: number;
  readonly index: number;
  /** Positions in the order of all beginnings and ends. */
  readonly began: number;
  readonly ended: number;
}

/** What clients were told. Each command is a number of its own. */
class History {
  readonly acknowledged: Acknowledged[] = [];
  readonly rejected = new Set<number>();
  private readonly random: SeededRandom;
  private clock = 0;
  private lastCommand = 0;

  constructor(random: SeededRandom) {
    this.random = random;
  }

  /** One write on the node, or a writeMany. */
  async write(node: Raft<number, number, 'sum', number>): Promise<void> {
    const { random } = this;
    const count = random.integer(4) === 0 ? 2 : 1;
    const commands = Array.from({ length: count }, () => ++this.lastCommand);
    const options = random.integer(2) === 0 ? undefined : { timeoutMs: SHORT_TIMEOUT_MS };
    const began = ++this.clock;
    try {
      const results =
        count > 1
          ? await node.writeMany(commands, options)
          : [await node.write(commands[0]!, options)];
      const ended = ++this.clock;
      for (const [at, { logId }] of results.entries()) {
        this.acknowledged.push({ command: commands[at]!, index: logId.index, began, ended });
      }
    } catch (error) {
      if (!(error instanceof KeelsonError)) throw error;
      if (error.outcome === 'unknown') return;
      for (const command of commands) this.rejected.add(command);
    }
  }

  /** Whoever began after another had ended stands behind it. */
  expectOrderOfTime(context: string): void {
    const byEnd = [...this.acknowledged].sort((a, b) => a.ended - b.ended);
    const byBegin = [...this.acknowledged].sort((a, b) => a.began - b.began);
    let highestEnded = 0;
    let next = 0;
    for (const { began, index } of byBegin) {
      while (next < byEnd.length && byEnd[next]!.ended < began) {
        highestEnded = Math.max(highestEnded, byEnd[next++]!.index);
      }
      expect(index, `${context}: order of time`).toBeGreaterThan(highestEnded);
    }
  }
}

function shuffled<T>(values: readonly T[], random: SeededRandom): T[] {
  const left = [...values];
  return values.map(() => left.splice(random.integer(left.length), 1)[0]!);
}

/** The commands of all client writes that any leader appends to its log, from now on. */
function watchLogs(): Set<number> {
  const appended = new Set<number>();
  const commands = new WeakMap<StagedEntries, number[]>();
  const { stage, append } = MemoryLogStore.prototype;
  const log = MemoryLogStore.prototype;
  vi.spyOn(log, 'stage').mockImplementation(function (this: MemoryLogStore, group, entries) {
    const staged = stage.call(this, group, entries);
    if (entries.kind === ENTRY_KIND.application) {
      const payloads = entries.payloads.slice(0, entries.count);
      commands.set(
        staged,
        payloads.map((payload) => unpack(payload) as number),
      );
    }
    return staged;
  });
  vi.spyOn(log, 'append').mockImplementation(function (this: MemoryLogStore, group, staged, ...at) {
    for (const command of commands.get(staged) ?? []) appended.add(command);
    append.call(this, group, staged, ...at);
  });
  return appended;
}

afterEach(() => {
  vi.restoreAllMocks();
});

it(`acknowledged writes are there once, in an order that agrees with time, and rejected ones never, whatever fails (seed ${SEED})`, async () => {
  const context = `seed ${SEED}`;
  const random = new SeededRandom(SEED);
  const appended = watchLogs();
  const machines = new Map<number, Counter>();
  /** Those of crashed nodes too. */
  const everyMachine: Counter[] = [];
  await using cluster = await testCluster({
    config: { limits: { callTimeoutMs: CALL_TIMEOUT_MS } },
    stateMachine: (nodeId) => {
      const machine = new Counter();
      machines.set(nodeId, machine);
      everyMachine.push(machine);
      return machine;
    },
  });
  await cluster.leader();
  const history = new History(random);
  const { acknowledged, rejected } = history;
  let stopping = false;
  /** Keeps to its node while that is up. */
  const client = async (home: number): Promise<void> => {
    while (!stopping) {
      const { nodes } = cluster;
      await history.write(nodes.find((node) => node.status().nodeId === home) ?? nodes[0]!);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const clients = Array.from({ length: CLIENTS }, (_, i) => client(1 + (i % 3)));
  for (const { fault, victim } of shuffled(FAULTS, random)) {
    const enough = acknowledged.length + WRITES_PER_ROUND;
    const leader = await cluster.leader();
    const followers = cluster.nodes.filter((node) => node !== leader);
    const node = victim === 'leader' ? leader : followers[random.integer(followers.length)]!;
    const { nodeId } = node.status();
    if (fault === 'partition') cluster.partition([nodeId]);
    else await cluster.crash(nodeId);
    // The rest goes on, or elects first.
    await expect.poll(() => acknowledged.length, { timeout: 10_000 }).toBeGreaterThan(enough);
    cluster.heal();
    await cluster.start();
  }
  stopping = true;
  await Promise.all(clients);
  const leader = await cluster.leader();
  const { logId } = await leader.write(0);
  await cluster.waitForApplied(logId.index);

  for (const { applied } of machines.values()) {
    const indexOf = new Map(applied.map(({ command, index }) => [command, index]));
    expect(indexOf.size, `${context}: nothing is applied twice`).toBe(applied.length);
    const wrong = acknowledged.filter(({ command, index }) => indexOf.get(command) !== index);
    expect(wrong, `${context}: acknowledged and not there`).toEqual([]);
  }
  for (const { applied } of everyMachine) {
    const wrong = applied.filter(({ command }) => rejected.has(command));
    expect(wrong, `${context}: rejected and applied`).toEqual([]);
  }
  const wrong = [...rejected].filter((command) => appended.has(command));
  expect(wrong, `${context}: rejected and in a log`).toEqual([]);
  history.expectOrderOfTime(context);
});
