import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { ApplyLane } from '../../dist/runtime/apply-lane.js';

const LIMITS = { maxApplyEntries: 10, maxApplyBytes: 1_000, maxQueuedApplies: 2 };

interface Read {
  readonly first: number;
  arrive(): void;
  fail(error: unknown): void;
}

/** A lane whose reads come from segments, when the test says so; `handed` are the ranges that the machine got. */
function setUp() {
  const reads: Read[] = [];
  const handed: string[] = [];
  const failures: unknown[] = [];
  let leases = 0;
  const store = {
    read: (_group: number, first: number, last: number) =>
      new Promise((resolve, reject) => {
        reads.push({
          first,
          arrive: () => {
            leases++;
            resolve({ firstIndex: first, lastIndex: last, bytes: 10, release: () => leases-- });
          },
          fail: reject,
        });
      }),
  };
  const machine = {
    apply: (_lease: unknown, first: number, last: number) => handed.push(`${first}…${last}`),
  };
  const lane = new ApplyLane(0, store as never, machine as never, LIMITS, 0, (error) =>
    failures.push(error),
  );
  return { lane, reads, handed, failures, leases: () => leases };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('an installed snapshot', () => {
  it('is restored when the machine has ended what it was given, and entries behind it follow', async () => {
    const { lane, reads, handed } = setUp();
    lane.extend(20);
    reads[0]!.arrive();
    await turn();
    expect(handed).toEqual(['1…10']);
    let restores = 0;
    lane.install(100, () => restores++);
    lane.extend(103);
    expect(restores).toBe(0);
    lane.completed();
    expect(restores).toBe(1);
    expect(reads.some(({ first }) => first > 100)).toBe(false);
    lane.installed();
    reads.at(-1)!.arrive();
    await turn();
    expect(handed).toEqual(['1…10', '101…103']);
  });

  it.each([
    ['arrives', (read: Read) => read.arrive()],
    ['fails', (read: Read) => read.fail(new KeelsonError('KEELSON_ABORTED', 'it is gone'))],
  ])('takes the place of entries that are being read: what %s late is dropped', async (_, end) => {
    const { lane, reads, handed, failures, leases } = setUp();
    lane.extend(20);
    lane.install(100, () => {});
    lane.installed();
    end(reads[0]!);
    await turn();
    expect(handed).toEqual([]);
    expect(failures).toEqual([]);
    expect(leases()).toBe(0);
    lane.extend(101);
    reads.at(-1)!.arrive();
    await turn();
    expect(handed).toEqual(['101…101']);
  });

  it('that comes while another one is being restored is restored behind it', () => {
    const { lane } = setUp();
    const restored: number[] = [];
    lane.install(100, () => restored.push(100));
    lane.install(200, () => restored.push(200));
    expect(restored).toEqual([100]);
    lane.installed();
    expect(restored).toEqual([100, 200]);
  });

  it('that comes before another one is begun takes its place', async () => {
    const { lane, reads } = setUp();
    lane.extend(5);
    reads[0]!.arrive();
    await turn();
    const restored: number[] = [];
    lane.install(100, () => restored.push(100));
    lane.install(200, () => restored.push(200));
    lane.completed();
    expect(restored).toEqual([200]);
  });

  it('is not restored on a node that has stopped', () => {
    const { lane } = setUp();
    let restores = 0;
    lane.stop();
    lane.install(100, () => restores++);
    expect(restores).toBe(0);
  });
});
