/** A bug of Keelson that is met outside of any call must cost the node, not the process around it. */
import { afterEach, expect, it, vi } from 'vitest';
import type { Outcome } from '../../dist/base/errors.js';
import { Engine } from '../../dist/engine/engine.js';
import type { KeelsonError } from '../../dist/index.js';
import { MainThreadHost } from '../../dist/state-machine/main-thread-host.js';
import { Counter } from '../testing/counter.js';
import { around, SeamCluster, type SeamNode } from './support/seam-cluster.js';

afterEach(() => {
  vi.restoreAllMocks();
});

async function expectStopped(
  node: SeamNode,
  step: 'clientWrite' | 'applied',
  outcome: Outcome,
): Promise<void> {
  const errors: KeelsonError[] = [];
  node.on('error', (error) => errors.push(error));
  vi.spyOn(Engine.prototype, step).mockImplementation(() => {
    throw new Error(`${step} broke an invariant`);
  });
  const message = expect.stringContaining(`${step} broke an invariant`);
  await expect(node.write(1)).rejects.toMatchObject({ message, outcome });
  expect(node.status()).toMatchObject({ state: 'stopped', failure: { message } });
  expect(errors).toMatchObject([{ message }]);
  await expect(node.write(1)).rejects.toMatchObject({ message, outcome: 'rejected' });
}

it('a node whose engine breaks when it is given writes stops', async () => {
  await using cluster = await SeamCluster.start({ voters: [1] });
  await expectStopped(await cluster.leader(), 'clientWrite', 'rejected');
});

it('a node whose engine breaks when it hears of an apply stops', async () => {
  await using cluster = await SeamCluster.start({
    voters: [1],
    createMachine: (_nodeId, events, scheduler, config) => {
      // As from a worker: in a turn of its own.
      const told = around(events, {
        applied: (...given) => void setImmediate(() => events.applied(...given)),
      });
      const { stateMachine: limits } = config;
      return new MainThreadHost(new Counter(), { group: 0, events: told, scheduler, limits });
    },
  });
  await expectStopped(await cluster.leader(), 'applied', 'unknown');
});
