/** Nodes that are opened on a damaged log with `storage.recovery` `repair`: read here, and nothing else. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type ConfigInput, KeyValueMachine } from '../../dist/index.js';
import type { VersionedValue } from '../../dist/state-machine/key-value.js';
import { type Node, put, RealCluster, refusal, smallConfig } from './support.js';

const MANUAL = { everyEntries: 0, everyBytes: 0, keepEntries: 0 };
const CONFIG: ConfigInput = { ...smallConfig, snapshot: MANUAL };
const REPAIR = {
  config: { ...CONFIG, storage: { ...smallConfig.storage, recovery: 'repair' } },
} as const;

const refused = expect.objectContaining({
  code: 'KEELSON_STORAGE_CORRUPT',
  outcome: 'rejected',
  message: expect.stringContaining('takes nothing until it is repaired'),
});

let cluster: RealCluster;

beforeEach(() => {
  cluster = new RealCluster(() => new KeyValueMachine(), CONFIG);
});
afterEach(() => cluster.close());

const logged = (event: string): Readonly<Record<string, unknown>>[] =>
  cluster.lines.filter((line) => line.event === event).map(({ fields }) => fields);

async function local(node: Node, key: string): Promise<string | undefined> {
  const found = await node.read({ op: 'get', key }, { consistency: 'local' });
  return found === undefined
    ? undefined
    : new TextDecoder().decode((found as VersionedValue).value);
}

/** Overwrites what the log holds of a value, wherever it stands. */
function damage(nodeId: number, value: string): void {
  const folder = join(cluster.directory(nodeId), 'wal');
  let places = 0;
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(join(folder, name));
    for (let at = bytes.indexOf(value); at >= 0; at = bytes.indexOf(value, at + 1)) {
      bytes.fill(0, at, at + value.length);
      places++;
    }
    writeFileSync(join(folder, name), bytes);
  }
  expect(places).toBeGreaterThan(0);
}

/** Names and bytes of all files of a directory. */
function contentOf(nodeId: number): string[] {
  const directory = cluster.directory(nodeId);
  const names = readdirSync(directory, { recursive: true }) as string[];
  const files = names.filter((name) => statSync(join(directory, name)).isFile());
  return files.sort().map((name) => `${name} ${readFileSync(join(directory, name), 'latin1')}`);
}

/** Writes each value by itself, so that each is a batch; returns the index of each. */
async function write(node: Node, ...values: string[]): Promise<number[]> {
  const indexes: number[] = [];
  for (const value of values) {
    const { logId } = await node.write(put(`key of ${value}`, value));
    indexes.push(logId.index);
  }
  return indexes;
}

it('reads locally what stands before the loss, and refuses all else', async () => {
  await cluster.start(1);
  const leader = await cluster.leader();
  const [known, firstIndex, lastIndex] = await write(leader, 'first', 'second', 'third', 'fourth');
  await cluster.stop(1);
  // Its batch told that the second one was committed.
  damage(1, 'third');
  const before = contentOf(1);
  expect(await refusal(cluster.open(1))).toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });

  const node = await cluster.open(1, REPAIR);
  await node.waitFor((status) => status.appliedIndex === known);
  expect(await local(node, 'key of first')).toBe('first');
  expect(await local(node, 'key of fourth')).toBeUndefined();
  const status = node.status();
  const { damage: found } = status;
  expect(status).toMatchObject({ state: 'damaged', leader: undefined, failure: undefined });
  expect(found).toMatchObject({ group: 0, voteInDoubt: false, error: refused });
  expect(found?.ranges).toEqual([{ firstIndex, lastIndex }]);
  expect([Object.isFrozen(found), Object.isFrozen(found?.ranges)]).toEqual([true, true]);
  expect(logged('storage.damaged')).toMatchObject([{ file: expect.any(String) }]);
  expect(logged('storage.read-only')).toHaveLength(1);

  const command = put('key of fifth', 'fifth');
  const call = { timeoutMs: 60_000 };
  expect(await refusal(node.write(command))).toEqual(refused);
  expect(await refusal(node.write(command, call))).toEqual(refused);
  expect(await refusal(node.writeMany([command]))).toEqual(refused);
  expect(await refusal(node.read({ op: 'get', key: 'key of first' }))).toEqual(refused);
  expect(await refusal(node.readBarrier(call))).toEqual(refused);
  expect(await refusal(node.snapshot())).toEqual(refused);
  expect(await refusal(node.writable(call))).toEqual(refused);

  await cluster.stop(1);
  expect(contentOf(1)).toEqual(before);
  expect(await refusal(cluster.open(1))).toMatchObject({ code: 'KEELSON_STORAGE_CORRUPT' });
});

it('reads the state of a snapshot that holds what the log has lost, and the log behind it', async () => {
  await cluster.start(1);
  const node = await cluster.leader();
  await write(node, 'first', 'second', 'third');
  const { logId } = await node.snapshot();
  await write(node, 'fourth');
  await cluster.stop(1);
  damage(1, 'second');
  const again = await cluster.open(1, REPAIR);
  await again.waitFor((status) => status.appliedIndex > logId.index);
  expect(again.status()).toMatchObject({ state: 'damaged', snapshotIndex: logId.index });
  for (const value of ['first', 'second', 'third', 'fourth']) {
    expect(await local(again, `key of ${value}`)).toBe(value);
  }
});

it('is away for its peers, which go on without it', async () => {
  await cluster.start(3);
  const leader = await cluster.leader();
  const away = leader.status().nodeId === 1 ? 2 : 1;
  const known: number[] = [];
  for (const value of ['first', 'second', 'third', 'fourth', 'fifth']) {
    const [index = 0] = await write(leader, value);
    known.push(index);
    // Each is a batch of that node, too, which tells that the one before was committed.
    await cluster.nodes.get(away)!.waitFor((status) => status.appliedIndex >= index);
  }
  await cluster.stop(away);
  damage(away, 'fourth');
  const node = await cluster.open(away, REPAIR);
  expect(node.address).toBe('');
  await write(leader, 'sixth');
  await node.waitFor((status) => status.appliedIndex >= known[0]!);
  expect(await local(node, 'key of first')).toBe('first');
  expect(await local(node, 'key of sixth')).toBeUndefined();
  expect(node.status()).toMatchObject({ state: 'damaged', leader: undefined });
});

it('a log that is whole is opened as ever', async () => {
  await cluster.start(1);
  await write(await cluster.leader(), 'first');
  await cluster.stop(1);
  const node = await cluster.open(1, REPAIR);
  await write(node, 'second');
  expect(node.status()).toMatchObject({ state: 'leader', damage: undefined });
  expect(await local(node, 'key of first')).toBe('first');
});
