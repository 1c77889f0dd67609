/** Machines whose snapshots a test can watch, hold up and spoil, on nodes put together from real parts. */
import type { Logger } from '../../../dist/base/logger.js';
import type { ConfigInput } from '../../../dist/config/types.js';
import type { Entry, StateMachine } from '../../../dist/index.js';
import { MainThreadHost } from '../../../dist/state-machine/main-thread-host.js';
import { SeamCluster, type Seams } from './seam-cluster.js';

/** A sum, and every entry that was applied in this life. */
export class Ledger implements StateMachine<number, number, 'sum', number> {
  readonly concurrentSnapshot = true;
  sum = 0;
  /** Index of the entry that was applied first. */
  firstIndex = 0;
  lastTime = 0;
  snapshots = 0;
  snapshotsGivenUp = 0;
  restores = 0;
  /** While it is pending, snapshots get no further than their first chunk. */
  gate: Promise<unknown> | undefined;
  fails = false;

  apply(entries: readonly Entry<number>[]): number[] {
    return entries.map(({ command, logId, time }) => {
      if (this.firstIndex === 0) this.firstIndex = logId.index;
      this.lastTime = time;
      this.sum += command;
      return this.sum;
    });
  }

  query(): number {
    return this.sum;
  }

  async *snapshot(): AsyncGenerator<Uint8Array, void> {
    const bytes = new Uint8Array(Float64Array.of(this.sum).buffer);
    this.snapshots++;
    let whole = false;
    try {
      yield bytes.subarray(0, 4);
      await this.gate;
      if (this.fails) throw new Error('no more ink');
      yield bytes.subarray(4);
      whole = true;
    } finally {
      if (!whole) this.snapshotsGivenUp++;
    }
  }

  async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const bytes: number[] = [];
    for await (const chunk of chunks) bytes.push(...chunk);
    this.restores++;
    this.sum = new Float64Array(Uint8Array.from(bytes).buffer)[0]!;
  }
}

export class LedgerCluster {
  readonly ledgers = new Map<number, Ledger>();
  readonly events: Readonly<Record<string, unknown>>[] = [];
  cluster!: SeamCluster;

  /** Snapshots come only when they are asked for, unless `snapshot` says otherwise. */
  static async start(
    snapshot: ConfigInput['snapshot'] = {},
    seams: Seams = {},
  ): Promise<LedgerCluster> {
    const ledgers = new LedgerCluster();
    ledgers.cluster = await SeamCluster.start({
      voters: [1],
      ...seams,
      logger: ledgers.logger(),
      config: {
        ...seams.config,
        snapshot: { everyEntries: 0, everyBytes: 0, keepEntries: 0, ...snapshot },
      },
      createMachine: (nodeId, events, scheduler, config) => {
        const machine = new Ledger();
        ledgers.ledgers.set(nodeId, machine);
        return new MainThreadHost(machine, {
          group: 0,
          events,
          scheduler,
          limits: config.stateMachine,
        });
      },
    });
    return ledgers;
  }

  ledger(nodeId = 1): Ledger {
    return this.ledgers.get(nodeId)!;
  }

  logged(event: string): Readonly<Record<string, unknown>>[] {
    return this.events.filter((fields) => fields.event === event);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
  }

  private logger(): Logger {
    const note = (fields: Readonly<Record<string, unknown>>): void => {
      this.events.push(fields);
    };
    return { debug: note, info: note, warn: note, error: note } as unknown as Logger;
  }
}
