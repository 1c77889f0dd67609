import { expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import type { Status } from '../../dist/index.js';
import { MainThreadHost } from '../../dist/state-machine/main-thread-host.js';
import { MemoryLogImage, MemoryLogStore } from '../../dist/storage/memory-log-store.js';
import { Counter } from '../testing/counter.js';
import { createBench, encodeBlocks } from '../wasm/support.js';
import { around, idOf, SeamCluster, type SeamNode } from './support/seam-cluster.js';

/** What a node asks of its parts, and what they tell it while they are held. */
class Parts {
  readonly asked: string[] = [];
  readonly flushes: (() => void)[] = [];
  readonly applies: (() => void)[] = [];
  fail: (error: KeelsonError) => void = () => {};
  makeRoom: () => void = () => {};
  holdsFlushes = false;
  holdsApplies = false;
  private waiting: (() => void) | undefined;

  asks<T extends object>(part: T, ...methods: (keyof T & string)[]): T {
    const noted = methods.map((name) => {
      const method = (part[name] as (...given: unknown[]) => unknown).bind(part);
      return [
        name,
        (...given: unknown[]) => {
          this.asked.push(name);
          return method(...given);
        },
      ];
    });
    return around(part, Object.fromEntries(noted) as Partial<T>);
  }

  tell(held: boolean, queue: (() => void)[], event: () => void): void {
    if (held) queue.push(event);
    else event();
    this.waiting?.();
  }

  async until(queue: readonly unknown[]): Promise<void> {
    while (queue.length === 0) await new Promise<void>((resolve) => (this.waiting = resolve));
  }
}

function happen(queue: (() => void)[]): void {
  for (const event of queue.splice(0)) event();
}

async function start(): Promise<{ cluster: SeamCluster; leader: SeamNode; parts: Parts }> {
  const all = new Map([1, 2, 3].map((nodeId) => [nodeId, new Parts()]));
  const of = (nodeId: number): Parts => all.get(nodeId) as Parts;
  const cluster = await SeamCluster.start({
    openStore: async (nodeId, { events, ...rest }, config) => {
      const parts = of(nodeId);
      parts.fail = (error) => events.failed(error);
      parts.makeRoom = () => events.writable();
      const store = new MemoryLogStore({
        ...rest,
        ...config.storage,
        image: new MemoryLogImage(),
        events: around(events, {
          flushed: (group, io) =>
            parts.tell(parts.holdsFlushes, parts.flushes, () => events.flushed(group, io)),
        }),
      });
      return parts.asks(
        store,
        'append',
        'saveVote',
        'truncateAfter',
        'advanceIo',
        'recordCommitted',
      );
    },
    createMachine: (nodeId, events, scheduler, config) => {
      const parts = of(nodeId);
      const told = around(events, {
        applied: (first, last, responses) =>
          parts.tell(parts.holdsApplies, parts.applies, () =>
            events.applied(first, last, responses),
          ),
      });
      const options = { group: 0, events: told, scheduler, limits: config.stateMachine };
      return parts.asks(new MainThreadHost(new Counter(), options), 'apply');
    },
    createNetwork: (nodeId, inner) => of(nodeId).asks(inner, 'send', 'sendAppend'),
  });
  const leader = await cluster.leader();
  return { cluster, leader, parts: of(idOf(leader)) };
}

it.each([
  ['has been closed', (leader: SeamNode) => leader.close()],
  [
    'has failed',
    async (leader: SeamNode, parts: Parts) => {
      parts.fail(new KeelsonError('KEELSON_STORAGE_FAILED', 'the disk is gone'));
      await leader.waitFor(({ state }) => state === 'stopped');
    },
  ],
])('known bug 8: a node that %s decides nothing on what it hears later', async (_how, end) => {
  const { cluster, leader, parts } = await start();
  await using _cluster = cluster;
  parts.holdsApplies = true;
  const applied = leader.write(1).catch((error: unknown) => error);
  await parts.until(parts.applies);
  parts.holdsFlushes = true;
  const flushed = leader.write(2).catch((error: unknown) => error);
  await parts.until(parts.flushes);

  await end(leader, parts);
  for (const write of [applied, flushed]) expect(await write).toMatchObject({ outcome: 'unknown' });
  const before = leader.status();
  // The end itself is told.
  await new Promise((resolve) => setImmediate(resolve));
  const told: Status[] = [];
  leader.on('status', (status) => told.push(status));
  parts.asked.length = 0;

  const handler = cluster.handler(idOf(leader));
  const [peer] = cluster.followersOf(leader).map(idOf) as [number];
  const term = before.term + 5;
  const lastLogId = { term, index: 1_000 };
  const bench = createBench(64 * 1024);
  const firstIndex = before.lastLogIndex + 1;
  const entry = { group: 0, firstIndex, term, payloads: [new Uint8Array([1])] };
  const bytes = encodeBlocks(bench, bench.region, [entry]);
  const late: Readonly<Record<string, () => void>> = {
    flushed: () => happen(parts.flushes),
    applied: () => happen(parts.applies),
    'room in the log': () => parts.makeRoom(),
    'a heartbeat': () =>
      handler.message(peer, { type: 'HeartbeatRequest', term, committed: 0, round: 1 }),
    'a request for its vote': () => handler.message(peer, { type: 'VoteRequest', term, lastLogId }),
    entries: () => {
      const prevLogId = { term: before.term, index: before.lastLogIndex };
      const sizes = { lastIndex: firstIndex, committed: firstIndex, session: 1 };
      const region = bench.heap.bytes.slice(bench.region, bench.region + bytes);
      handler.append(peer, { type: 'AppendRequest', term, prevLogId, ...sizes }, [region]);
    },
    'a connection': () => handler.connected(peer),
    'a lost connection': () => handler.disconnected(peer),
    'room for appends': () => handler.writable(peer),
  };
  for (const [what, happens] of Object.entries(late)) {
    happens();
    expect(leader.status(), what).toEqual(before);
    expect(parts.asked, what).toEqual([]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(told, what).toEqual([]);
  }
});
