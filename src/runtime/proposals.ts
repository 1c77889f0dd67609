import type { WriteResult } from '../api.js';
import type { KeelsonError } from '../base/errors.js';

/**
 * Client writes on a leader, in the order of arrival: first those that wait to be applied, behind
 * them those that this turn of the run queue has yet to append.
 *
 * ```
 * head                    appended                 tail
 *  | index and term known   | payload not yet staged |
 * ```
 *
 * One ring of parallel arrays, sized once: a write costs no object besides its promise. A slot holds
 * one write or one `writeMany`, which is answered as a whole. The log can only overwrite a suffix, so
 * slots leave at the head (applied) or at the end of the appended part (overwritten).
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

/** Slots are used again; a promise's resolver is its own for ever. */
export interface ProposalTicket {
  readonly slot: number;
  readonly resolve: Resolve | undefined;
}

export class Proposals {
  private readonly limits: ProposalLimits;
  private readonly mask: number;
  private readonly resolves: (Resolve | undefined)[];
  /** Results of a `writeMany` so far; undefined for a single write. */
  private readonly results: (WriteResult<unknown>[] | undefined)[];
  private readonly counts: Int32Array;
  private readonly bytes: Int32Array;
  // Plain arrays: an index or a term that comes from one of floats is boxed anew in each log id.
  private readonly firstIndexes: number[];
  private readonly terms: number[];
  /** Where a write goes, if it may, when this node may append it no longer. */
  private readonly sendOns: (SendOn | undefined)[];
  /** Time limit in ms until it is appended, point in monotonic time from then on. */
  private readonly deadlines: Float64Array;
  private head = 0;
  private appended = 0;
  private tail = 0;
  /** Payloads of the slots in [appended, tail), flat. */
  private payloads: Uint8Array[] = [];
  private payloadCount = 0;
  private payloadBytes = 0;
  private entries = 0;
  private pendingBytes = 0;
  private heldEntries = 0;
  private heldBytes = 0;
  private nextDeadlineMs = Number.POSITIVE_INFINITY;

  constructor(limits: ProposalLimits) {
    this.limits = limits;
    let capacity = 1;
    while (capacity < limits.maxPendingWrites) capacity *= 2;
    this.mask = capacity - 1;
    this.resolves = new Array(capacity).fill(undefined);
    this.results = new Array(capacity).fill(undefined);
    this.counts = new Int32Array(capacity);
    this.bytes = new Int32Array(capacity);
    this.firstIndexes = new Array(capacity).fill(0);
    this.terms = new Array(capacity).fill(0);
    this.sendOns = new Array(capacity).fill(undefined);
    this.deadlines = new Float64Array(capacity);
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
    const slot = (this.tail - 1) & this.mask;
    return { slot, resolve: this.resolves[slot] };
  }

  private addSlot(
    count: number,
    bytes: number,
    results: WriteResult<unknown>[] | undefined,
    timeoutMs: number,
    sendOn: SendOn | undefined,
  ): Promise<unknown> {
    const promise = new Promise<unknown>(capture);
    const slot = this.tail++ & this.mask;
    this.resolves[slot] = capturedResolve;
    this.results[slot] = results;
    this.counts[slot] = count;
    this.bytes[slot] = bytes;
    this.sendOns[slot] = sendOn;
    this.deadlines[slot] = timeoutMs;
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
    const end = firstIndex + count;
    let bytes = 0;
    let earliest = this.nextDeadlineMs;
    for (let index = firstIndex; index < end; ) {
      const slot = this.appended++ & this.mask;
      this.firstIndexes[slot] = index;
      this.terms[slot] = term;
      const deadline = nowMs + this.deadlines[slot]!;
      this.deadlines[slot] = deadline;
      if (deadline < earliest) earliest = deadline;
      index += this.counts[slot]!;
      bytes += this.bytes[slot]!;
    }
    this.nextDeadlineMs = earliest;
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
        resolve(sendOn(this.payloads[at]!, this.deadlines[slot]!));
      }
      at += this.counts[slot]!;
    }
    this.refuseUnappended(error);
  }

  /** Answers what was applied in [firstIndex, lastIndex]; `responses[i]` belongs to `firstIndex + i`. */
  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void {
    while (this.head !== this.appended) {
      const slot = this.head & this.mask;
      const index = this.firstIndexes[slot]!;
      if (index > lastIndex) return;
      const term = this.terms[slot]!;
      const results = this.results[slot];
      const resolve = this.resolves[slot];
      if (results === undefined) {
        this.head++;
        this.release(slot);
        resolve?.({ response: responses[index - firstIndex], logId: { term, index } });
        continue;
      }
      const count = this.counts[slot]!;
      for (let at = index + results.length; results.length < count; at++) {
        if (at > lastIndex) return;
        results.push({ response: responses[at - firstIndex], logId: { term, index: at } });
      }
      this.head++;
      this.release(slot);
      resolve?.(results);
    }
  }

  /** Entries behind `index` were overwritten: whoever waits for them will never know. */
  truncatedAfter(index: number, error: KeelsonError): void {
    while (this.appended !== this.head) {
      const slot = (this.appended - 1) & this.mask;
      if (this.firstIndexes[slot]! + this.counts[slot]! - 1 <= index) return;
      // What is not appended yet was refused before, by the caller.
      this.appended--;
      this.tail--;
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
    const { slot, resolve } = ticket;
    if (resolve !== undefined && this.resolves[slot] === resolve) this.forget(slot, error);
  }

  /** Gives up waiting for all whose time is up. */
  expire(nowMs: number, makeError: () => KeelsonError): void {
    if (nowMs < this.nextDeadlineMs) return;
    let next = Number.POSITIVE_INFINITY;
    for (let position = this.head; position !== this.appended; position++) {
      const slot = position & this.mask;
      if (this.resolves[slot] === undefined) continue;
      const deadline = this.deadlines[slot]!;
      if (deadline <= nowMs) this.forget(slot, makeError());
      else if (deadline < next) next = deadline;
    }
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
    this.nextDeadlineMs = Number.POSITIVE_INFINITY;
  }
}
