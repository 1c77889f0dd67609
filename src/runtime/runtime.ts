import { type ErrorCode, KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { Command } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { AppendRequest, ControlMessage, SnapshotRequest } from '../engine/messages.js';
import type { IoId, Membership, NodeId } from '../engine/types.js';
import type {
  ForwardRequest,
  ForwardResponse,
  Network,
  NetworkHandler,
} from '../network/network.js';
import type { MachineEvents } from '../state-machine/machine-host.js';
import type { SnapshotStore } from '../storage/snapshot-store.js';
import { ApplyLane } from './apply-lane.js';
import type { CallScope } from './call-scope.js';
import { EntryStaging } from './entry-staging.js';
import { ForwardedRequests } from './forwarded-requests.js';
import { LeadershipErrors } from './leadership-errors.js';
import { LogLane } from './log-lane.js';
import { NO_MEMBERSHIP } from './membership-codec.js';
import type { Proposals } from './proposals.js';
import { Proposer, type ProposerSteps } from './proposer.js';
import { ReadLane } from './read-lane.js';
import { ReplicateLane } from './replicate-lane.js';
import type { RuntimeObserver, RuntimeParts } from './runtime-parts.js';
import { SnapshotExchange } from './snapshot-exchange.js';
import { SnapshotLane } from './snapshot-lane.js';

/**
 * Drives one group on one node: turns what happens (client calls, messages, completions, time) into
 * engine events and runs the commands that come out, all of them in one call. It decides nothing
 * itself.
 *
 * Everything runs on one thread, in short steps. Writes that arrive in one turn of the run queue
 * become one block; a step never waits for I/O.
 */
export class Runtime implements NetworkHandler, MachineEvents, ProposerSteps {
  readonly engine: Engine;
  readonly proposer: Proposer;
  readonly reads: ReadLane;
  readonly snapshotLane: SnapshotLane;
  readonly exchange: SnapshotExchange;
  readonly errors: LeadershipErrors;
  private readonly snapshots: SnapshotStore;
  private readonly network: Network;
  private readonly scheduler: Scheduler;
  private readonly logger: Logger;
  private readonly observer: RuntimeObserver;
  private readonly staging: EntryStaging;
  private readonly proposals: Proposals;
  private readonly forwardedRequests: ForwardedRequests;
  private readonly logLane: LogLane;
  private readonly applyLane: ApplyLane;
  private readonly replicateLane: ReplicateLane;
  private running = false;
  private timer: Timer | undefined;
  private timerAtMs = Number.POSITIVE_INFINITY;
  private stopReason: KeelsonError | undefined;
  private refusal: KeelsonError | undefined;

  constructor(parts: RuntimeParts) {
    const { group, nodeId, engine, store, network, scheduler, logger, limits } = parts;
    const { machine, machineApplied, snapshots } = parts;
    this.engine = engine;
    this.snapshots = snapshots;
    this.network = network;
    this.scheduler = scheduler;
    this.logger = logger;
    this.observer = parts.observer;
    this.refusal = parts.damage;
    this.errors = new LeadershipErrors(nodeId, engine);
    this.staging = new EntryStaging(group, engine, store, scheduler, logger, parts.snapshotTime);
    this.proposer = new Proposer(engine, scheduler, this.staging, limits, this, parts.sendOn);
    this.proposals = this.proposer.proposals;
    this.forwardedRequests = new ForwardedRequests(this, scheduler, limits.callTimeoutMs);
    const { staging, proposer } = this;
    const { flushStallMs } = limits;
    this.logLane = new LogLane({ group, engine, store, staging, proposer, logger, flushStallMs });
    this.reads = new ReadLane(machineApplied, limits.maxPendingReads);
    const fail = (error: unknown): void => this.fail(error);
    this.applyLane = new ApplyLane(group, store, machine, limits, machineApplied, fail);
    const progress = (): void => this.run();
    this.replicateLane = new ReplicateLane(group, engine, store, network, progress, fail);
    this.snapshotLane = new SnapshotLane({
      group,
      engine,
      machine,
      snapshots,
      scheduler,
      logger,
      limits: parts.snapshotLimits,
      appliedBytes: () => this.applyLane.handedBytes,
      lastTime: () => this.staging.newestTime,
      progress: () => {
        this.observer.changed();
        this.run();
      },
      fail,
    });
    snapshots.onLost = () => this.snapshotLane.lost();
    this.exchange = new SnapshotExchange({
      engine,
      snapshots,
      network,
      machine,
      applyLane: this.applyLane,
      scheduler,
      logger,
      limits: parts.snapshotLimits,
      onSuperseded: () => this.snapshotLane.superseded(),
      onInstalled: (index, time) => this.installed(index, time),
      onProgress: progress,
      onFailure: fail,
    });
  }

  /** Begins to tick. `bootstrap` is written when the log is pristine. */
  start(bootstrap: Membership | undefined): void {
    this.step(() => {
      if (bootstrap !== undefined && this.engine.isPristine) this.engine.bootstrap(bootstrap);
      this.engine.snapshots.kept(this.snapshots.oldestKept?.lastIncluded.index ?? 0);
      this.engine.elapse(this.scheduler.now());
    });
  }

  /** Why this node has stopped; undefined while it runs. */
  get stopped(): KeelsonError | undefined {
    return this.stopReason;
  }

  /** What is told to whoever asks anything of a node that has stopped, or is damaged: it changes nothing. */
  get serviceRefusal(): KeelsonError | undefined {
    return this.refusal;
  }

  /** The effective membership, committed or not. */
  get membership(): Membership {
    return this.engine.membership ?? NO_MEMBERSHIP;
  }

  get pendingWrites(): number {
    return this.proposals.unanswered;
  }

  /** Ends all waiting; nothing is decided or acknowledged any more. */
  stop(reason: KeelsonError): void {
    if (this.stopReason !== undefined) return;
    const { code, message, outcome } = reason;
    const rejection =
      outcome === 'rejected' ? reason : new KeelsonError(code, message, { cause: reason });
    this.stopReason = reason;
    this.refusal = rejection;
    this.timer?.cancel();
    this.applyLane.stop();
    this.snapshotLane.stop(rejection);
    this.exchange.stop();
    const unknown = new KeelsonError(code, message, { outcome: 'unknown', cause: reason });
    this.proposals.failAll(unknown, rejection);
    this.reads.failAll(rejection);
  }

  // Reads ----------------------------------------------------------------------------------------

  /** Asks for the index that a linearizable read must see; only on a leader. */
  readIndex(scope: CallScope): Promise<number> {
    const refusal = this.refusal ?? this.reads.refusal;
    if (refusal !== undefined) return Promise.reject(refusal);
    const round = this.engine.requestRead();
    if (round === 0) return Promise.reject(this.errors.notLeader());
    const answer = this.reads.waitForRound(round, scope);
    this.run();
    return answer;
  }

  // Events from the network ----------------------------------------------------------------------

  message(from: NodeId, message: ControlMessage): void {
    if (this.stopReason !== undefined) return;
    try {
      this.engine.elapse(this.scheduler.now());
      this.engine.receive(from, message);
      if (message.type === 'SnapshotResponse') this.exchange.answered(from, message);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.run();
  }

  append(from: NodeId, request: AppendRequest, parts: readonly Uint8Array[]): void {
    if (this.stopReason !== undefined) return;
    try {
      const received = this.staging.receive(from, request, parts);
      if (received === undefined) return;
      this.engine.elapse(this.scheduler.now());
      this.engine.handleAppend(from, request, received);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.run();
  }

  snapshot(from: NodeId, request: SnapshotRequest, parts: readonly Uint8Array[]): void {
    if (this.stopReason !== undefined) return;
    this.step(() => {
      this.engine.elapse(this.scheduler.now());
      this.exchange.piece(from, request, parts);
    });
  }

  connected(peer: NodeId): void {
    if (this.stopReason !== undefined) return;
    this.step(() => this.engine.peerConnected(peer));
  }

  disconnected(peer: NodeId): void {
    if (this.stopReason !== undefined) return;
    this.step(() => {
      this.replicateLane.disconnected(peer);
      this.engine.peerDisconnected(peer);
      this.exchange.sweep();
    });
  }

  writable(peer: NodeId): void {
    if (this.stopReason !== undefined) return;
    this.step(() => {
      this.replicateLane.writable(peer);
      this.exchange.writable(peer);
    });
  }

  /**
   * A peer remembers this node under another incarnation. With nothing but the bootstrap entry in the
   * log this is an empty directory in the place of a lost one: it has forgotten its votes, and must
   * neither vote nor help others that are empty to a quorum.
   */
  refused(peer: NodeId, reason: string, text: string): void {
    if (reason !== 'incarnation' || this.engine.lastLogId.index > 1) return;
    const error = new KeelsonError(
      'KEELSON_HANDSHAKE_REFUSED',
      `node ${peer} refuses this node: ${text}. Start it with its own data directory.`,
      { details: { peer, reason } },
    );
    this.fail(error);
  }

  request(_from: NodeId, request: ForwardRequest): Promise<ForwardResponse> {
    return this.forwardedRequests.answer(request);
  }

  // Completions ----------------------------------------------------------------------------------

  flushed(_group: number, io: IoId): void {
    if (this.stopReason !== undefined) return;
    this.logLane.flushedUpTo(io.sequence);
    try {
      this.engine.logFlushed(io.sequence);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.run();
  }

  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void {
    if (this.stopReason !== undefined) return;
    try {
      this.engine.applied(lastIndex);
      this.proposals.applied(firstIndex, lastIndex, responses);
      this.reads.applied(lastIndex);
      this.applyLane.completed();
      this.snapshotLane.applied(lastIndex);
      this.observer.changed();
    } catch (error) {
      this.fail(error);
      return;
    }
    this.run();
  }

  /** The machine was restored from a snapshot that a leader has sent. */
  private installed(index: number, time: number): void {
    if (this.stopReason !== undefined) return;
    this.step(() => {
      this.staging.installed(time);
      this.engine.snapshots.installed(index);
      this.engine.snapshots.kept(index);
      this.reads.applied(this.engine.appliedIndex);
      this.snapshotLane.installed(index);
      this.observer.changed();
    });
  }

  /** There is room in the log again, or there may be: something was committed. */
  storeWritable(): void {
    if (this.stopReason !== undefined) return;
    this.proposer.roomAgain();
    this.observer.changed();
  }

  /** From the store or the state machine: this node can go on no longer. */
  failed(error: Error): void {
    this.fail(error, 'KEELSON_STATE_MACHINE_FAILED');
  }

  fail(error: unknown, code: ErrorCode = 'KEELSON_STORAGE_FAILED'): void {
    if (this.stopReason !== undefined) return;
    const failure =
      error instanceof KeelsonError
        ? error
        : new KeelsonError(code, error instanceof Error ? error.message : String(error), {
            outcome: 'unknown',
            cause: error,
          });
    this.stop(failure);
    this.logger.error(
      { event: 'node.failed', code: failure.code, reason: failure.message },
      'the node has stopped: it acknowledges and serves nothing until it is started again',
    );
    this.observer.failed(failure);
  }

  // Steps ----------------------------------------------------------------------------------------

  /** Gives the engine an event and runs what comes out. A broken invariant stops the node. */
  private step(event: () => void): void {
    try {
      event();
    } catch (error) {
      this.fail(error);
      return;
    }
    this.run();
  }

  /** Runs what the engine wants done, and what comes of that. */
  run(): void {
    if (this.running || this.stopReason !== undefined) return;
    this.running = true;
    try {
      for (;;) {
        const command = this.engine.nextCommand();
        if (command === undefined) break;
        this.execute(command);
        // By a machine that threw, or by what came of its apply.
        if (this.stopReason !== undefined) return;
      }
      this.staging.staged = undefined;
      this.armTimer();
    } catch (error) {
      this.fail(error);
    } finally {
      this.running = false;
    }
  }

  private execute(command: Command): void {
    switch (command.type) {
      case 'AppendEntries':
        this.logLane.append(command);
        return;
      case 'Replicate':
        this.replicateLane.replicate(command);
        return;
      case 'Send':
        this.network.send(command.target, command.message);
        return;
      case 'Apply':
        this.applyLane.extend(command.lastIndex);
        return;
      case 'Commit':
        this.logLane.committed(command.index);
        this.storeWritable();
        return;
      case 'SaveVote':
        this.logLane.saveVote(command.io);
        return;
      case 'TruncateAfter':
        this.logLane.truncateAfter(command);
        return;
      case 'AdvanceIo':
        this.logLane.advanceIo(command.io);
        return;
      case 'PurgeUpTo':
        this.logLane.purge(command.upTo);
        return;
      case 'ResetLog':
        this.logLane.reset(command);
        return;
      case 'BuildSnapshot':
        this.snapshotLane.begin();
        return;
      case 'SendSnapshot':
        this.exchange.send(command);
        return;
      case 'InstallSnapshot':
        this.exchange.install(command);
        return;
      case 'ReadReady':
        this.reads.ready(command.round, command.index);
        return;
      case 'ReadFailed':
        this.reads.failed(command.round, this.errors.notLeader());
        return;
      case 'LeadershipChanged':
        this.proposer.roomAgain();
        this.exchange.sweep();
        if (command.role === 'leader') this.exchange.leads();
        this.observer.leadership();
        return;
      case 'MembershipChanged':
        this.observer.membership(command.membership);
        return;
    }
  }

  // Time -----------------------------------------------------------------------------------------

  /** One timer, armed for whatever comes first; a deadline that moved away only costs an early call. */
  private armTimer(): void {
    const atMs = Math.min(this.engine.nextDeadline(), this.proposals.earliestDeadlineMs);
    if (atMs >= this.timerAtMs) return;
    this.timer?.cancel();
    this.timerAtMs = atMs;
    this.timer = this.scheduler.setTimer(Math.max(0, atMs - this.scheduler.now()), this.onTimer);
  }

  private readonly onTimer = (): void => {
    this.timerAtMs = Number.POSITIVE_INFINITY;
    if (this.stopReason !== undefined) return;
    const now = this.scheduler.now();
    this.step(() => {
      this.proposals.expire(
        now,
        () => new KeelsonError('KEELSON_TIMEOUT', 'no answer in time', { outcome: 'unknown' }),
      );
      this.engine.elapse(now);
      this.logLane.checkDisk(now);
    });
  };
}
