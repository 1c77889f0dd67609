import { expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import type { Replicate } from '../../dist/engine/commands.js';
import { ReplicateLane } from '../../dist/runtime/replicate-lane.js';

const command: Replicate = {
  type: 'Replicate',
  target: 2,
  term: 1,
  session: 7,
  prevLogId: { term: 1, index: 4 },
  lastIndex: 4,
  maxBytes: 100,
  committed: 4,
};

function setUp(takes: boolean, read: () => unknown) {
  const seen = { failed: [] as number[], replicated: [] as number[], failures: [] as unknown[] };
  const engine = {
    role: 'leader',
    term: 1,
    replicated: (_target: number, session: number) => seen.replicated.push(session),
    replicateFailed: (_target: number, session: number) => seen.failed.push(session),
  };
  const network = { sendAppend: () => takes };
  const lane = new ReplicateLane(
    0,
    engine as never,
    { read } as never,
    network as never,
    () => {},
    (error) => seen.failures.push(error),
  );
  return { lane, seen, network };
}

it('a command that the network holds is answered when the connection ends, or its target starves', () => {
  const { lane, seen } = setUp(false, () => undefined);
  lane.replicate(command);
  expect(seen.failed).toEqual([]);
  lane.disconnected(2);
  expect(seen.failed).toEqual([7]);
  lane.disconnected(2);
  expect(seen.failed).toEqual([7]);
});

it('a command that the network holds is sent when its target is writable', () => {
  const { lane, seen, network } = setUp(false, () => undefined);
  lane.replicate(command);
  network.sendAppend = () => true;
  lane.writable(2);
  expect(seen).toMatchObject({ replicated: [7], failed: [] });
});

it.each([['KEELSON_ABORTED' as const], ['KEELSON_OVERLOADED' as const]])(
  'a read from segments that ends with %s is answered and does not stop the node',
  async (code) => {
    const { lane, seen } = setUp(true, () => Promise.reject(new KeelsonError(code, 'later')));
    lane.replicate({ ...command, lastIndex: 9 });
    await new Promise((resolve) => setImmediate(resolve));
    expect(seen).toMatchObject({ failed: [7], failures: [] });
  },
);

it('a read from segments that finds the log damaged stops the node', async () => {
  const damage = new KeelsonError('KEELSON_STORAGE_CORRUPT', 'damaged');
  const { lane, seen } = setUp(true, () => Promise.reject(damage));
  lane.replicate({ ...command, lastIndex: 9 });
  await new Promise((resolve) => setImmediate(resolve));
  expect(seen).toMatchObject({ failed: [], failures: [damage] });
});
