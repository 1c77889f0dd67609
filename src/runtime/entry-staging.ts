import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler } from '../base/scheduler.js';
import type { AppendEntries } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { AppendRequest, ReceivedEntries } from '../engine/messages.js';
import type { LogIndex, NodeId, StoredMembership, Term } from '../engine/types.js';
import type { LogStore, StagedEntries } from '../storage/log-store.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import { decodeMembership, encodeMembership } from './membership-codec.js';

/**
 * Entries on their way into the log: they are staged in the memory of the store, the engine is told
 * of them by index and term, and the `AppendEntries` command that it answers with refers to what is
 * staged.
 */
export class EntryStaging {
  /** What the next `AppendEntries` command with source `client` or `received` refers to. */
  staged: StagedEntries | undefined;
  private readonly group: number;
  private readonly engine: Engine;
  private readonly store: LogStore;
  private readonly scheduler: Scheduler;
  private readonly logger: Logger;
  private lastTime: number;

  constructor(
    group: number,
    engine: Engine,
    store: LogStore,
    scheduler: Scheduler,
    logger: Logger,
    /** Of a snapshot: what was purged had no later time. */
    snapshotTime: number,
  ) {
    this.group = group;
    this.engine = engine;
    this.store = store;
    this.scheduler = scheduler;
    this.logger = logger;
    this.lastTime = Math.max(store.lastTime(group), snapshotTime);
  }

  /** No entry that has been in this log has a later time. */
  get newestTime(): number {
    return this.lastTime;
  }

  /** A snapshot was installed; no entry that it holds has a later time. */
  installed(snapshotTime: number): void {
    this.lastTime = Math.max(this.lastTime, snapshotTime);
  }

  /** Encodes the payloads of client writes as one block. */
  stageWrites(
    firstIndex: LogIndex,
    term: Term,
    payloads: readonly Uint8Array[],
    count: number,
  ): StagedEntries {
    return this.stage(ENTRY_KIND.application, firstIndex, term, payloads, count);
  }

  /**
   * Copies and verifies what a leader sent, and describes it to the engine. Undefined when the message
   * is dropped; the leader finds out by the gap and sends again.
   *
   * @throws KeelsonError what stops the node
   */
  receive(
    from: NodeId,
    request: AppendRequest,
    parts: readonly Uint8Array[],
  ): ReceivedEntries | undefined {
    const firstIndex = request.prevLogId.index + 1;
    if (request.lastIndex < firstIndex) return noEntries(request.prevLogId.index);
    const staged = this.receiveEntries(from, request, firstIndex, parts);
    if (staged === undefined) return undefined;
    this.staged = staged;
    if (staged.lastTime > this.lastTime) this.lastTime = staged.lastTime;
    return describe(staged);
  }

  private receiveEntries(
    from: NodeId,
    request: AppendRequest,
    firstIndex: LogIndex,
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
      if (!(error instanceof KeelsonError) || error.outcome === 'unknown') throw error;
      this.logger.warn(
        { event: 'append.dropped', from, code: error.code, reason: error.message },
        'dropped an append',
      );
    }
    return undefined;
  }

  /** The entries of a command; those that only it knows of are staged now. */
  stagedFor(command: AppendEntries): StagedEntries {
    const { source, firstIndex, term } = command;
    if (source === 'blank') return this.stage(ENTRY_KIND.blank, firstIndex, term, BLANK, 1);
    if (source === 'bootstrap') {
      const { membership } = this.engine;
      invariant(membership !== undefined, 'a bootstrap brings a membership');
      // Identical bytes on every node: no clock.
      const payloads = [encodeMembership(membership)];
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

  private stage(
    kind: number,
    firstIndex: LogIndex,
    term: Term,
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
}

const BLANK: readonly Uint8Array[] = [new Uint8Array(0)];
const NO_MEMBERSHIPS: readonly StoredMembership[] = [];

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
