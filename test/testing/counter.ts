import type { Entry, Raft, StateMachine } from '../../dist/index.js';
import { type TestCluster, testCluster } from '../../dist/testing/index.js';

/** Adds numbers and remembers every entry that it was given. */
export class Counter implements StateMachine<number, number, 'sum', number> {
  sum = 0;
  readonly applied: { index: number; term: number; time: number; command: number }[] = [];

  apply(entries: readonly Entry<number>[]): number[] {
    return entries.map(({ logId, time, command }) => {
      this.applied.push({ ...logId, time, command });
      this.sum += command;
      return this.sum;
    });
  }

  query(): number {
    return this.sum;
  }

  *snapshot(): Iterable<Uint8Array> {
    yield new Uint8Array(Float64Array.of(this.sum).buffer);
  }

  async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const bytes: number[] = [];
    for await (const chunk of chunks) bytes.push(...chunk);
    this.sum = new Float64Array(Uint8Array.from(bytes).buffer)[0]!;
  }
}

export type Node = Raft<number, number, 'sum', number>;
export type CounterCluster = TestCluster<number, number, 'sum', number>;

/** The machines of the cluster that was started last, by node. */
export const machines = new Map<number, Counter>();

export function startCounters(nodes = 3, config = {}): Promise<CounterCluster> {
  machines.clear();
  return testCluster({
    nodes,
    config,
    stateMachine: (nodeId) => {
      const machine = new Counter();
      machines.set(nodeId, machine);
      return machine;
    },
  });
}
