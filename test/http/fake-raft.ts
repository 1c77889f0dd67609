/**
 * A `RaftHandle` that holds its key-value pairs in a map and can be told how to fail, so that the
 * HTTP layer is tested for what it alone does.
 */
import type { CallOptions, ReadOptions, Status, WriteResult } from '../../dist/api.js';
import type { KeyValueRaft } from '../../dist/http/index.js';
import type {
  KeyValueCommand,
  KeyValueQuery,
  KeyValueResponse,
} from '../../dist/state-machine/key-value.js';

const LEADING = {
  nodeId: 1,
  clusterId: '00112233445566778899aabbccddeeff',
  incarnation: 'ffeeddccbbaa99887766554433221100',
  state: 'leader',
  term: 7,
  leader: 1,
  leaderAddress: '127.0.0.1:7001',
  lastLogIndex: 40,
  flushedIndex: 40,
  committedIndex: 40,
  appliedIndex: 40,
  voters: [1, 2, 3],
  learners: [],
  addresses: { 1: '127.0.0.1:7001', 2: '127.0.0.1:7002', 3: '127.0.0.1:7003' },
  readyToLead: true,
  pendingWrites: 0,
  matchIndexes: { 2: 40, 3: 39 },
  failure: undefined,
} as object as Status;

export class FakeRaft implements KeyValueRaft {
  readonly pairs: Map<string, { value: Uint8Array; version: number }> = new Map();
  readonly writes: KeyValueCommand[] = [];
  readonly calls: (CallOptions & ReadOptions)[] = [];
  current: Status = LEADING;
  /** Thrown by the next calls, when set. */
  failure: unknown;
  /** Why the machine refuses every command, when set. */
  invalid: string | undefined;
  /** When set, calls wait for it. */
  gate: Promise<void> | undefined;

  patch(change: Partial<Status>): void {
    this.current = { ...this.current, ...change };
  }

  async write(
    command: KeyValueCommand,
    options: CallOptions = {},
  ): Promise<WriteResult<KeyValueResponse>> {
    await this.pass(options);
    this.writes.push(command);
    const index = this.current.lastLogIndex + 1;
    this.patch({ lastLogIndex: index, committedIndex: index, appliedIndex: index });
    const present = this.pairs.get(command.key)?.version ?? 0;
    const logId = { term: this.current.term, index };
    if (this.invalid !== undefined) {
      return { response: { ok: false, version: 0, invalid: this.invalid }, logId };
    }
    if (command.ifVersion !== undefined && command.ifVersion !== present) {
      return { response: { ok: false, version: present }, logId };
    }
    if (command.op === 'delete') {
      this.pairs.delete(command.key);
      return { response: { ok: true, version: 0, existed: present > 0 }, logId };
    }
    this.pairs.set(command.key, { value: Uint8Array.from(command.value), version: present + 1 });
    return { response: { ok: true, version: present + 1, existed: present > 0 }, logId };
  }

  async writeMany(): Promise<WriteResult<KeyValueResponse>[]> {
    throw new Error('not used over HTTP');
  }

  // biome-ignore lint/suspicious/noExplicitAny: the answer's type follows from the query
  async read(query: KeyValueQuery, options: ReadOptions = {}): Promise<any> {
    await this.pass(options);
    if (query.op === 'get') return this.pairs.get(query.key);
    const { prefix = '', start = '', end, limit = 1_000 } = query;
    const matching = [...this.pairs.entries()]
      .filter(([key]) => key.startsWith(prefix) && key >= start && (end === undefined || key < end))
      .sort(([a], [b]) => (a < b ? -1 : 1));
    const entries = matching.slice(0, limit).map(([key, pair]) => ({ key, ...pair }));
    const next = matching[limit]?.[0];
    return next === undefined ? { entries } : { entries, next };
  }

  async readBarrier(): Promise<void> {}

  status(): Status {
    return this.current;
  }

  async waitFor(): Promise<Status> {
    return this.current;
  }

  async writable(): Promise<void> {}

  async close(): Promise<void> {}

  private async pass(options: CallOptions): Promise<void> {
    this.calls.push(options);
    if (this.gate !== undefined) await this.gate;
    if (this.failure !== undefined) throw this.failure;
  }
}
