import { afterEach, expect, it } from 'vitest';
import type { KeelsonError, LeaderTask } from '../../dist/index.js';
import { type CounterCluster, machines, type Node, startCounters } from './counter.js';

let cluster: CounterCluster;

async function start(): Promise<Node> {
  cluster = await startCounters();
  return cluster.leader();
}

afterEach(() => cluster.close());

const idOf = (node: Node): number => node.status().nodeId;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A task that remembers its runs. */
function remembered() {
  const runs: { readonly term: number; readonly signal: AbortSignal }[] = [];
  const task: LeaderTask = (run) => {
    runs.push(run);
  };
  return { runs, task };
}

it('a task gets the term, and its signal fires when it is taken back', async () => {
  const leader = await start();
  const { runs, task } = remembered();
  const end = leader.whileLeader(task);
  await turn();
  expect(runs.map(({ term }) => term)).toEqual([leader.status().term]);
  expect(runs[0]?.signal.aborted).toBe(false);
  end();
  expect(runs[0]?.signal.aborted).toBe(true);
});

it.each([
  ['is taken back', (_leader: Node, end: () => void) => end()],
  ['loses its node', (leader: Node) => leader.close()],
])('a task that %s in the turn in which it was given does not begin', async (_how, take) => {
  const leader = await start();
  const { runs, task } = remembered();
  await take(leader, leader.whileLeader(task));
  await turn();
  expect(runs).toEqual([]);
});

it('a task that was taken back is not run by the next leader, one that was not is', async () => {
  const leader = await start();
  const { runs, task } = remembered();
  const { runs: kept, task: other } = remembered();
  for (const node of cluster.nodes) {
    if (node === leader) continue;
    const end = node.whileLeader(task);
    node.whileLeader(other);
    end();
    end();
  }
  await cluster.crash(idOf(leader));
  const next = await cluster.leader();
  await next.write(1);
  expect(kept.map(({ term }) => term)).toEqual([next.status().term]);
  expect(runs).toEqual([]);
});

it('the same task given twice runs twice, and each run ends by itself', async () => {
  const leader = await start();
  const { runs, task } = remembered();
  const ends = [leader.whileLeader(task), leader.whileLeader(task)];
  await turn();
  expect(runs).toHaveLength(2);
  ends[0]?.();
  expect(runs.map(({ signal }) => signal.aborted).sort()).toEqual([false, true]);
  ends[1]?.();
  expect(runs.every(({ signal }) => signal.aborted)).toBe(true);
});

it.each([
  ['is closed', (leader: Node) => leader.close()],
  [
    'stops',
    async (leader: Node) => {
      machines.get(idOf(leader))!.apply = () => {
        throw new Error('a bug of the application');
      };
      await expect(leader.write(1)).rejects.toMatchObject({ outcome: 'unknown' });
      await leader.waitFor(({ state }) => state === 'stopped');
    },
  ],
])('a task ends when its node %s', async (_how, end) => {
  const leader = await start();
  const { runs, task } = remembered();
  leader.whileLeader(task);
  await turn();
  await end(leader);
  expect(runs.map(({ signal }) => signal.aborted)).toEqual([true]);
});

it.each([
  [
    'throws',
    () => {
      throw new Error('no lease');
    },
  ],
  ['rejects', () => Promise.reject(new Error('no lease'))],
])('a task that %s is told by the event `error`, and its node leads on', async (_how, task) => {
  const leader = await start();
  const told = new Promise<KeelsonError>((resolve) => leader.on('error', resolve));
  const { runs, task: other } = remembered();
  leader.whileLeader(task);
  leader.whileLeader(other);
  const error = await told;
  expect(error.code).toBe('KEELSON_LEADER_TASK_FAILED');
  expect(error.message).toContain('no lease');
  expect(error.cause).toEqual(new Error('no lease'));
  expect((await leader.write(5)).response).toBe(5);
  expect(runs.map(({ signal }) => signal.aborted)).toEqual([false]);
});
