import type { WriteResult } from '../api.js';
import { toErrorRecord } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { ForwardRequest, ForwardResponse } from '../network/network.js';
import { CallScope, timeoutError } from './call-scope.js';
import { packResponse, unpackResponse } from './response-codec.js';
import type { Runtime } from './runtime.js';

/**
 * Answers what a follower asks on behalf of its clients. A request has come one hop and goes no
 * further: a node that does not lead, or has stopped, refuses it. Errors travel as records, with
 * their outcome.
 */
export class ForwardedRequests {
  private readonly runtime: Runtime;
  private readonly scheduler: Scheduler;
  private readonly callTimeoutMs: number;

  constructor(runtime: Runtime, scheduler: Scheduler, callTimeoutMs: number) {
    this.runtime = runtime;
    this.scheduler = scheduler;
    this.callTimeoutMs = callTimeoutMs;
  }

  async answer(request: ForwardRequest): Promise<ForwardResponse> {
    const { runtime } = this;
    try {
      if (runtime.serviceRefusal !== undefined) throw runtime.errors.notLeader();
      const { timeoutMs } = request;
      // It travels in whole milliseconds: less than one was left.
      if (timeoutMs === 0) throw timeoutError(undefined, 'rejected');
      const scope = new CallScope(this.scheduler, { timeoutMs }, this.callTimeoutMs);
      if (request.kind === 'readIndex') {
        const index = await runtime.readIndex(scope);
        return { payload: NO_PAYLOAD, index, term: runtime.engine.term };
      }
      if (runtime.engine.role !== 'leader') throw runtime.errors.notLeader();
      // The bytes belong to the network's buffer, and are read again only at the end of this turn.
      const payload = request.payload.slice();
      const result = await runtime.proposer.propose(payload, scope.remainingMs());
      const { response, logId } = result as WriteResult<unknown>;
      const { term, index } = logId;
      return { payload: packResponse(response, index), index, term };
    } catch (error) {
      const record = toErrorRecord(error, 'KEELSON_INVALID_ARGUMENT');
      return { payload: NO_PAYLOAD, index: 0, term: 0, error: record };
    }
  }
}

/** What was answered to a forwarded write. */
export function writeResultOf({ payload, term, index }: ForwardResponse): WriteResult<unknown> {
  return { response: unpackResponse(payload, index), logId: { term, index } };
}

const NO_PAYLOAD = new Uint8Array(0);
