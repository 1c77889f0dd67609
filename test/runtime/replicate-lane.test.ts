import { describe, expect, it } from 'vitest';
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
  const sent: unknown[] = [];
  const network = {
    takes,
    sendAppend(_target: number, message: unknown): boolean {
      sent.push(message);
      return this.takes;
    },
  };
  const lane = new ReplicateLane(
    0,
    engine as never,
    { read } as never,
    network as never,
    () => {},
    (error) => seen.failures.push(error),
  );
  return { lane, seen, engine, network, sent };
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
  network.takes = true;
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

describe('a leader that is no longer what it was when it was told to replicate', () => {
  const changes = [
    ['leads a later term', { term: 2 }],
    ['follows', { role: 'follower' }],
  ] as const;

  it.each(changes)('sends nothing that was read meanwhile, when it %s', async (_what, change) => {
    let references = 1;
    let arrive: (lease: unknown) => void = () => {};
    const { lane, seen, engine, sent } = setUp(
      true,
      () => new Promise((resolve) => (arrive = resolve)),
    );
    lane.replicate({ ...command, lastIndex: 9 });
    Object.assign(engine, change);
    arrive({ lastIndex: 9, bytes: 50, parts: [], release: () => references-- });
    await new Promise((resolve) => setImmediate(resolve));
    expect(sent).toEqual([]);
    expect(references).toBe(0);
    expect(seen).toEqual({ failed: [], replicated: [], failures: [] });
  });

  it.each(changes)('sends nothing that was held meanwhile, when it %s', (_what, change) => {
    const { lane, seen, engine, network, sent } = setUp(false, () => undefined);
    lane.replicate(command);
    sent.length = 0;
    network.takes = true;
    Object.assign(engine, change);
    lane.writable(2);
    expect(sent).toEqual([]);
    expect(seen).toEqual({ failed: [], replicated: [], failures: [] });
  });
});
