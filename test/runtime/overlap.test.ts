import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setEnvironmentData } from 'node:worker_threads';
import { afterEach, expect, it } from 'vitest';
import { WorkerHost } from '../../dist/state-machine/worker-host.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { SeamCluster } from './support/seam-cluster.js';

const BEGUN = 0;
const OPEN = 1;
const THROUGH = 2;

let directory = '';
afterEach(() => {
  setEnvironmentData('keelson-gate', undefined);
  rmSync(directory, { recursive: true });
});

it('appends of a group become durable while one of its applies is still running', async () => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-overlap-'));
  // Workers get a copy of it that shares the memory.
  const gate = new Int32Array(new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT));
  setEnvironmentData('keelson-gate', gate.buffer);
  const module = new URL('./support/gated-machine.mjs', import.meta.url);
  await using cluster = await SeamCluster.start({
    voters: [1],
    openStore: (_nodeId, parts, config) =>
      WalLogStore.open({ directory, ...config.storage }, parts),
    createMachine: (_nodeId, events, scheduler, config) =>
      new WorkerHost(module, { group: 0, events, scheduler, limits: config.stateMachine }),
  });
  const node = await cluster.leader();
  const answered: string[] = [];
  const writes = [node.write(1).then(() => answered.push('first'))];
  try {
    await Atomics.waitAsync(gate, BEGUN, 0).value;
    const first = node.status().flushedIndex;
    writes.push(node.write(2).then(() => answered.push('second')));
    const { appliedIndex } = await node.waitFor(({ flushedIndex }) => flushedIndex > first);
    writes.push(node.write(3).then(() => answered.push('third')));
    await node.waitFor(({ flushedIndex }) => flushedIndex > first + 1);
    // Two appends have gone to the disk and come back, and the apply before them still runs.
    expect(Atomics.load(gate, THROUGH)).toBe(0);
    expect(appliedIndex).toBe(first - 1);
    expect(answered).toEqual([]);
  } finally {
    Atomics.store(gate, OPEN, 1);
    Atomics.notify(gate, OPEN);
  }
  await Promise.all(writes);
  expect(answered).toEqual(['first', 'second', 'third']);
  expect(Atomics.load(gate, THROUGH)).toBe(1);
});
