import type { CallScope } from './call-scope.js';

/**
 * The places for requests that are under way to another node. The network refuses what is too much at
 * once; a write that this node has admitted waits for its place here instead, in the order of arrival.
 * So a follower takes what a leader takes, and the limits of the network bound only how much of it is
 * under way.
 *
 * A question for the read index never waits, but counts: one place is kept for it.
 */
export class RequestWindow {
  private readonly maxWrites: number;
  private readonly maxBytes: number;
  private requests = 0;
  private bytes = 0;
  /** In the order of arrival. */
  private readonly waiting: Set<Waiter> = new Set();
  /** Stays where it is, so that it passes each waiter that is gone once, and not at each step. */
  private order: Iterator<Waiter> = this.waiting.values();
  private first: Waiter | undefined;

  constructor(limits: RequestWindowLimits) {
    this.maxWrites = Math.max(1, limits.maxRequests - 1);
    this.maxBytes = limits.maxQueuedBytes;
  }

  /**
   * Takes a place for a write as soon as there is one; undefined when there is one now. `leave` must
   * follow, unless the promise rejects.
   */
  enter(payloadBytes: number, scope: CallScope): Promise<void> | undefined {
    const bytes = payloadBytes + REQUEST_OVERHEAD_BYTES;
    if (this.waiting.size === 0 && this.hasPlace(bytes)) {
      this.take(bytes);
      return undefined;
    }
    let waiter: Waiter | undefined;
    const promise = new Promise<void>((resolve) => {
      waiter = { bytes, resolve };
      this.waiting.add(waiter);
    });
    return scope.race(promise, 'rejected', () => {
      // It may have been given its place in this very turn.
      if (!this.waiting.delete(waiter as Waiter)) this.give(bytes);
      this.handOver();
    });
  }

  /** A write has come to its end: the network holds nothing of it any more. */
  leave(payloadBytes: number): void {
    this.give(payloadBytes + REQUEST_OVERHEAD_BYTES);
    this.handOver();
  }

  enterRead(): void {
    this.take(REQUEST_OVERHEAD_BYTES);
  }

  leaveRead(): void {
    this.leave(0);
  }

  private handOver(): void {
    for (;;) {
      const waiter = this.firstWaiting();
      if (waiter === undefined || !this.hasPlace(waiter.bytes)) return;
      this.waiting.delete(waiter);
      this.take(waiter.bytes);
      waiter.resolve();
    }
  }

  private firstWaiting(): Waiter | undefined {
    if (this.first !== undefined && this.waiting.has(this.first)) return this.first;
    const { value, done } = this.order.next();
    this.first = done === true ? undefined : value;
    if (done === true) this.order = this.waiting.values();
    return this.first;
  }

  private hasPlace(bytes: number): boolean {
    if (this.requests === 0) return true;
    return this.requests < this.maxWrites && this.bytes + bytes <= this.maxBytes;
  }

  private take(bytes: number): void {
    this.requests++;
    this.bytes += bytes;
  }

  private give(bytes: number): void {
    this.requests--;
    this.bytes -= bytes;
  }
}

/** What a frame adds to a payload; generous. */
const REQUEST_OVERHEAD_BYTES = 64;

export interface RequestWindowLimits {
  /** Requests that the network takes at once. */
  readonly maxRequests: number;
  /** Bytes that the network takes at once. */
  readonly maxQueuedBytes: number;
}

interface Waiter {
  readonly bytes: number;
  readonly resolve: () => void;
}
