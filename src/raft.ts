import type {
  CallOptions,
  Consistency,
  RaftEvents,
  RaftHandle,
  ReadOptions,
  SnapshotOptions,
  SnapshotResult,
  Status,
  WriteResult,
} from './api.js';
import { KeelsonError } from './base/errors.js';
import type { Host } from './host.js';
import { openHost } from './open-host.js';
import type { RaftOptions } from './raft-options.js';
import { CallScope } from './runtime/call-scope.js';
import { type LeaderTask, LeaderTasks } from './runtime/leader-tasks.js';
import type { Runtime } from './runtime/runtime.js';
import type { StateMachine } from './state-machine/state-machine.js';

/**
 * What an application holds of one replicated group on one node. All methods may be called on any
 * node: writes and linearizable reads go one hop to the leader where needed.
 *
 * Every error is a `KeelsonError` with a stable `code`, and `outcome` `rejected` (changed nothing,
 * safe to repeat) or `unknown` (may have committed).
 */
export class Raft<Command = unknown, Response = unknown, Query = unknown, Answer = unknown>
  implements RaftHandle<Command, Response, Query, Answer>, AsyncDisposable
{
  private readonly host: Host;
  private readonly runtime: Runtime;
  private readonly callTimeoutMs: number;
  private readonly maxPendingReads: number;
  private readonly leaderTasks: LeaderTasks;
  private pendingReads = 0;

  private constructor(host: Host) {
    this.host = host;
    this.runtime = host.runtime;
    this.callTimeoutMs = host.config.limits.callTimeoutMs;
    this.maxPendingReads = host.config.limits.maxPendingReads;
    this.leaderTasks = new LeaderTasks(host.observers, () => this.status(), host.logger);
  }

  /**
   * Opens the data directory, recovers, listens, and joins its cluster. Resolves when this node has
   * recovered and listens; whether a leader exists is another question (`waitFor`).
   *
   * `call` has no default time limit: recovery takes as long as the log is long. It is looked at
   * between the steps of opening, none of which is cut off; what is open then is closed again before
   * the call fails.
   *
   * @throws KeelsonError KEELSON_INVALID_CONFIG with everything that is wrong with the options;
   * KEELSON_STORAGE_LOCKED, KEELSON_STORAGE_MISMATCH, KEELSON_STORAGE_VERSION,
   * KEELSON_STORAGE_CORRUPT, KEELSON_STORAGE_FULL, KEELSON_STORAGE_FAILED, KEELSON_MISSING_FILE,
   * KEELSON_STATE_MACHINE_FAILED; KEELSON_TIMEOUT, KEELSON_ABORTED
   */
  static async open<Command, Response, Query, Answer>(
    options: RaftOptions<StateMachine<Command, Response, Query, Answer> | URL>,
    call?: CallOptions,
  ): Promise<Raft<Command, Response, Query, Answer>> {
    return Raft.on(await openHost(options, call));
  }

  /** A handle on a host that is already open; what `Raft.open` and the test cluster share. */
  static on<Command, Response, Query, Answer>(host: Host): Raft<Command, Response, Query, Answer> {
    return new Raft<Command, Response, Query, Answer>(host);
  }

  /** The address that this node has bound, `host:port`; empty when its log is damaged, and it binds none. */
  get address(): string {
    return this.host.address;
  }

  /**
   * Replicates a command. Resolves when it is durable on a quorum and applied on the node that led,
   * with the state machine's response and the entry's log id.
   *
   * @throws KeelsonError KEELSON_OVERLOADED, KEELSON_ENTRY_TOO_LARGE, KEELSON_INVALID_ARGUMENT (rejected);
   * KEELSON_NO_LEADER, KEELSON_TIMEOUT, KEELSON_ABORTED, KEELSON_LEADERSHIP_LOST (see `outcome`)
   */
  write(command: Command, options?: CallOptions): Promise<WriteResult<Response>> {
    const { runtime } = this;
    if (options === undefined && runtime.engine.role === 'leader') {
      // The hot path: nothing but the promise is made for a write.
      try {
        const payload = this.host.machine.encode(command);
        return runtime.proposer.write(payload, this.callTimeoutMs) as Promise<
          WriteResult<Response>
        >;
      } catch (error) {
        return Promise.reject(notEncodable(error));
      }
    }
    return this.writeSlowly(command, options);
  }

  private async writeSlowly(
    command: Command,
    options: CallOptions | undefined,
  ): Promise<WriteResult<Response>> {
    const scope = this.scope(options);
    const payload = this.encode(command);
    return (await this.host.forwarder.write(payload, scope)) as WriteResult<Response>;
  }

  /**
   * Replicates several commands with one promise: as many as fit one batch (`storage.maxBatchEntries`,
   * `storage.maxBatchBytes`). On the leader they stand side by side in the log; on a follower each is
   * forwarded on its own.
   */
  async writeMany(
    commands: readonly Command[],
    options?: CallOptions,
  ): Promise<WriteResult<Response>[]> {
    if (commands.length === 0) return [];
    const scope = this.scope(options);
    const payloads = commands.map((command) => this.encode(command));
    return (await this.host.forwarder.writeMany(payloads, scope)) as WriteResult<Response>[];
  }

  /** Answers a query from this node's state machine, as fresh as `consistency` asks. */
  async read(query: Query, options?: ReadOptions): Promise<Answer> {
    const consistency = options?.consistency ?? 'linearizable';
    const scope = this.beginRead(consistency, options);
    try {
      if (consistency !== 'local') await this.freshen(consistency, scope);
      const answer = this.host.machine.query(query);
      return (answer instanceof Promise ? await scope.race(answer, 'rejected') : answer) as Answer;
    } finally {
      this.pendingReads--;
    }
  }

  /**
   * Resolves when this node has applied every write that was acknowledged anywhere before the call;
   * a plain method call on one's own main-thread state machine is then a linearizable read.
   */
  async readBarrier(options?: CallOptions): Promise<void> {
    const scope = this.beginRead('linearizable', options);
    try {
      await this.freshen('linearizable', scope);
    } finally {
      this.pendingReads--;
    }
  }

  /** Counts one more read, unless it is refused; whoever began it takes it off again. */
  private beginRead(consistency: Consistency, options: CallOptions | undefined): CallScope {
    const { serviceRefusal } = this.runtime;
    if (serviceRefusal !== undefined) {
      if (consistency !== 'local' || !this.host.readsLocally) throw serviceRefusal;
    }
    if (this.pendingReads >= this.maxPendingReads) {
      throw new KeelsonError('KEELSON_OVERLOADED', `${this.pendingReads} reads wait already`);
    }
    const scope = this.scope(options);
    this.pendingReads++;
    return scope;
  }

  private async freshen(
    consistency: Exclude<Consistency, 'local'>,
    scope: CallScope,
  ): Promise<void> {
    const index =
      consistency === 'linearizable' ? await this.host.readIndex(scope) : atLeast(consistency);
    await this.runtime.reads.waitForApplied(index, scope);
  }

  /**
   * Builds a snapshot of all that this node has applied, unless there is one; resolves when it is durable. Calls
   * that come together share one. `timeoutMs` is `snapshot.buildTimeoutMs` by default. A build that nobody
   * waits for any more, and that was not due, is given up.
   *
   * @throws KeelsonError KEELSON_OVERLOADED, KEELSON_INVALID_ARGUMENT (nothing is applied yet), KEELSON_STORAGE_FULL,
   * KEELSON_STORAGE_FAILED, KEELSON_STATE_MACHINE_FAILED; KEELSON_TIMEOUT, KEELSON_ABORTED
   */
  async snapshot(options?: SnapshotOptions): Promise<SnapshotResult> {
    const { serviceRefusal, snapshotLane } = this.runtime;
    if (serviceRefusal !== undefined) throw serviceRefusal;
    return await snapshotLane.request(options);
  }

  status(): Status {
    return this.host.status();
  }

  /** Resolves with the first status that satisfies the predicate, the present one included. */
  waitFor(predicate: (status: Status) => boolean, options?: CallOptions): Promise<Status> {
    return this.host.observers.waitFor(predicate, options, this.callTimeoutMs);
  }

  /**
   * Resolves when proposals are accepted again after KEELSON_OVERLOADED or KEELSON_STORAGE_FULL; at once
   * if they are.
   *
   * @throws KeelsonError why the node has stopped, or takes nothing, if it does; KEELSON_TIMEOUT, KEELSON_ABORTED
   */
  async writable(options?: CallOptions): Promise<void> {
    const { stopped, serviceRefusal } = this.runtime;
    // Of a log that is damaged nobody tells when it takes something again.
    if (stopped === undefined && serviceRefusal !== undefined) throw serviceRefusal;
    await this.waitFor(() => this.runtime.proposer.hasRoomAgain(), options);
  }

  /**
   * Runs `task` each time this node becomes leader and has applied all that its predecessors
   * committed. `signal` aborts when it no longer leads, or when the returned function is called.
   * A task that throws is reported through the event `error`.
   */
  whileLeader(task: LeaderTask): () => void {
    return this.leaderTasks.add(task);
  }

  on<K extends keyof RaftEvents>(event: K, listener: (...values: RaftEvents[K]) => void): this {
    this.host.observers.on(event, listener);
    return this;
  }

  off<K extends keyof RaftEvents>(event: K, listener: (...values: RaftEvents[K]) => void): this {
    this.host.observers.off(event, listener);
    return this;
  }

  /**
   * Stops serving, waits for the disk, and gives up the directory. Waiting calls fail. Without
   * `options` it waits as long as that takes; with them it may give up waiting, while closing goes on.
   *
   * @throws KeelsonError KEELSON_TIMEOUT, KEELSON_ABORTED (`rejected` when closing has not begun)
   */
  async close(options?: CallOptions): Promise<void> {
    const scope = new CallScope(this.host.scheduler, options, Number.POSITIVE_INFINITY);
    scope.check();
    this.leaderTasks.stop();
    const closed = this.host.close();
    await (options === undefined ? closed : scope.race(closed, 'unknown'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private scope(options: CallOptions | undefined): CallScope {
    const scope = new CallScope(this.host.scheduler, options, this.callTimeoutMs);
    scope.check();
    return scope;
  }

  private encode(command: Command): Uint8Array {
    try {
      return this.host.machine.encode(command);
    } catch (error) {
      throw notEncodable(error);
    }
  }
}

function atLeast(consistency: Exclude<Consistency, string>): number {
  const index: unknown = consistency.atLeast?.index;
  if (Number.isSafeInteger(index) && Number(index) >= 0) return Number(index);
  throw new KeelsonError(
    'KEELSON_INVALID_ARGUMENT',
    `consistency.atLeast needs a log id with an index, not ${String(index)}`,
  );
}

function notEncodable(cause: unknown): KeelsonError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new KeelsonError('KEELSON_INVALID_ARGUMENT', `the command cannot be encoded: ${reason}`, {
    cause,
  });
}
