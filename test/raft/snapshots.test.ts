import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KeyValueMachine, keyValueModule } from '../../dist/index.js';
import { get, type Node, put, RealCluster, refusal, smallConfig } from './support.js';

const MANUAL = { everyEntries: 0, everyBytes: 0, keepEntries: 0 };

let cluster: RealCluster;

async function start(machine: () => KeyValueMachine | URL, snapshot = {}): Promise<Node> {
  cluster = new RealCluster(machine, { ...smallConfig, snapshot: { ...MANUAL, ...snapshot } });
  await cluster.start(1);
  return cluster.leader();
}

async function restart(): Promise<Node> {
  await cluster.stop(1);
  await cluster.open(1);
  return cluster.leader();
}

/** Writes keys `from … from + count - 1`, each with its number. */
async function fill(node: Node, from: number, count: number): Promise<void> {
  for (let key = from; key < from + count; key += 100) {
    await node.writeMany(
      Array.from({ length: Math.min(100, from + count - key) }, (_, i) =>
        put(`key ${key + i}`, String(key + i)),
      ),
    );
  }
}

async function expectFilled(node: Node, count: number): Promise<void> {
  for (let key = 0; key < count; key += 37) {
    expect(await get(node, `key ${key}`)).toBe(String(key));
  }
}

const folder = (): string => join(cluster.directory(1), 'snapshots', 'group-0');

/** Paths of the snapshots, newest first. */
const files = (): string[] =>
  readdirSync(folder())
    .filter((name) => name.endsWith('.snap'))
    .sort()
    .reverse()
    .map((name) => join(folder(), name));

function damage(file: string): void {
  const bytes = readFileSync(file);
  const place = bytes.length >> 1;
  bytes[place] = bytes[place]! ^ 1;
  writeFileSync(file, bytes);
}

const logged = (event: string): Readonly<Record<string, unknown>>[] =>
  cluster.lines.filter((line) => line.event === event).map(({ fields }) => fields);

afterEach(async () => {
  await cluster.close();
});

describe.each([
  ['an object on the main thread', () => new KeyValueMachine()],
  ['the URL of a module in a worker', () => keyValueModule],
] as const)('a node whose machine is %s', (_, machine) => {
  it('starts again from its newest snapshot and the log behind it', async () => {
    const node = await start(machine);
    await fill(node, 0, 3_000);
    const snapshot = await node.snapshot();
    await fill(node, 3_000, 500);
    const again = await restart();
    expect(again.status().snapshotIndex).toBe(snapshot.logId.index);
    expect(logged('snapshot.restored')).toMatchObject([{ index: snapshot.logId.index }]);
    await expectFilled(again, 3_500);
  });

  it('builds a whole snapshot when the one before was given up as it began', async () => {
    const node = await start(machine, { keep: 1 });
    await fill(node, 0, 2_000);
    const abort = new AbortController();
    const given = refusal(node.snapshot({ signal: abort.signal }));
    abort.abort();
    expect((await given).code).toBe('KEELSON_ABORTED');
    const { logId } = await node.snapshot();
    const again = await restart();
    expect(again.status().snapshotIndex).toBe(logId.index);
    await expectFilled(again, 2_000);
  });

  it('takes snapshots while it is written to, and loses nothing', async () => {
    const node = await start(machine, { everyEntries: 1_000, keep: 1 });
    await fill(node, 0, 6_000);
    await node.waitFor(({ purgedIndex }) => purgedIndex >= 4_000);
    const again = await restart();
    await expectFilled(again, 6_000);
  });
});

describe('a damaged snapshot', () => {
  let node: Node;

  beforeEach(async () => {
    node = await start(() => new KeyValueMachine(), { keep: 2 });
    await fill(node, 0, 1_000);
    await node.snapshot();
    await fill(node, 1_000, 1_000);
    await node.snapshot();
    await fill(node, 2_000, 100);
    expect(node.status().purgedIndex).toBeGreaterThan(1_000);
  });

  it('is passed over for the one before it, and the log behind that', async () => {
    const [newest, older] = files();
    damage(newest!);
    const again = await restart();
    expect(logged('snapshot.damaged')).toMatchObject([{ file: newest }]);
    expect(logged('snapshot.restored')).toHaveLength(1);
    expect(older).toContain(String(again.status().snapshotIndex));
    await expectFilled(again, 2_100);
  });

  it('ends the start with an error that names it when there is no other', async () => {
    for (const file of files()) damage(file);
    await cluster.stop(1);
    const error = await refusal(cluster.open(1));
    expect(error.code).toBe('KEELSON_STORAGE_CORRUPT');
    for (const file of files()) expect(error.message).toContain(file);
    for (const file of files()) expect(statSync(file).size).toBeGreaterThan(0);
  });
});

describe('a snapshot that ends before the log begins', () => {
  it('is no help when the later ones are damaged', async () => {
    const node = await start(() => new KeyValueMachine(), { keep: 1 });
    await fill(node, 0, 100);
    await node.snapshot();
    const [early] = files();
    const bytes = readFileSync(early!);
    await fill(node, 100, 100);
    await node.snapshot();
    await cluster.stop(1);
    for (const file of files()) damage(file);
    writeFileSync(early!, bytes);
    const error = await refusal(cluster.open(1));
    expect(error.code).toBe('KEELSON_STORAGE_CORRUPT');
    expect(error.message).toContain(`${early} (ends before the log begins)`);
  });
});

describe('a snapshot of another version of the machine', () => {
  const newer = (): KeyValueMachine => Object.assign(new KeyValueMachine(), { version: 2 });

  it('is refused by an older one, and names the file', async () => {
    const node = await start(newer);
    await fill(node, 0, 10);
    await node.snapshot();
    await cluster.stop(1);
    const error = await refusal(cluster.open(1, { stateMachine: new KeyValueMachine() }));
    expect(error.code).toBe('KEELSON_STORAGE_VERSION');
    expect(error.message).toContain(files()[0]!);
    await fill(await cluster.open(1).then(() => cluster.leader()), 10, 10);
  });
});
