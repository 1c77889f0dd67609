import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { KeyValueMachine } from '../../dist/index.js';
import { get, put, RealCluster, refusal, smallConfig } from './support.js';

const withLanes = (lanes: number) => ({
  ...smallConfig,
  storage: { ...smallConfig.storage, lanes },
});

let cluster: RealCluster;
afterEach(() => cluster.close());

it('a node keeps its number of lanes: another one is refused, and the directory stays as it is', async () => {
  cluster = new RealCluster(() => new KeyValueMachine(), withLanes(4));
  await cluster.start(1);
  await (await cluster.leader()).write(put('key', 'value'));
  await cluster.stop(1);
  const folder = join(cluster.directory(1), 'wal');
  const files = readdirSync(folder);
  for (const lane of [0, 1, 2, 3]) expect(files).toContain(`lane-${lane}-0000000001.wal`);
  for (const lanes of [1, 2, 3]) {
    const error = await refusal(cluster.open(1, { config: withLanes(lanes) }));
    expect(error).toMatchObject({
      code: 'KEELSON_STORAGE_MISMATCH',
      message: expect.stringContaining(`number of lanes 4, expected ${lanes}`),
      details: { field: 'laneCount', found: 4, expected: lanes },
    });
  }
  expect(readdirSync(folder)).toEqual(files);
  await cluster.open(1);
  expect(await get(await cluster.leader(), 'key')).toBe('value');
});
