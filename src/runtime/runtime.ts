import { pack, unpack } from 'msgpackr';
import { invariant } from '../base/assert.js';
import { type ErrorCode, KeelsonError, type LeaderHint, toErrorRecord } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { AppendEntries, Command } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { AppendRequest, ControlMessage, ReceivedEntries } from '../engine/messages.js';
import type { IoId, LogIndex, Membership, NodeId, StoredMembership } from '../engine/types.js';
import type {
  ForwardRequest,
  ForwardResponse,
  Network,
  NetworkHandler,
} from '../network/network.js';
import type { MachineEvents, MachineHost } from '../state-machine/machine-host.js';
import type { LogStore, StagedEntries } from '../storage/log-store.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import { ApplyLane, type ApplyLimits } from './apply-lane.js';
import { CallScope } from './call-scope.js';
import { FlushWatch } from './flush-watch.js';
import { decodeMembership, encodeMembership, NO_MEMBERSHIP } from './membership-codec.js';
import { type ProposalLimits, Proposals } from './proposals.js';
import { ReadLane } from './read-lane.js';
import { ReplicateLane } from './replicate-lane.js';

/**
 * Drives one group on one node: turns what happens (client calls, messages, completions, time) into
 * engine events and runs the commands that come out, all of them in one call. It decides nothing
 * itself.
 *
 * Everything runs on one thread, in short steps. Writes that arrive in one turn of the run queue
 * become one block; a step never waits for I/O.
 */
export interface RuntimeParts {
  readonly group: number;
  readonly nodeId: NodeId;
  readonly engine: Engine;
  readonly store: LogStore;
  readonly network: Network;
  readonly machine: MachineHost;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly limits: RuntimeLimits;
  /** Index that the machine has applied already, 0 for a machine in memory. */
  readonly machineApplied: number;
  readonly observer: RuntimeObserver;
}

export interface RuntimeLimits extends ProposalLimits, ApplyLimits {
  readonly maxEntryBytes: number;
  readonly callTimeoutMs: number;
  readonly flushStallMs: number;
}

/** What the owner of a runtime is told; each is called between two steps. */
export interface RuntimeObserver {
  /** Role, term, leader, membership or an index has changed. */
  changed(): void;
  leadership(): void;
  membership(membership: Membership): void;
  failed(error: KeelsonError): void;
}

const EMPTY = new Uint8Array(0);
const NO_MEMBERSHIPS: readonly StoredMembership[] = [];

/** The write has happened, whatever becomes of its response. */
function packResponse(response: unknown, index: LogIndex): Uint8Array {
  try {
    return pack(response);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new KeelsonError(
      'KEELSON_STATE_MACHINE_FAILED',
      `the write is applied at index ${index}, but its response cannot be encoded: ${reason}`,
      { outcome: 'unknown', details: { index }, cause },
    );
  }
}

/** What the engine is told of an empty probe. */
function noEntries(lastIndex: LogIndex): ReceivedEntries {
  return { termRuns: [], lastIndex, memberships: NO_MEMBERSHIPS };
}

/** What the engine is told of verified entries. */
function describe({ termRuns, lastIndex, memberships }: StagedEntries): ReceivedEntries {
  if (memberships.length === 0) return { termRuns, lastIndex, memberships: NO_MEMBERSHIPS };
  return {
    termRuns,
    lastIndex,
    memberships: memberships.map(({ index, payload }) => ({
      index,
      membership: decodeMembership(payload, index),
    })),
  };
}

export class Runtime implements NetworkHandler, MachineEvents {
  readonly engine: Engine;
  readonly reads: ReadLane;
  private readonly group: number;
  private readonly nodeId: NodeId;
  private readonly store: LogStore;
  private readonly network: Network;
  private readonly scheduler: Scheduler;
  private readonly logger: Logger;
  private readonly limits: RuntimeLimits;
  private readonly observer: RuntimeObserver;
  private readonly proposals: Proposals;
  private readonly flushWatch: FlushWatch;
  private readonly applyLane: ApplyLane;
  private readonly replicateLane: ReplicateLane;
  /** What the next `AppendEntries` command with source `client` or `received` refers to. */
  private staged: StagedEntries | undefined;
  private lastTime: number;
  private running = false;
  private appendScheduled = false;
  private lastProposal: Promise<unknown> | undefined;
  /** The log or the engine has refused writes since it last had room. */
  private refusing = false;
  private timer: Timer | undefined;
  private timerAtMs = Number.POSITIVE_INFINITY;
  private stopReason: KeelsonError | undefined;

  constructor(parts: RuntimeParts) {
    this.group = parts.group;
    this.nodeId = parts.nodeId;
    this.engine = parts.engine;
    this.store = parts.store;
    this.network = parts.network;
    this.scheduler = parts.scheduler;
    this.logger = parts.logger;
    this.limits = parts.limits;
    this.observer = parts.observer;
    this.lastTime = parts.store.lastTime(parts.group);
    this.proposals = new Proposals(parts.limits);
    this.flushWatch = new FlushWatch(parts.limits.flushStallMs);
    this.reads = new ReadLane(parts.machineApplied);
    const fail = (error: unknown): void => this.fail(error, 'KEELSON_STORAGE_FAILED');
    this.applyLane = new ApplyLane(
      parts.group,
      parts.store,
      parts.machine,
      parts.limits,
      parts.machineApplied,
      fail,
    );
    this.replicateLane = new ReplicateLane(
      parts.group,
      parts.engine,
      parts.store,
      parts.network,
      () => this.run(),
      fail,
    );
  }

  /** Begins to tick. `bootstrap` is written when the log is pristine. */
  start(bootstrap: Membership | undefined): void {
    this.step(() => {
      if (bootstrap !== undefined && this.engine.isPristine) this.engine.bootstrap(bootstrap);
      this.engine.elapse(this.scheduler.now());
    });
  }

  /** Why this node has stopped; undefined while it runs. */
  get stopped(): KeelsonError | undefined {
    return this.stopReason;
  }

  /** The effective membership, committed or not. */
  get membership(): Membership {
    return this.engine.membership ?? NO_MEMBERSHIP;
  }

  get pendingWrites(): number {
    return this.proposals.pending;
  }

  /** Ends all waiting; nothing is decided or acknowledged any more. */
  stop(reason: KeelsonError): void {
    if (this.stopReason !== undefined) return;
    this.stopReason = reason;
    this.timer?.cancel();
    this.applyLane.stop();
    const { code, message } = reason;
    const unknown = new KeelsonError(code, message, { outcome: 'unknown', cause: reason });
    this.proposals.failAll(unknown, this.stoppedRefusal(reason));
    this.reads.failAll(this.stoppedRefusal(reason));
  }

  /** Whatever stopped the node, what is asked of it afterwards changes nothing. */
  private stoppedRefusal(reason: KeelsonError): KeelsonError {
    const { code, message, outcome } = reason;
    return outcome === 'rejected' ? reason : new KeelsonError(code, message, { cause: reason });
  }

  // Client calls ---------------------------------------------------------------------------------

  /** Proposes one command on the leader; the caller has checked `canPropose`. */
  propose(payload: Uint8Array, timeoutMs: number): Promise<unknown> {
    const refusal = this.refusal(1, payload.length, payload.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.scheduleAppend();
    const proposal = this.proposals.add(payload, timeoutMs);
    this.lastProposal = proposal;
    return proposal;
  }

  proposeMany(payloads: readonly Uint8Array[], timeoutMs: number): Promise<unknown> {
    let bytes = 0;
    let largest = 0;
    for (const payload of payloads) {
      bytes += payload.length;
      if (payload.length > largest) largest = payload.length;
    }
    const refusal = this.refusal(payloads.length, bytes, largest);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.scheduleAppend();
    const proposal = this.proposals.addMany(payloads, bytes, timeoutMs);
    this.lastProposal = proposal;
    return proposal;
  }

  /** Lets go of the write that was proposed last when its signal fires. */
  abortable<T>(proposal: Promise<T>, scope: CallScope): Promise<T> {
    // A refused proposal has no slot; the last one is somebody else's.
    if (proposal !== this.lastProposal) return proposal;
    const ticket = this.proposals.lastTicket();
    const { signal } = scope;
    if (signal === undefined) return proposal;
    const onAbort = (): void => this.proposals.cancel(ticket, scope.aborted('unknown'));
    signal.addEventListener('abort', onAbort, { once: true });
    return proposal.finally(() => signal.removeEventListener('abort', onAbort));
  }

  /** Room for at least one more write. */
  get canAccept(): boolean {
    return !this.refusing && this.proposals.hasRoom(1, this.limits.maxEntryBytes);
  }

  private refusal(entries: number, bytes: number, largest: number): KeelsonError | undefined {
    if (this.stopReason !== undefined) return this.stoppedRefusal(this.stopReason);
    const { maxEntryBytes, maxBlockEntries, maxBlockBytes } = this.limits;
    if (largest > maxEntryBytes) {
      return new KeelsonError(
        'KEELSON_ENTRY_TOO_LARGE',
        `a command of ${largest} bytes exceeds limits.maxEntryBytes (${maxEntryBytes})`,
      );
    }
    if (entries > maxBlockEntries || bytes > maxBlockBytes) {
      return new KeelsonError(
        'KEELSON_ENTRY_TOO_LARGE',
        `${entries} commands of ${bytes} bytes exceed one batch (${maxBlockEntries} commands, ${maxBlockBytes} bytes)`,
      );
    }
    if (this.proposals.hasRoom(entries, bytes)) return undefined;
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      `${this.proposals.pending} writes wait already; try again when writable() resolves`,
    );
  }

  private scheduleAppend(): void {
    if (this.appendScheduled) return;
    this.appendScheduled = true;
    // While earlier writes are under way, the clients of other sockets may join in: one block costs
    // the disk and each follower the same as one write. With nothing under way, nobody waits.
    if (this.proposals.pending === 0) this.scheduler.enqueue(this.appendProposals);
    else this.scheduler.enqueueLate(this.appendProposals);
  }

  /** Everything that this turn brought becomes as few blocks as the limits allow. */
  private readonly appendProposals = (): void => {
    this.appendScheduled = false;
    while (this.proposals.hasUnappended && this.stopReason === undefined) {
      const { count, payloads } = this.proposals.nextChunk();
      const firstIndex = this.engine.lastLogId.index + 1;
      const term = this.engine.term;
      let staged: StagedEntries;
      try {
        staged = this.stage(ENTRY_KIND.application, firstIndex, term, payloads, count);
      } catch (error) {
        this.refuseProposals(error);
        return;
      }
      if (this.engine.clientWrite(count) !== firstIndex) {
        this.refuseProposals(this.notAccepted());
        return;
      }
      this.proposals.appendedAs(count, firstIndex, term, this.scheduler.now());
      this.staged = staged;
      this.run();
    }
  };

  private refuseProposals(error: unknown): void {
    if (error instanceof KeelsonError && error.outcome === 'rejected') {
      this.refusing = error.code === 'KEELSON_OVERLOADED';
      this.proposals.refuseUnappended(error);
    } else {
      this.fail(error, 'KEELSON_STORAGE_FAILED');
    }
  }

  private notAccepted(): KeelsonError {
    if (this.engine.role !== 'leader') return this.notLeader();
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      'too many entries wait for a quorum; try again when writable() resolves',
    );
  }

  notLeader(): KeelsonError {
    return new KeelsonError('KEELSON_NOT_LEADER', `node ${this.nodeId} does not lead`, {
      leader: this.leaderHint(),
    });
  }

  leaderHint(): LeaderHint | undefined {
    const nodeId = this.engine.leader;
    if (nodeId === 0) return undefined;
    return { nodeId, address: this.membership.addresses[nodeId] };
  }

  private stage(
    kind: number,
    firstIndex: number,
    term: number,
    payloads: readonly Uint8Array[],
    count: number,
  ): StagedEntries {
    // Never decreases along the log, whatever the clocks of past leaders said.
    this.lastTime = Math.max(this.lastTime, this.scheduler.wallTime());
    return this.store.stage(this.group, {
      firstIndex,
      term,
      time: this.lastTime,
      kind,
      payloads,
      count,
    });
  }

  /** There is room in the log again, or there may be: something was committed. */
  storeWritable(): void {
    this.refusing = false;
    this.observer.changed();
  }

  /** Asks for the index that a linearizable read must see; only on a leader. */
  readIndex(scope: CallScope): Promise<number> {
    if (this.stopReason !== undefined) return Promise.reject(this.stopReason);
    const round = this.engine.requestRead();
    if (round === 0) return Promise.reject(this.notLeader());
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
    } catch (error) {
      this.fail(error, 'KEELSON_STORAGE_FAILED');
      return;
    }
    this.run();
  }

  append(from: NodeId, request: AppendRequest, parts: readonly Uint8Array[]): void {
    if (this.stopReason !== undefined) return;
    const firstIndex = request.prevLogId.index + 1;
    try {
      if (request.lastIndex < firstIndex) {
        this.engine.elapse(this.scheduler.now());
        this.engine.handleAppend(from, request, noEntries(request.prevLogId.index));
      } else {
        const staged = this.receiveEntries(from, request, firstIndex, parts);
        if (staged === undefined) return;
        this.staged = staged;
        if (staged.lastTime > this.lastTime) this.lastTime = staged.lastTime;
        this.engine.elapse(this.scheduler.now());
        this.engine.handleAppend(from, request, describe(staged));
      }
    } catch (error) {
      this.fail(error, 'KEELSON_STORAGE_FAILED');
      return;
    }
    this.run();
  }

  /** Undefined when the message is dropped; the leader finds out by the gap and sends again. */
  private receiveEntries(
    from: NodeId,
    request: AppendRequest,
    firstIndex: number,
    parts: readonly Uint8Array[],
  ): StagedEntries | undefined {
    try {
      const staged = this.store.receive(this.group, firstIndex, parts);
      if (staged.lastIndex === request.lastIndex) return staged;
      this.logger.warn(
        { event: 'append.malformed', from, lastIndex: request.lastIndex },
        'dropped an append whose entries end at another index than it says',
      );
    } catch (error) {
      if (!(error instanceof KeelsonError) || error.outcome === 'unknown') {
        this.fail(error, 'KEELSON_STORAGE_FAILED');
        return undefined;
      }
      this.logger.warn(
        { event: 'append.dropped', from, code: error.code, reason: error.message },
        'dropped an append',
      );
    }
    return undefined;
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
    });
  }

  writable(peer: NodeId): void {
    if (this.stopReason !== undefined) return;
    this.step(() => this.replicateLane.writable(peer));
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
    this.fail(error, 'KEELSON_HANDSHAKE_REFUSED');
  }

  /** A follower asks on behalf of its client. It has sent it one hop; it goes no further. */
  async request(_from: NodeId, request: ForwardRequest): Promise<ForwardResponse> {
    try {
      const scope = new CallScope(
        this.scheduler,
        { timeoutMs: request.timeoutMs },
        this.limits.callTimeoutMs,
      );
      if (request.kind === 'readIndex') {
        return { payload: EMPTY, index: await this.readIndex(scope), term: this.engine.term };
      }
      if (this.engine.role !== 'leader') throw this.notLeader();
      // The bytes belong to the network's buffer, and are read again only at the end of this turn.
      const payload = request.payload.slice();
      const result = (await this.propose(payload, scope.remainingMs())) as {
        response: unknown;
        logId: { term: number; index: number };
      };
      const { term, index } = result.logId;
      return { payload: packResponse(result.response, index), index, term };
    } catch (error) {
      return {
        payload: EMPTY,
        index: 0,
        term: 0,
        error: toErrorRecord(error, 'KEELSON_INVALID_ARGUMENT'),
      };
    }
  }

  /** What `request` answered to a forwarded write. */
  static decodeResponse(payload: Uint8Array): unknown {
    return payload.length === 0 ? undefined : unpack(payload);
  }

  // Completions ----------------------------------------------------------------------------------

  flushed(_group: number, io: IoId): void {
    if (this.stopReason !== undefined) return;
    this.flushWatch.flushedUpTo(io.sequence);
    try {
      this.engine.logFlushed(io.sequence);
    } catch (error) {
      this.fail(error, 'KEELSON_STORAGE_FAILED');
      return;
    }
    this.run();
  }

  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void {
    if (this.stopReason !== undefined) return;
    this.engine.applied(lastIndex);
    this.proposals.applied(firstIndex, lastIndex, responses);
    this.reads.applied(lastIndex);
    this.applyLane.completed();
    this.observer.changed();
    this.run();
  }

  /** From the store or the state machine: this node can go on no longer. */
  failed(error: Error): void {
    this.fail(error, 'KEELSON_STATE_MACHINE_FAILED');
  }

  private fail(error: unknown, code: ErrorCode): void {
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
      this.fail(error, 'KEELSON_STORAGE_FAILED');
      return;
    }
    this.run();
  }

  private run(): void {
    if (this.running || this.stopReason !== undefined) return;
    this.running = true;
    try {
      for (;;) {
        const commands = this.engine.takeCommands();
        if (commands.length === 0) break;
        for (const command of commands) this.execute(command);
      }
      this.staged = undefined;
      this.armTimer();
    } catch (error) {
      this.fail(error, 'KEELSON_STORAGE_FAILED');
    } finally {
      this.running = false;
    }
  }

  private execute(command: Command): void {
    switch (command.type) {
      case 'AppendEntries':
        this.appendEntries(command);
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
        this.store.recordCommitted(this.group, command.index);
        this.storeWritable();
        return;
      case 'SaveVote':
        this.flushWatch.submittedUpTo(command.io.sequence);
        this.store.saveVote(this.group, command.io);
        return;
      case 'TruncateAfter':
        // Before what is overwritten: the slots that have no place yet stand behind it.
        this.proposals.refuseUnappended(this.notLeader());
        this.proposals.truncatedAfter(command.index, this.overwritten());
        this.flushWatch.submittedUpTo(command.io.sequence);
        this.store.truncateAfter(this.group, command.index, command.io);
        return;
      case 'AdvanceIo':
        this.flushWatch.submittedUpTo(command.io.sequence);
        this.store.advanceIo(this.group, command.io);
        return;
      case 'ReadReady':
        this.reads.ready(command.round, command.index);
        return;
      case 'ReadFailed':
        this.reads.failed(command.round, this.notLeader());
        return;
      case 'LeadershipChanged':
        this.refusing = false;
        this.observer.leadership();
        return;
      case 'MembershipChanged':
        this.observer.membership(command.membership);
        return;
    }
  }

  private appendEntries(command: AppendEntries): void {
    const staged = this.stagedFor(command);
    this.flushWatch.submittedUpTo(command.io.sequence);
    this.store.append(this.group, staged, command.firstIndex, command.io);
  }

  private stagedFor(command: AppendEntries): StagedEntries {
    const { source, firstIndex, term } = command;
    if (source === 'blank') return this.stage(ENTRY_KIND.blank, firstIndex, term, [EMPTY], 1);
    if (source === 'bootstrap') {
      // Identical bytes on every node: no clock.
      const payloads = [encodeMembership(this.membership)];
      const kind = ENTRY_KIND.membership;
      return this.store.stage(this.group, { firstIndex, term, time: 0, kind, payloads, count: 1 });
    }
    const { staged } = this;
    invariant(
      staged !== undefined && staged.lastIndex === command.lastIndex,
      'entries are staged when they are appended',
    );
    return staged;
  }

  private overwritten(): KeelsonError {
    return new KeelsonError(
      'KEELSON_LEADERSHIP_LOST',
      'the entry was overwritten by another leader before this node saw it committed',
      { outcome: 'unknown', leader: this.leaderHint() },
    );
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
    this.proposals.expire(
      now,
      () => new KeelsonError('KEELSON_TIMEOUT', 'no answer in time', { outcome: 'unknown' }),
    );
    this.step(() => {
      this.engine.elapse(now);
      this.checkDisk(now);
    });
  };

  private checkDisk(nowMs: number): void {
    const stalledMs = this.flushWatch.stalledMs(nowMs);
    if (stalledMs === 0 || this.engine.role !== 'leader') return;
    this.logger.error(
      { event: 'storage.stalled', stalledMs: Math.round(stalledMs) },
      'nothing has become durable for longer than storage.flushStallMs: handing over',
    );
    this.engine.stepDown();
  }
}
