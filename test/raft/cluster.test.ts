import { cpSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { KeyValueMachine, keyValueModule } from '../../dist/index.js';
import { get, idOf, type Node, put, RealCluster, refusal, withFreeAddress } from './support.js';

let cluster: RealCluster;
afterEach(() => cluster.close());

async function start(machine: () => KeyValueMachine | URL): Promise<Node> {
  cluster = new RealCluster(machine);
  await cluster.start();
  return cluster.leader();
}

const followerOf = (leader: Node): Node =>
  [...cluster.nodes.values()].find((node) => node !== leader) as Node;

describe.each([
  ['an object on the main thread', (): KeyValueMachine | URL => new KeyValueMachine()],
  ['a module in a worker', (): KeyValueMachine | URL => keyValueModule],
])('three nodes with %s', (_name, machine) => {
  it('write, read and forward, and keep it all through restarts of one and of all', async () => {
    const leader = await start(machine);
    const follower = followerOf(leader);
    await leader.write(put('a', 'one'));
    await follower.write(put('b', 'two'));
    expect(await get(follower, 'a')).toBe('one');
    expect(await get(leader, 'b')).toBe('two');

    const restarted = idOf(leader);
    await cluster.stop(restarted);
    const next = await cluster.leader();
    await next.write(put('c', 'three'));
    expect(await get(await cluster.open(restarted), 'c')).toBe('three');

    await Promise.all(Array.from({ length: 500 }, (_, i) => next.write(put(`k${i}`, `v${i}`))));
    await cluster.stopAll();
    await Promise.all([1, 2, 3].map((nodeId) => cluster.open(nodeId)));
    for (const node of cluster.nodes.values()) {
      expect(await get(node, 'b')).toBe('two');
      for (let i = 0; i < 500; i += 50) expect(await get(node, `k${i}`)).toBe(`v${i}`);
    }
  });
});

describe('a node', () => {
  const machine = (): KeyValueMachine => new KeyValueMachine();

  it('known bug 37: that lost its directory is refused, and accepted with its own again', async () => {
    const leader = await start(machine);
    await leader.write(put('a', 'one'));
    const wiped = idOf(followerOf(leader));
    await cluster.stop(wiped);
    const kept = join(cluster.root, 'kept');
    renameSync(cluster.directory(wiped), kept);

    const impostor = await cluster.open(wiped);
    const { failure } = await impostor.waitFor(({ state }) => state === 'stopped');
    expect(failure).toMatchObject({ code: 'KEELSON_HANDSHAKE_REFUSED' });
    expect(failure?.message).toContain('another incarnation');
    expect(impostor.status()).toMatchObject({ term: 1, lastLogIndex: 1 });
    const refusals = cluster.lines.filter(({ event }) => event === 'peer.refused');
    expect(refusals.some(({ nodeId }) => nodeId === wiped)).toBe(true);
    expect(refusals.some(({ nodeId }) => nodeId !== wiped)).toBe(true);
    expect(await refusal(impostor.write(put('x', 'y')))).toMatchObject({ outcome: 'rejected' });

    await cluster.stop(wiped);
    rmSync(cluster.directory(wiped), { recursive: true });
    renameSync(kept, cluster.directory(wiped));
    expect(await get(await cluster.open(wiped), 'a')).toBe('one');
  });

  it('refuses a directory that is in use, another node’s, or another cluster’s', async () => {
    const leader = await start(machine);
    await leader.write(put('a', 'one'));
    const id = idOf(leader);
    const other = idOf(followerOf(leader));
    const inUse = await refusal(cluster.open(id));
    expect(inUse.code).toBe('KEELSON_STORAGE_LOCKED');
    await cluster.stop(other);
    await cluster.stop(id);
    const dataDir = cluster.directory(id);
    const node = await refusal(cluster.open(other, { dataDir }));
    expect(node).toMatchObject({ code: 'KEELSON_STORAGE_MISMATCH', details: { field: 'nodeId' } });
    expect(node.message).toContain(dataDir);
    const name = await refusal(cluster.open(id, { clusterName: 'other' }));
    expect(name).toMatchObject({ details: { field: 'clusterName' } });
  });

  it('refuses a log whose manifest is missing', async () => {
    await start(machine);
    await cluster.stop(1);
    const copy = join(cluster.root, 'copy');
    cpSync(cluster.directory(1), copy, { recursive: true });
    rmSync(join(copy, 'manifest'));
    const error = await refusal(cluster.open(1, { dataDir: copy }));
    expect(error.code).toBe('KEELSON_STORAGE_CORRUPT');
    expect(error.message).toContain('manifest');
  });

  it('refuses a directory that has lost its log, and would vote again', async () => {
    await start(machine);
    await cluster.stop(1);
    rmSync(join(cluster.directory(1), 'wal'), { recursive: true });
    const error = await refusal(cluster.open(1));
    expect(error.code).toBe('KEELSON_STORAGE_CORRUPT');
    expect(error.message).toContain('has lost its log');
  });

  it('uses the membership in its log when other voters are configured, and warns', async () => {
    await start(machine);
    await cluster.stop(1);
    const { bootstrap } = cluster.options(1);
    const voters = { ...bootstrap.voters, 4: '127.0.0.1:1' };
    const node = await cluster.open(1, { bootstrap: { voters } });
    expect(node.status().voters).toEqual([1, 2, 3]);
    expect(cluster.lines.some(({ event }) => event === 'bootstrap.ignored')).toBe(true);
  });

  it('that has moved is found where it advertises itself', async () => {
    const leader = await start(machine);
    const moved = idOf(followerOf(leader));
    await cluster.stop(moved);
    const { node, place } = await withFreeAddress(async (address) => {
      const opened = await cluster.open(moved, { listen: address, advertise: address });
      return { node: opened, place: address };
    });
    const { logId } = await leader.write(put('a', 'one'));
    await node.waitFor(({ appliedIndex }) => appliedIndex >= logId.index);
    expect(node.address).toBe(place);
  });

  it('feeds no entry twice to a machine that is durable itself', async () => {
    const leader = await start(machine);
    const { logId } = await leader.write(put('a', 'one'));
    const follower = followerOf(leader);
    const id = idOf(follower);
    // A write is answered without the slower follower; what it has not applied it cannot have kept.
    await follower.waitFor(({ appliedIndex }) => appliedIndex >= logId.index);
    await cluster.stop(id);
    const given: number[] = [];
    class Durable extends KeyValueMachine {
      open(): number {
        return logId.index;
      }
      override apply(entries: Parameters<KeyValueMachine['apply']>[0]) {
        for (const entry of entries) given.push(entry.logId.index);
        return super.apply(entries);
      }
    }
    const node = await cluster.open(id, { stateMachine: new Durable() });
    // What it has applied in an earlier life is there at once, without a leader.
    expect(node.status().appliedIndex).toBeGreaterThanOrEqual(logId.index);
    const next = await leader.write(put('b', 'two'));
    await node.waitFor(({ appliedIndex }) => appliedIndex >= next.logId.index);
    expect(given).toEqual([next.logId.index]);

    await cluster.stop(id);
    class Ahead extends KeyValueMachine {
      open(): number {
        return 1_000_000;
      }
    }
    const ahead = await refusal(cluster.open(id, { stateMachine: new Ahead() }));
    expect(ahead.code).toBe('KEELSON_STORAGE_CORRUPT');
  });
});
