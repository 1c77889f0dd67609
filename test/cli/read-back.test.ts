import { afterEach, beforeEach, expect, it } from 'vitest';
import { NodeClient } from '../../dist/cli/demo/client.js';
import { readBack } from '../../dist/cli/demo/read-back.js';
import { keyOf, Values } from '../../dist/cli/demo/values.js';
import { Harness } from '../http/harness.js';

const WRITERS = 3;
const SEQUENCES = [0, 1, 2, 3, 5, 1_200];
const values = new Values(2_000, 'this run');

let harness: Harness;
let client: NodeClient;
beforeEach(async () => {
  harness = await Harness.open();
  client = new NodeClient(new Map([[1, harness.port]]), 4);
  for (let writer = 0; writer < WRITERS; writer += 1) {
    for (let sequence = 0; sequence <= 1_200; sequence += 1) {
      const key = keyOf(writer, sequence);
      harness.raft.pairs.set(key, { value: values.of(key), version: 1 });
    }
  }
});
afterEach(async () => {
  client.close();
  await harness.close();
});

const acknowledged = Array.from({ length: WRITERS }, () => SEQUENCES);
const readAll = () => readBack(client, values, acknowledged, () => {});

it('the demo finds every acknowledged write, over several pages', async () => {
  expect(await readAll()).toEqual({ read: WRITERS * SEQUENCES.length, lostKeys: [] });
});

it('the demo counts a missing write as lost', async () => {
  harness.raft.pairs.delete(keyOf(1, 1_200));
  expect((await readAll()).lostKeys).toEqual([keyOf(1, 1_200)]);
});

it('the demo counts a write with another value as lost', async () => {
  const key = keyOf(2, 3);
  const value = values.of(key);
  value[1_999]! ^= 1;
  harness.raft.pairs.set(key, { value, version: 1 });
  expect((await readAll()).lostKeys).toEqual([key]);
});
