import type { WriteResult } from '../api.js';
import type { KeelsonError } from '../base/errors.js';
import { AppendedRuns } from './appended-runs.js';

/**
 * Client writes on a leader, in the order of arrival: first those that wait to be applied, behind
 * them those that this turn of the run queue has yet to append.
 *
 * ```
 * head                    appended                 tail
 *  | index and term known   | payload not yet staged |
 * ```
 *
 * One ring of parallel arrays: a write costs no object besides its promise. A slot holds one write or
 * one `writeMany`, which is answered as a whole. The log can only overwrite a suffix, so slots leave at
 * the head (applied) or at the end of the appended part (overwritten). The ring grows to the most that
 * ever waited at once, and no further: what it walks over stays in the processor's cache.
 *
 * Writes that this node holds for another leader are only counted here: one budget bounds them all.
 */

export type Resolve = (value: unknown) => void;

let capturedResolve: Resolve;
/** One executor for all promises: no closure per write. Rejecting is resolving with a rejection. */
const capture = (resolve: Resolve): void => {
  capturedResolve = resolve;
};

/**
 * Replicates a write through another leader, within the time that it has left. It counts the write with
 * `hold` before it returns, so that what was admitted once is never refused for want of room.
 */
export type SendOn = (payload: Uint8Array, timeoutMs: number) => Promise<unknown>;

export interface ProposalLimits {
  /** Entries that may wait at once. */
  readonly maxPendingWrites: number;
  /** Payload bytes that may wait at once. */
  readonly maxPendingBytes: number;
  /** Entries in one block. */
  readonly maxBlockEntries: number;
  /** Payload bytes in one block. */
  readonly maxBlockBytes: number;
}

/** A run of whole slots that fits into one block. */
export interface ProposalChunk {
  readonly payloads: readonly Uint8Array[];
  readonly count: number;
}

/** Positions are used again; a promise's resolver is its own for ever. */
export interface ProposalTicket {
  readonly position: number;
  readonly resolve: Resolve | undefined;
}

export class Proposals {
  private readonly limits: ProposalLimits;
  private mask = FIRST_CAPACITY - 1;
  private resolves: (Resolve | undefined)[] = new Array(FIRST_CAPACITY).fill(undefined);
  /** Results of a `writeMany` so far; undefined for a single write. */
  private results: (WriteResult<unknown>[] | undefined)[] = new Array(FIRST_CAPACITY).fill(
    undefined,
  );
  private counts = new Int32Array(FIRST_CAPACITY);
  private bytes = new Int32Array(FIRST_CAPACITY);
  /** Where a write goes, if it may, when this node may append it no longer. */
  private sendOns: (SendOn | undefined)[] = new Array(FIRST_CAPACITY).fill(undefined);
  /** Time limits in ms, from when the write is appended. */
  private timeouts = new Float64Array(FIRST_CAPACITY);
  // Positions only grow; the slot of a position is its low bits.
  private head = 0;
  private appended = 0;
  private tail = 0;
  /** Of the slots in [head, appended). */
  private readonly runs = new AppendedRuns();
  /** Index of the first entry of the slot at `head`. */
  private headIndex = 0;
  /** Payloads of the slots in [appended, tail), flat. */
  private payloads: Uint8Array[] = [];
  private payloadCount = 0;
  private payloadBytes = 0;
  private entries = 0;
  private pendingBytes = 0;
  private heldEntries = 0;
  private heldBytes = 0;
  private nextDeadlineMs = Number.POSITIVE_INFINITY;
  /** The least time limit of what is not appended yet. */
  private shortestTimeoutMs = Number.POSITIVE_INFINITY;

  constructor(limits: ProposalLimits) {
    this.limits = limits;
  }

  /** Entries that wait, appended or not. */
  get pending(): number {
    return this.entries;
  }

  /** Writes that this node has yet to answer, wherever they are. */
  get unanswered(): number {
    return this.entries + this.heldEntries;
  }

  /** Earliest deadline of all that wait; never later than the true one. */
  get earliestDeadlineMs(): number {
    return this.nextDeadlineMs;
  }

  get hasUnappended(): boolean {
    return this.appended !== this.tail;
  }

  hasRoom(entries: number, bytes: number): boolean {
    return (
      this.entries + this.heldEntries + entries <= this.limits.maxPendingWrites &&
      this.pendingBytes + this.heldBytes + bytes <= this.limits.maxPendingBytes
    );
  }

  /** Counts a write that stands elsewhere: it waits for a leader, or is under way to one. */
  hold(payload: Uint8Array): void {
    this.heldEntries++;
    this.heldBytes += payload.length;
  }

  /** A write that was held is answered, or is added here next. */
  letGo(payload: Uint8Array): void {
    this.heldEntries--;
    this.heldBytes -= payload.length;
  }

  /**
   * Takes one write; the caller has checked `hasRoom`. Without `sendOn` it is bound to this log.
   */
  add(payload: Uint8Array, timeoutMs: number, sendOn?: SendOn): Promise<unknown> {
    this.payloads[this.payloadCount++] = payload;
    return this.addSlot(1, payload.length, undefined, timeoutMs, sendOn);
  }

  /**
   * Takes several writes that are answered together; the caller has checked `hasRoom`. `sendOn` takes
   * care of all of them, whatever payload it is given.
   */
  addMany(payloads: readonly Uint8Array[], timeoutMs: number, sendOn: SendOn): Promise<unknown> {
    let bytes = 0;
    for (const payload of payloads) {
      bytes += payload.length;
      this.payloads[this.payloadCount++] = payload;
    }
    return this.addSlot(payloads.length, bytes, [], timeoutMs, sendOn);
  }

  /** Names the write that was added last, for `cancel`. */
  lastTicket(): ProposalTicket {
    const position = this.tail - 1;
    return { position, resolve: this.resolves[position & this.mask] };
  }

  private addSlot(
    count: number,
    bytes: number,
    results: WriteResult<unknown>[] | undefined,
    timeoutMs: number,
    sendOn: SendOn | undefined,
  ): Promise<unknown> {
    const promise = new Promise<unknown>(capture);
    if (this.tail - this.head > this.mask) this.grow();
    const slot = this.tail++ & this.mask;
    this.resolves[slot] = capturedResolve;
    this.results[slot] = results;
    this.counts[slot] = count;
    this.bytes[slot] = bytes;
    this.sendOns[slot] = sendOn;
    this.timeouts[slot] = timeoutMs;
    if (timeoutMs < this.shortestTimeoutMs) this.shortestTimeoutMs = timeoutMs;
    this.entries += count;
    this.pendingBytes += bytes;
    this.payloadBytes += bytes;
    return promise;
  }

  /**
   * Payloads of the next block: as many whole slots as the limits of a block allow, at least one.
   * `appendedAs` or `refuseUnappended` must follow.
   */
  nextChunk(): ProposalChunk {
    const { maxBlockEntries, maxBlockBytes } = this.limits;
    if (this.payloadCount <= maxBlockEntries && this.payloadBytes <= maxBlockBytes) {
      return { payloads: this.payloads, count: this.payloadCount };
    }
    let count = 0;
    let bytes = 0;
    for (let position = this.appended; position !== this.tail; position++) {
      const slot = position & this.mask;
      const nextCount = count + this.counts[slot]!;
      bytes += this.bytes[slot]!;
      if (count > 0 && (nextCount > maxBlockEntries || bytes > maxBlockBytes)) break;
      count = nextCount;
    }
    return { payloads: this.payloads, count };
  }

  /** The first `count` unappended entries now stand in the log from `firstIndex` on. */
  appendedAs(count: number, firstIndex: number, term: number, nowMs: number): void {
    const deadline = nowMs + this.shortestTimeoutMs;
    if (deadline < this.nextDeadlineMs) this.nextDeadlineMs = deadline;
    if (this.appended === this.head) this.headIndex = firstIndex;
    let bytes = this.payloadBytes;
    if (count === this.payloadCount) {
      this.appended = this.tail;
      this.shortestTimeoutMs = Number.POSITIVE_INFINITY;
    } else {
      bytes = 0;
      for (let left = count; left > 0; this.appended++) {
        const slot = this.appended & this.mask;
        left -= this.counts[slot]!;
        bytes += this.bytes[slot]!;
      }
    }
    this.runs.push(this.appended, firstIndex, firstIndex + count - 1, term, nowMs);
    this.dropPayloads(count, bytes);
  }

  private dropPayloads(count: number, bytes: number): void {
    this.payloadBytes -= bytes;
    if (count < this.payloadCount) {
      this.payloads = this.payloads.slice(count, this.payloadCount);
      this.payloadCount -= count;
      return;
    }
    // A burst must not leave many dead references behind, but the next may be as large.
    if (count > 1024) this.payloads = new Array(count);
    this.payloadCount = 0;
  }

  /** Fails everything that has no place in the log yet; it changed nothing. */
  refuseUnappended(error: KeelsonError): void {
    this.dropPayloads(this.payloadCount, this.payloadBytes);
    this.shortestTimeoutMs = Number.POSITIVE_INFINITY;
    while (this.tail !== this.appended) this.rejectSlot(--this.tail & this.mask, error);
  }

  /**
   * Sends on the writes that have no place in the log yet and may go elsewhere, in the order in which
   * they came, and fails the others. Each is answered with what becomes of it there.
   */
  sendOnUnappended(error: KeelsonError): void {
    let at = 0;
    for (let position = this.appended; position !== this.tail; position++) {
      const slot = position & this.mask;
      const resolve = this.resolves[slot];
      const sendOn = this.sendOns[slot];
      if (sendOn !== undefined && resolve !== undefined) {
        this.resolves[slot] = undefined;
        resolve(sendOn(this.payloads[at]!, this.timeouts[slot]!));
      }
      at += this.counts[slot]!;
    }
    this.refuseUnappended(error);
  }

  /** Answers what was applied in [firstIndex, lastIndex]; `responses[i]` belongs to `firstIndex + i`. */
  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void {
    while (this.head !== this.appended && this.headIndex <= lastIndex) {
      const slot = this.head & this.mask;
      const { term } = this.runs;
      const index = this.headIndex;
      const results = this.results[slot];
      const resolve = this.resolves[slot];
      if (results === undefined) {
        this.headIndex = index + 1;
        this.releaseHead(slot);
        resolve?.({ response: responses[index - firstIndex], logId: { term, index } });
        continue;
      }
      const count = this.counts[slot]!;
      for (let at = index + results.length; results.length < count; at++) {
        if (at > lastIndex) return;
        results.push({ response: responses[at - firstIndex], logId: { term, index: at } });
      }
      this.headIndex = index + count;
      this.releaseHead(slot);
      resolve?.(results);
    }
  }

  /** Entries behind `index` were overwritten: whoever waits for them will never know. */
  truncatedAfter(index: number, error: KeelsonError): void {
    while (this.appended !== this.head && this.runs.newestLastIndex > index) {
      // What is not appended yet was refused before, by the caller.
      this.tail = --this.appended;
      const slot = this.appended & this.mask;
      this.runs.dropLastSlot(this.appended, this.counts[slot]!);
      this.rejectSlot(slot, error);
    }
  }

  /** Fails all that waits. */
  failAll(appendedError: KeelsonError, unappendedError: KeelsonError): void {
    this.refuseUnappended(unappendedError);
    this.truncatedAfter(0, appendedError);
  }

  /** Gives up waiting for one slot; its entry may still commit. */
  cancel(ticket: ProposalTicket, error: KeelsonError): void {
    const { position, resolve } = ticket;
    const slot = position & this.mask;
    if (resolve !== undefined && this.resolves[slot] === resolve) this.forget(slot, error);
  }

  /** Gives up waiting for all whose time is up. */
  expire(nowMs: number, makeError: () => KeelsonError): void {
    if (nowMs < this.nextDeadlineMs) return;
    let next = Number.POSITIVE_INFINITY;
    let position = this.head;
    this.runs.forEach((end, appendedMs) => {
      for (; position !== end; position++) {
        const slot = position & this.mask;
        if (this.resolves[slot] === undefined) continue;
        const deadline = appendedMs + this.timeouts[slot]!;
        if (deadline <= nowMs) this.forget(slot, makeError());
        else if (deadline < next) next = deadline;
      }
    });
    this.nextDeadlineMs = next;
  }

  /** The slot stays, so that order and accounting hold, but nobody waits for it any more. */
  private forget(slot: number, error: KeelsonError): void {
    const resolve = this.resolves[slot];
    this.resolves[slot] = undefined;
    resolve?.(Promise.reject(error));
  }

  private rejectSlot(slot: number, error: KeelsonError): void {
    const resolve = this.resolves[slot];
    this.release(slot);
    resolve?.(Promise.reject(error));
  }

  /** The slot at `head` is answered; the caller has set `headIndex` to what follows in the run. */
  private releaseHead(slot: number): void {
    if (++this.head === this.runs.end) {
      this.runs.shift();
      if (!this.runs.empty) this.headIndex = this.runs.firstIndex;
    }
    this.release(slot);
  }

  private release(slot: number): void {
    this.entries -= this.counts[slot]!;
    this.pendingBytes -= this.bytes[slot]!;
    this.resolves[slot] = undefined;
    this.results[slot] = undefined;
    this.sendOns[slot] = undefined;
    if (this.head === this.tail) this.startOver();
  }

  /** Empty: from the first slots again, which are still in the processor's cache. */
  private startOver(): void {
    this.head = 0;
    this.appended = 0;
    this.tail = 0;
    this.runs.startOver();
    this.nextDeadlineMs = Number.POSITIVE_INFINITY;
  }

  private grow(): void {
    const { head, tail, mask } = this;
    const capacity = (mask + 1) * 2;
    const newMask = capacity - 1;
    const objects = <T>(from: (T | undefined)[]): (T | undefined)[] => {
      const to: (T | undefined)[] = new Array(capacity).fill(undefined);
      for (let at = head; at !== tail; at++) to[at & newMask] = from[at & mask];
      return to;
    };
    const numbers = <T extends Int32Array | Float64Array>(from: T, to: T): T => {
      for (let at = head; at !== tail; at++) to[at & newMask] = from[at & mask]!;
      return to;
    };
    this.resolves = objects(this.resolves);
    this.results = objects(this.results);
    this.sendOns = objects(this.sendOns);
    this.counts = numbers(this.counts, new Int32Array(capacity));
    this.bytes = numbers(this.bytes, new Int32Array(capacity));
    this.timeouts = numbers(this.timeouts, new Float64Array(capacity));
    this.mask = newMask;
  }
}

/** A power of two. */
const FIRST_CAPACITY = 16;
