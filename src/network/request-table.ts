import { type ErrorCode, KeelsonError, type Outcome } from '../base/errors.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { ForwardResponse } from './network.js';

/**
 * The client requests that this node has forwarded and that are not answered yet. Each is settled
 * exactly once: by its answer, its deadline, the loss of the connection that carried it, or close.
 *
 * The rule on outcomes: a request that has not left this node is `rejected`, one that has left is
 * `unknown`, because the other node may still commit it. It is never sent a second time.
 */
export class RequestTable {
  private readonly scheduler: Scheduler;
  private readonly maxRequests: number;
  private readonly pending: Map<number, PendingRequest> = new Map();
  private lastId = 0;
  private closed = false;

  constructor(scheduler: Scheduler, maxRequests: number) {
    this.scheduler = scheduler;
    this.maxRequests = maxRequests;
  }

  get size(): number {
    return this.pending.size;
  }

  /**
   * Registers a request that is about to be carried by `carrier`.
   * @throws KeelsonError CLOSED or OVERLOADED, both `rejected`; nothing is registered then.
   */
  open(carrier: object, timeoutMs: number): OpenRequest {
    if (this.closed) throw new KeelsonError('KEELSON_CLOSED', 'the network of this node is closed');
    if (this.pending.size >= this.maxRequests) {
      throw new KeelsonError(
        'KEELSON_OVERLOADED',
        `${this.maxRequests} forwarded requests wait for an answer already (maxRequests)`,
      );
    }
    const id = ++this.lastId;
    const limitMs = Math.min(Math.max(0, timeoutMs), MAX_TIMEOUT_MS);
    const promise = new Promise<ForwardResponse>((resolve, reject) => {
      const timer = this.scheduler.setTimer(limitMs, () => {
        const request = this.pending.get(id);
        if (request === undefined) return;
        // Its frame may be on the way out even if it has not left yet.
        request.sent = true;
        this.fail(id, request, 'KEELSON_TIMEOUT', `no answer within ${timeoutMs} ms`);
      });
      this.pending.set(id, { carrier, sent: false, timer, resolve, reject });
    });
    return { id, promise };
  }

  /**
   * The request may have left this node: from here on its failure is of unknown outcome. False when it
   * is settled already: it must not leave any more, for whoever was told `rejected` may send it again.
   */
  markSent(id: number): boolean {
    const request = this.pending.get(id);
    if (request === undefined) return false;
    request.sent = true;
    return true;
  }

  /** Ignores an answer to a request that is settled, or that another connection carried. */
  settle(carrier: object, id: number, response: ForwardResponse): void {
    const request = this.pending.get(id);
    if (request === undefined || request.carrier !== carrier) return;
    this.pending.delete(id);
    request.timer.cancel();
    request.resolve(response);
  }

  /** Fails what `carrier` carried: it is lost, and no answer will come. */
  carrierLost(carrier: object, message: string): void {
    for (const [id, request] of this.pending) {
      if (request.carrier === carrier) this.fail(id, request, 'KEELSON_NO_LEADER', message);
    }
  }

  close(): void {
    this.closed = true;
    for (const [id, request] of this.pending) {
      this.fail(id, request, 'KEELSON_CLOSED', 'the network of this node was closed');
    }
  }

  private fail(id: number, request: PendingRequest, code: ErrorCode, message: string): void {
    this.pending.delete(id);
    request.timer.cancel();
    const outcome: Outcome = request.sent ? 'unknown' : 'rejected';
    request.reject(new KeelsonError(code, message, { outcome }));
  }
}

/** What a timer takes: about 24 days. */
export const MAX_TIMEOUT_MS: number = 2 ** 31 - 1;

export interface OpenRequest {
  readonly id: number;
  readonly promise: Promise<ForwardResponse>;
}

interface PendingRequest {
  readonly carrier: object;
  sent: boolean;
  readonly timer: Timer;
  readonly resolve: (response: ForwardResponse) => void;
  readonly reject: (error: KeelsonError) => void;
}
