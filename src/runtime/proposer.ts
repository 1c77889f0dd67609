import { type ErrorCode, KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { Engine } from '../engine/engine.js';
import type { StagedEntries } from '../storage/log-store.js';
import type { CallScope } from './call-scope.js';
import type { EntryStaging } from './entry-staging.js';
import type { LeadershipErrors } from './leadership-errors.js';
import { type ProposalLimits, Proposals, type SendOn } from './proposals.js';

/** Refusals that the next write would get as well, until something changes. */
const NO_ROOM_CODES: readonly ErrorCode[] = ['KEELSON_OVERLOADED', 'KEELSON_STORAGE_FULL'];

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
  private readonly steps: ProposerSteps;
  private readonly sendOn: SendOn;
  private appendScheduled = false;
  private lastProposal: Promise<unknown> | undefined;
  /** The log or the engine has refused writes since it last had room. */
  private refusing = false;

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
    this.proposals = new Proposals(limits);
  }

  /**
   * Writes one command; the caller has seen that this node leads. Should it lose its office before the
   * command stands in its log, whoever leads next gets it.
   */
  write(payload: Uint8Array, timeoutMs: number): Promise<unknown> {
    return this.add(payload, timeoutMs, true);
  }

  /** Writes one command into the log of this node, or nowhere. */
  propose(payload: Uint8Array, timeoutMs: number): Promise<unknown> {
    return this.add(payload, timeoutMs, false);
  }

  private add(payload: Uint8Array, timeoutMs: number, mobile: boolean): Promise<unknown> {
    const refusal = this.refusal(1, payload.length, payload.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.scheduleAppend();
    const proposal = this.proposals.add(payload, timeoutMs, mobile);
    this.lastProposal = proposal;
    return proposal;
  }

  /** Writes several commands, which are answered together, into the log of this node, or nowhere. */
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
    if (this.refusing || this.steps.stopRefusal !== undefined) return false;
    return this.proposals.hasRoom(1, this.limits.maxEntryBytes);
  }

  /** There may be room again: in the log, or because something was committed. */
  roomAgain(): void {
    this.refusing = false;
  }

  private refusal(entries: number, bytes: number, largest: number): KeelsonError | undefined {
    const { stopRefusal } = this.steps;
    if (stopRefusal !== undefined) return stopRefusal;
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
    if (this.proposals.pending === 0) this.scheduler.enqueue(this.append);
    else this.scheduler.enqueueLate(this.append);
  }

  private readonly append = (): void => {
    this.appendScheduled = false;
    while (this.proposals.hasUnappended && this.steps.stopRefusal === undefined) {
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
  };

  private refuse(error: unknown): void {
    if (error instanceof KeelsonError && error.outcome === 'rejected') {
      this.refusing = NO_ROOM_CODES.includes(error.code);
      this.proposals.refuseUnappended(error);
    } else {
      this.steps.fail(error);
    }
  }

  /** What has no place in this log yet will get none: another leads now, or soon will. */
  lostOffice(): void {
    this.proposals.sendOnUnappended(this.steps.errors.notLeader(), this.sendOn);
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
  readonly stopRefusal: KeelsonError | undefined;
  readonly errors: LeadershipErrors;
  /** Runs what the engine wants done. */
  run(): void;
  fail(error: unknown): void;
}
