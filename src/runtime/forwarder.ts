import type { WriteResult } from '../api.js';
import { fromErrorRecord, KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { LogIndex, NodeId } from '../engine/types.js';
import type { ForwardRequest, ForwardResponse, Network } from '../network/network.js';
import type { CallScope } from './call-scope.js';
import { writeResultOf } from './forwarded-requests.js';
import type { Observers } from './observers.js';
import type { Runtime } from './runtime.js';

/**
 * Client calls on a node that does not lead: waits until a leader is known and sends the request one
 * hop, with the time that is left. A request that was sent is never sent again, unless the answer says
 * that it was refused before it changed anything.
 */
const RETRY_MS = 20;
const NO_PAYLOAD = new Uint8Array(0);

export class Forwarder {
  private readonly nodeId: NodeId;
  private readonly runtime: Runtime;
  private readonly network: Network;
  private readonly scheduler: Scheduler;
  private readonly observers: Observers;

  constructor(
    nodeId: NodeId,
    runtime: Runtime,
    network: Network,
    scheduler: Scheduler,
    observers: Observers,
  ) {
    this.nodeId = nodeId;
    this.runtime = runtime;
    this.network = network;
    this.scheduler = scheduler;
    this.observers = observers;
  }

  /** Replicates a command, here or through the leader. */
  write(payload: Uint8Array, scope: CallScope): Promise<WriteResult<unknown>> {
    const { proposer } = this.runtime;
    return this.call<WriteResult<unknown>>(
      scope,
      (timeoutMs) => ({ kind: 'write', payload, timeoutMs }),
      writeResultOf,
      () => {
        const proposal = proposer.propose(payload, scope.remainingMs());
        return proposer.abortable(proposal as Promise<WriteResult<unknown>>, scope);
      },
    );
  }

  /** The index that a linearizable read must see, from whoever leads. */
  readIndex(scope: CallScope): Promise<LogIndex> {
    return this.call(
      scope,
      (timeoutMs) => ({ kind: 'readIndex', payload: NO_PAYLOAD, timeoutMs }),
      ({ index }) => index,
      () => this.runtime.readIndex(scope),
    );
  }

  /** `local` runs when this node leads; otherwise `request` goes to the leader. */
  private async call<T>(
    scope: CallScope,
    request: (timeoutMs: number) => ForwardRequest,
    decode: (response: ForwardResponse) => T,
    local: () => Promise<T>,
  ): Promise<T> {
    for (;;) {
      const leader = await this.leader(scope);
      try {
        if (leader === this.nodeId) return await local();
        return decode(await this.send(leader, scope, request(scope.remainingMs())));
      } catch (error) {
        if (!mayRetry(error) || scope.remainingMs() <= 2 * RETRY_MS) throw error;
        await this.pause(scope);
      }
    }
  }

  private async send(
    leader: NodeId,
    scope: CallScope,
    request: ForwardRequest,
  ): Promise<ForwardResponse> {
    const outcome = request.kind === 'write' ? 'unknown' : 'rejected';
    const response = await scope.race(this.network.request(leader, request), outcome);
    if (response.error !== undefined) throw fromErrorRecord(response.error);
    return response;
  }

  /** Waits until somebody leads. */
  private async leader(scope: CallScope): Promise<NodeId> {
    const { engine } = this.runtime;
    for (;;) {
      if (this.runtime.stopRefusal !== undefined) throw this.runtime.stopRefusal;
      if (scope.signal?.aborted === true) throw scope.aborted('rejected');
      if (engine.leader !== 0) return engine.leader;
      const timeoutMs = scope.remainingMs();
      if (timeoutMs === 0) throw noLeader();
      const { signal } = scope;
      try {
        await this.observers.waitFor(
          () => engine.leader !== 0 || this.runtime.stopRefusal !== undefined,
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

  /** The leader that is known here has lost its office, or has not gained it yet. */
  private pause(scope: CallScope): Promise<void> {
    const delayMs = RETRY_MS * (1 + this.scheduler.random());
    return scope.race(
      new Promise<void>((resolve) => {
        this.scheduler.setTimer(delayMs, resolve);
      }),
      'rejected',
    );
  }
}

function noLeader(cause?: unknown): KeelsonError {
  return new KeelsonError('KEELSON_NO_LEADER', 'no leader was known within the time of the call', {
    cause,
  });
}

function mayRetry(error: unknown): boolean {
  return (
    error instanceof KeelsonError &&
    error.outcome === 'rejected' &&
    (error.code === 'KEELSON_NOT_LEADER' || error.code === 'KEELSON_NO_LEADER')
  );
}
