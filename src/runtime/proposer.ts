import { type ErrorCode, KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { Engine } from '../engine/engine.js';
import type { StagedEntries } from '../storage/log-store.js';
import type { CallScope } from './call-scope.js';
import type { EntryStaging } from './entry-staging.js';
import type { LeadershipErrors } from './leadership-errors.js';
import { type ProposalLimits, Proposals, type SendOn } from './proposals.js';

/** Refusals that the next write would get as well, until something changes. */
export const NO_ROOM_CODES: readonly ErrorCode[] = ['KEELSON_OVERLOADED', 'KEELSON_STORAGE_FULL'];

/**
 * Client writes on a leader, from the call to the engine: refuses what is too large or too much, and
 * makes of everything that one turn of the run queue brought as few blocks as the limits allow. A
 * refused write changed nothing.
 */
export class Proposer {
  /** All writes that wait, appended or not. */
  readonly proposals: Proposals;
  private readonly engine: Engine;
  private readonly scheduler: Scheduler;
  private readonly staging: EntryStaging;
  private readonly limits: ProposerLimits;
  /** What one call may bring: a block, and no more than there can ever be room for. */
  private readonly maxCallEntries: number;
  private readonly maxCallBytes: number;
  private readonly steps: ProposerSteps;
  private readonly sendOn: SendOn;
  private appendScheduled = false;
  private lastProposal: Promise<unknown> | undefined;
  /** The log or the engine has refused writes since it last had room. */
  private refusing = false;
  /** The most that was refused since there last was room for it. */
  private wantedEntries = 1;
  private wantedBytes: number;

  constructor(
    engine: Engine,
    scheduler: Scheduler,
    staging: EntryStaging,
    limits: ProposerLimits,
    steps: ProposerSteps,
    sendOn: SendOn,
  ) {
    this.engine = engine;
    this.scheduler = scheduler;
    this.staging = staging;
    this.limits = limits;
    this.steps = steps;
    this.sendOn = sendOn;
    this.wantedBytes = limits.maxEntryBytes;
    this.maxCallEntries = Math.min(limits.maxBlockEntries, limits.maxPendingWrites);
    this.maxCallBytes = Math.min(limits.maxBlockBytes, limits.maxPendingBytes);
    this.proposals = new Proposals(limits);
  }

  /**
   * Writes one command; the caller has seen that this node leads. Should it lose its office before the
   * command stands in its log, whoever leads next gets it.
   */
  write(payload: Uint8Array, timeoutMs: number): Promise<unknown> {
    return this.propose(payload, timeoutMs, this.sendOn);
  }

  /** Writes one command into the log of this node, or, without `sendOn`, nowhere. */
  propose(payload: Uint8Array, timeoutMs: number, sendOn?: SendOn): Promise<unknown> {
    const refusal = this.refusal(1, payload.length, payload.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.scheduleAppend();
    const proposal = this.proposals.add(payload, timeoutMs, sendOn);
    this.lastProposal = proposal;
    return proposal;
  }

  /** Writes several commands, which are answered together; `sendOn` takes care of all of them. */
  proposeMany(
    payloads: readonly Uint8Array[],
    timeoutMs: number,
    sendOn: SendOn,
  ): Promise<unknown> {
    const refusal = this.refusalOf(payloads);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.scheduleAppend();
    const proposal = this.proposals.addMany(payloads, timeoutMs, sendOn);
    this.lastProposal = proposal;
    return proposal;
  }

  /** Why this node takes none of these writes, whether it leads or not; undefined when it does. */
  refusalOf(payloads: readonly Uint8Array[]): KeelsonError | undefined {
    let bytes = 0;
    let largest = 0;
    for (const payload of payloads) {
      bytes += payload.length;
      if (payload.length > largest) largest = payload.length;
    }
    return this.refusal(payloads.length, bytes, largest);
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

  /** Whether one more write would be taken, and so would all that were refused since the last time. */
  hasRoomAgain(): boolean {
    if (this.refusing || this.steps.serviceRefusal !== undefined) return false;
    if (!this.proposals.hasRoom(this.wantedEntries, this.wantedBytes)) return false;
    this.wantedEntries = 1;
    this.wantedBytes = this.limits.maxEntryBytes;
    return true;
  }

  /** Another node has no room for what this one sends on. */
  noRoomElsewhere(): void {
    this.refusing = true;
  }

  /** There may be room again: in the log, or because something was committed. */
  roomAgain(): void {
    this.refusing = false;
  }

  private refusal(entries: number, bytes: number, largest: number): KeelsonError | undefined {
    const { serviceRefusal } = this.steps;
    if (serviceRefusal !== undefined) return serviceRefusal;
    const { maxEntryBytes } = this.limits;
    if (largest > maxEntryBytes) {
      return new KeelsonError(
        'KEELSON_ENTRY_TOO_LARGE',
        `a command of ${largest} bytes exceeds limits.maxEntryBytes (${maxEntryBytes})`,
      );
    }
    if (entries > this.maxCallEntries || bytes > this.maxCallBytes) {
      return new KeelsonError(
        'KEELSON_ENTRY_TOO_LARGE',
        `${entries} commands of ${bytes} bytes exceed one batch (${this.maxCallEntries} commands, ${this.maxCallBytes} bytes)`,
      );
    }
    if (this.proposals.hasRoom(entries, bytes)) return undefined;
    this.wantedEntries = Math.max(this.wantedEntries, entries);
    this.wantedBytes = Math.max(this.wantedBytes, bytes);
    return new KeelsonError(
      'KEELSON_OVERLOADED',
      `${this.proposals.unanswered} writes wait already; try again when writable() resolves`,
    );
  }

  private scheduleAppend(): void {
    if (this.appendScheduled) return;
    this.appendScheduled = true;
    // While earlier writes are under way, the clients of other sockets may join in: one block costs
    // the disk and each follower the same as one write. With nothing under way, nobody waits.
    if (this.proposals.pending === 0) this.scheduler.enqueue(this.append);
    else this.scheduler.enqueueLate(this.append);
  }

  private readonly append = (): void => {
    this.appendScheduled = false;
    try {
      this.appendAll();
    } catch (error) {
      this.steps.fail(error);
    }
  };

  private appendAll(): void {
    while (this.proposals.hasUnappended && this.steps.serviceRefusal === undefined) {
      if (this.engine.role !== 'leader') {
        this.lostOffice();
        return;
      }
      const { count, payloads } = this.proposals.nextChunk();
      const firstIndex = this.engine.lastLogId.index + 1;
      const term = this.engine.term;
      let staged: StagedEntries;
      try {
        staged = this.staging.stageWrites(firstIndex, term, payloads, count);
      } catch (error) {
        this.refuse(error);
        return;
      }
      if (this.engine.clientWrite(count) !== firstIndex) {
        this.refuse(tooManyUncommitted());
        return;
      }
      this.proposals.appendedAs(count, firstIndex, term, this.scheduler.now());
      this.staging.staged = staged;
      this.steps.run();
    }
  }

  private refuse(error: unknown): void {
    if (error instanceof KeelsonError && error.outcome === 'rejected') {
      this.refusing = NO_ROOM_CODES.includes(error.code);
      this.proposals.refuseUnappended(error);
    } else {
      this.steps.fail(error);
    }
  }

  /** Entries behind `index` were overwritten: whoever waits for them is told so. */
  overwrittenAfter(index: number): void {
    this.proposals.truncatedAfter(index, this.steps.errors.overwritten());
  }

  /** What has no place in this log yet will get none: another leads now, or soon will. */
  lostOffice(): void {
    this.proposals.sendOnUnappended(this.steps.errors.notLeader());
  }
}

function tooManyUncommitted(): KeelsonError {
  return new KeelsonError(
    'KEELSON_OVERLOADED',
    'too many entries wait for a quorum; try again when writable() resolves',
  );
}

export interface ProposerLimits extends ProposalLimits {
  readonly maxEntryBytes: number;
}

/** What the runtime does for its proposer. */
export interface ProposerSteps {
  /** What callers are told once the node has stopped; undefined while it runs. */
  readonly serviceRefusal: KeelsonError | undefined;
  readonly errors: LeadershipErrors;
  /** Runs what the engine wants done. */
  run(): void;
  fail(error: unknown): void;
}
