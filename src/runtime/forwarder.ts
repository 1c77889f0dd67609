import type { WriteResult } from '../api.js';
import { fromErrorRecord, KeelsonError } from '../base/errors.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { LogIndex, NodeId } from '../engine/types.js';
import type { ForwardResponse, Network } from '../network/network.js';
import { CallScope } from './call-scope.js';
import { writeResultOf } from './forwarded-requests.js';
import type { Observers } from './observers.js';
import { NO_ROOM_CODES } from './proposer.js';
import { RequestWindow, type RequestWindowLimits } from './request-window.js';
import type { Runtime } from './runtime.js';

/**
 * Client calls on a node that does not lead: waits until a leader is known and sends the request one
 * hop, with the time that is left.
 *
 * - A write counts in the one budget of this node until it is answered, and is refused before it waits
 *   or is sent. What was admitted once stays so, however often the leader changes.
 * - What was admitted waits for its place among the requests that the network takes at once.
 * - A write that was sent is never sent again, unless the answer says that it was refused before it
 *   changed anything.
 * - A question for the read index changes nothing, so it is asked again, of whoever leads then, when
 *   the leader or the connection is lost, or when no answer comes within an election timeout: for so
 *   long a leader that cannot confirm itself is none.
 */
const RETRY_MS = 20;

export class Forwarder {
  private readonly nodeId: NodeId;
  private readonly runtime: Runtime;
  private readonly network: Network;
  private readonly scheduler: Scheduler;
  private readonly observers: Observers;
  private readonly readTimeoutMs: number;
  private readonly window: RequestWindow;
  /** Gives up the questions that were sent to an earlier leader. */
  private readonly abandonReads: Set<() => void> = new Set();
  /** Runs while another node is taken to have no room. */
  private noRoomTimer: Timer | undefined;

  constructor(
    nodeId: NodeId,
    runtime: Runtime,
    network: Network,
    scheduler: Scheduler,
    observers: Observers,
    limits: ForwarderLimits,
  ) {
    this.nodeId = nodeId;
    this.runtime = runtime;
    this.network = network;
    this.scheduler = scheduler;
    this.observers = observers;
    this.readTimeoutMs = limits.electionTimeoutMs;
    this.window = new RequestWindow(limits);
  }

  /** Replicates a command, here or through the leader. */
  write(payload: Uint8Array, scope: CallScope): Promise<WriteResult<unknown>> {
    const refusal = this.runtime.proposer.refusalOf([payload]);
    if (refusal !== undefined) return Promise.reject(refusal);
    return this.forward(payload, scope);
  }

  /** Replicates commands, side by side where this node leads, each on its own through the leader. */
  writeMany(payloads: readonly Uint8Array[], scope: CallScope): Promise<WriteResult<unknown>[]> {
    const { engine, proposer } = this.runtime;
    const sendOn = (): Promise<WriteResult<unknown>[]> => this.writeEach(payloads, scope);
    if (engine.role === 'leader') {
      const proposal = proposer.proposeMany(payloads, scope.remainingMs(), sendOn);
      return proposer.abortable(proposal as Promise<WriteResult<unknown>[]>, scope);
    }
    const refusal = proposer.refusalOf(payloads);
    return refusal === undefined ? sendOn() : Promise.reject(refusal);
  }

  /** Takes over a write that this node was given as a leader and may propose no longer. */
  takeOver(payload: Uint8Array, timeoutMs: number): Promise<WriteResult<unknown>> {
    return this.forward(payload, new CallScope(this.scheduler, { timeoutMs }, timeoutMs));
  }

  private async writeEach(
    payloads: readonly Uint8Array[],
    scope: CallScope,
  ): Promise<WriteResult<unknown>[]> {
    const results = await Promise.allSettled(
      payloads.map((payload) => this.forward(payload, scope)),
    );
    const failures = results.flatMap((result) =>
      result.status === 'rejected' ? [result.reason as unknown] : [],
    );
    const [first] = failures;
    if (first === undefined) {
      return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    }
    if (failures.length === payloads.length && failures.every(isRejection)) throw first;
    // Some commands took effect, or may have: the call as a whole is not safe to repeat.
    const message = first instanceof Error ? first.message : String(first);
    throw new KeelsonError(
      first instanceof KeelsonError ? first.code : 'KEELSON_LEADERSHIP_LOST',
      `${failures.length} of ${payloads.length} commands failed, the first with: ${message}`,
      { outcome: 'unknown', cause: first },
    );
  }

  /** Holds a write that was admitted until it is answered, or proposed by this node. */
  private async forward(payload: Uint8Array, scope: CallScope): Promise<WriteResult<unknown>> {
    const { proposals } = this.runtime.proposer;
    proposals.hold(payload);
    try {
      const place = this.window.enter(payload.length, scope);
      if (place !== undefined) await place;
      const response = await this.sendInPlace(payload, scope);
      if (response !== undefined) return writeResultOf(response);
    } finally {
      proposals.letGo(payload);
      this.observers.changed();
    }
    // In the same step as it was let go: nobody else gets its room.
    return await this.propose(payload, scope);
  }

  /** Sends a write that has a place, to whoever leads; undefined when that is this node. */
  private async sendInPlace(
    payload: Uint8Array,
    scope: CallScope,
  ): Promise<ForwardResponse | undefined> {
    const leave = (): void => this.window.leave(payload.length);
    let sent: Promise<ForwardResponse> | undefined;
    try {
      for (;;) {
        const leader = await this.leader(scope);
        if (leader === this.nodeId) return undefined;
        try {
          const timeoutMs = scope.remainingMs();
          sent = this.network.request(leader, { kind: 'write', payload, timeoutMs });
          return checked(await scope.race(sent, 'unknown'));
        } catch (error) {
          if (isRefusedForWantOfRoom(error)) this.waitForRoomElsewhere();
          if (!isRefusedByLeader(error)) throw error;
          await this.pause(scope, error);
        }
      }
    } finally {
      // Whoever gave up waiting for the answer leaves a request that the network still holds.
      if (sent === undefined) leave();
      else sent.then(leave, leave);
    }
  }

  private propose(payload: Uint8Array, scope: CallScope): Promise<WriteResult<unknown>> {
    const { proposer } = this.runtime;
    const sendOn = (): Promise<WriteResult<unknown>> => this.forward(payload, scope);
    const proposal = proposer.propose(payload, scope.remainingMs(), sendOn);
    return proposer.abortable(proposal as Promise<WriteResult<unknown>>, scope);
  }

  /**
   * This node sees commits, but not the room that another one has: writers that wait for it try again
   * after a pause at the latest.
   */
  private waitForRoomElsewhere(): void {
    this.runtime.proposer.noRoomElsewhere();
    this.noRoomTimer ??= this.scheduler.setTimer(RETRY_MS, () => {
      this.noRoomTimer = undefined;
      this.runtime.storeWritable();
    });
  }

  /** The index that a linearizable read must see, from whoever leads. */
  async readIndex(scope: CallScope): Promise<LogIndex> {
    for (;;) {
      const leader = await this.leader(scope);
      try {
        if (leader === this.nodeId) return await this.runtime.readIndex(scope);
        return checked(await scope.race(this.ask(leader, scope), 'rejected')).index;
      } catch (error) {
        const rejection = rejectionOf(error);
        if (!isUnanswered(error)) throw rejection;
        await this.pause(scope, rejection);
      }
    }
  }

  private ask(leader: NodeId, scope: CallScope): Promise<ForwardResponse> {
    const timeoutMs = Math.min(scope.remainingMs(), this.readTimeoutMs);
    return new Promise((resolve, reject) => {
      const abandon = (): void => reject(this.runtime.errors.notLeader());
      const done = (): void => {
        this.abandonReads.delete(abandon);
        this.window.leaveRead();
      };
      this.abandonReads.add(abandon);
      this.window.enterRead();
      this.network
        .request(leader, { kind: 'readIndex', payload: NO_PAYLOAD, timeoutMs })
        .then(resolve, reject)
        .finally(done);
    });
  }

  /** Another node leads, or none: the former leader may hang, and its answer would come late. */
  leadershipChanged(): void {
    for (const abandon of this.abandonReads) abandon();
    this.abandonReads.clear();
  }

  /** Waits until somebody leads. */
  private async leader(scope: CallScope): Promise<NodeId> {
    const { engine } = this.runtime;
    for (;;) {
      if (this.runtime.serviceRefusal !== undefined) throw this.runtime.serviceRefusal;
      if (scope.signal?.aborted === true) throw scope.aborted('rejected');
      if (engine.leader !== 0) return engine.leader;
      const timeoutMs = scope.remainingMs();
      if (timeoutMs === 0) throw noLeader();
      const { signal } = scope;
      try {
        await this.observers.waitFor(
          () => engine.leader !== 0,
          signal === undefined ? { timeoutMs } : { timeoutMs, signal },
          timeoutMs,
        );
      } catch (error) {
        if (error instanceof KeelsonError && error.code === 'KEELSON_TIMEOUT')
          throw noLeader(error);
        throw error;
      }
    }
  }

  /**
   * The leader that is known here has lost its office, or has not gained it yet.
   * @throws the reason for the pause, when no time is left for another attempt
   */
  private pause(scope: CallScope, reason: unknown): Promise<void> {
    if (scope.remainingMs() <= 2 * RETRY_MS) throw reason;
    const delayMs = RETRY_MS * (1 + this.scheduler.random());
    return scope.race(
      new Promise<void>((resolve) => {
        this.scheduler.setTimer(delayMs, resolve);
      }),
      'rejected',
    );
  }
}

export interface ForwarderLimits extends RequestWindowLimits {
  readonly electionTimeoutMs: number;
}

const NO_PAYLOAD = new Uint8Array(0);

function noLeader(cause?: unknown): KeelsonError {
  return new KeelsonError('KEELSON_NO_LEADER', 'no leader was known within the time of the call', {
    cause,
  });
}

/** @throws KeelsonError what the leader answered in place of a result */
function checked(response: ForwardResponse): ForwardResponse {
  if (response.error !== undefined) throw fromErrorRecord(response.error);
  return response;
}

/** The leader is lost, or hangs, or there was none: asking again may help. */
export function isUnanswered(error: unknown): boolean {
  if (!(error instanceof KeelsonError)) return false;
  const { code } = error;
  return (
    code === 'KEELSON_NOT_LEADER' || code === 'KEELSON_NO_LEADER' || code === 'KEELSON_TIMEOUT'
  );
}

/** A question changed nothing, whatever became of it. */
function rejectionOf(error: unknown): unknown {
  if (!(error instanceof KeelsonError) || error.outcome === 'rejected') return error;
  return new KeelsonError(error.code, error.message, { cause: error });
}

function isRejection(error: unknown): error is KeelsonError {
  return error instanceof KeelsonError && error.outcome === 'rejected';
}

function isRefusedByLeader(error: unknown): boolean {
  if (!isRejection(error)) return false;
  return error.code === 'KEELSON_NOT_LEADER' || error.code === 'KEELSON_NO_LEADER';
}

function isRefusedForWantOfRoom(error: unknown): boolean {
  return isRejection(error) && NO_ROOM_CODES.includes(error.code);
}
