/**
 * A script of what Raft groups do to their logs, run against any log store, and what of it was
 * acknowledged. The run ends where the store fails; what it left behind is then opened again and held
 * against the histories of the groups.
 */
import { KeelsonError } from '../base/errors.js';
import { SeededRandom } from '../base/random.js';
import type { IoId, LogId, Vote } from '../engine/types.js';
import type {
  EntriesToStage,
  LogStore,
  LogStoreEvents,
  StagedEntries,
} from '../storage/log-store.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import type { LogEntry } from './log-blocks.js';
import { LogHistory, lastIndexOf } from './log-history.js';

export type LogStep =
  /** Appends entries; with `back`, over so many that are there, in a new term. */
  | {
      readonly do: 'append';
      readonly group: number;
      readonly count: number;
      readonly bytes: number;
      readonly back?: number;
    }
  /** Votes for another node in a new term. */
  | { readonly do: 'vote'; readonly group: number }
  /** Cuts so many entries off. */
  | { readonly do: 'truncate'; readonly group: number; readonly entries: number }
  /** Gives up what is committed, but for so many of the last entries. */
  | { readonly do: 'purge'; readonly group: number; readonly keep: number }
  /** Begins the log anew, so many entries behind its end or, when negative, before it. */
  | { readonly do: 'reset'; readonly group: number; readonly ahead: number }
  /** Tells that all is committed that is durable, recorded with what comes next. */
  | { readonly do: 'commit'; readonly group: number }
  /** Until everything is durable. */
  | { readonly do: 'wait' }
  /** Closes the store in order and opens it again. */
  | { readonly do: 'reopen' };

export type OpenLogStore = (events: LogStoreEvents) => Promise<LogStore>;

export class LogWorkload {
  readonly histories: Map<number, LogHistory> = new Map();
  /** Of the store, once it has failed. */
  failure: KeelsonError | undefined;
  /** Of all stores that were opened and closed again. */
  movedBytes = 0;
  /** How often an I/O was acknowledged after that: never, by any store that keeps its word. */
  lateAcknowledgements = 0;
  store: LogStore | undefined;
  private readonly open: OpenLogStore;
  private readonly random: SeededRandom;
  private readonly terms: Map<number, number> = new Map();
  private readonly lastIos: Map<number, IoId> = new Map();
  private readonly flushedUpTo: Map<number, number> = new Map();
  private wake: () => void = () => {};
  private writableCalls = 0;
  private sequence = 0;
  private time = 1_000;

  constructor(open: OpenLogStore, groups: readonly number[], seed: number) {
    this.open = open;
    this.random = new SeededRandom(seed);
    for (const group of groups) this.histories.set(group, new LogHistory(group));
  }

  /** Runs the steps until the last one, or until the store fails; opens it the first time. */
  async run(steps: readonly LogStep[]): Promise<void> {
    this.store ??= await this.open(this.events());
    for (const step of steps) {
      if (this.failure !== undefined) return;
      await this.step(step);
    }
  }

  private async step(step: LogStep): Promise<void> {
    switch (step.do) {
      case 'append':
        return this.append(step.group, step.count, step.bytes, step.back ?? 0);
      case 'vote':
        return this.vote(step.group);
      case 'truncate':
        return this.truncate(step.group, step.entries);
      case 'purge':
        return this.purge(step.group, step.keep);
      case 'reset':
        return this.reset(step.group, step.ahead);
      case 'commit':
        return this.commit(step.group);
      case 'wait':
        return this.durable();
      case 'reopen':
        return this.reopen();
    }
  }

  private events(): LogStoreEvents {
    return {
      flushed: (group, io) => {
        if (this.failure !== undefined) this.lateAcknowledgements++;
        this.history(group).flushed(io);
        this.flushedUpTo.set(group, io.sequence);
        this.wake();
      },
      failed: (error) => {
        this.failure ??= error;
        this.wake();
      },
      writable: () => {
        this.writableCalls++;
        this.wake();
      },
    };
  }

  private async append(group: number, count: number, bytes: number, back: number): Promise<void> {
    const { last, committed } = this.history(group);
    const { entries, purged } = last;
    const end = lastIndexOf(last);
    // What is committed is never overwritten.
    const first = Math.max(Math.min(committed, end), purged.index) + 1;
    const firstIndex = Math.max(first, end + 1 - back);
    if (back > 0) this.nextTerm(group);
    const term = this.term(group);
    this.time++;
    const kept = entries.slice(0, firstIndex - 1 - purged.index);
    const added: LogEntry[] = [];
    for (let place = 0; place < count; place++) {
      const index = firstIndex + place;
      const name = `group ${group} entry ${index} term ${term} `;
      const length = name.length + this.random.integer(bytes);
      const payload = name.padEnd(length, String.fromCharCode(97 + this.random.integer(26)));
      added.push({ index, term, time: this.time, kind: ENTRY_KIND.application, payload });
    }
    const staged = await this.stage(group, {
      firstIndex,
      term,
      time: this.time,
      kind: ENTRY_KIND.application,
      payloads: added.map(({ payload }) => Buffer.from(payload, 'latin1')),
      count,
    });
    if (staged === undefined) return;
    const io = this.submit(group, this.leader(group), [...kept, ...added]);
    this.openStore().append(group, staged, firstIndex, io);
  }

  /** Waits while the store has no room; undefined when it has failed. */
  private async stage(group: number, entries: EntriesToStage): Promise<StagedEntries | undefined> {
    for (;;) {
      const calls = this.writableCalls;
      try {
        return this.openStore().stage(group, entries);
      } catch (error) {
        if (!(error instanceof KeelsonError) || error.code !== 'KEELSON_OVERLOADED') throw error;
      }
      while (this.writableCalls === calls) {
        if (this.failure !== undefined) return undefined;
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    }
  }

  private vote(group: number): void {
    const term = this.nextTerm(group);
    const by = { term, nodeId: 2, committed: false };
    this.openStore().saveVote(group, this.submit(group, by, this.history(group).last.entries));
    this.nextTerm(group);
  }

  private truncate(group: number, entries: number): void {
    const history = this.history(group);
    // What is committed is never cut off.
    const { purged, entries: before } = history.last;
    const cut = lastIndexOf(history.last) - entries;
    const last = Math.max(history.committed, cut, purged.index);
    this.nextTerm(group);
    const io = this.submit(group, this.leader(group), before.slice(0, last - purged.index));
    this.openStore().truncateAfter(group, last, io);
  }

  private commit(group: number): void {
    const history = this.history(group);
    const safe = Math.min(lastIndexOf(history.lastAcknowledged), lastIndexOf(history.last));
    history.committed = Math.max(history.committed, safe);
    this.openStore().recordCommitted(group, history.committed);
  }

  private purge(group: number, keep: number): void {
    const history = this.history(group);
    const { purged, entries } = history.last;
    const index = Math.min(history.committed, lastIndexOf(history.last) - keep);
    if (index <= purged.index) return;
    const upTo = { index, term: entries[index - purged.index - 1]!.term };
    history.purged(upTo);
    this.openStore().purge(group, upTo);
  }

  private reset(group: number, ahead: number): void {
    const history = this.history(group);
    const { purged } = history.last;
    const index = Math.max(lastIndexOf(history.last) + ahead, history.committed, purged.index + 1);
    const lastIncluded = { index, term: this.nextTerm(group) };
    this.nextTerm(group);
    const io = this.submit(group, this.leader(group), [], lastIncluded);
    this.openStore().resetLog(group, lastIncluded, io);
  }

  private async durable(): Promise<void> {
    while (this.failure === undefined && !this.isDurable()) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  private isDurable(): boolean {
    for (const [group, io] of this.lastIos) {
      if ((this.flushedUpTo.get(group) ?? 0) < io.sequence) return false;
    }
    return true;
  }

  private async reopen(): Promise<void> {
    this.movedBytes += this.openStore().metrics().movedBytes;
    await this.openStore().close();
    if (this.failure !== undefined) return;
    for (const history of this.histories.values()) history.closed();
    this.lastIos.clear();
    this.store = undefined;
    this.store = await this.open(this.events());
    for (const history of this.histories.values()) {
      history.startFrom(await history.check(this.store));
    }
  }

  private submit(
    group: number,
    vote: Vote,
    entries: readonly LogEntry[],
    purged: LogId = this.history(group).last.purged,
  ): IoId {
    const term = entries[entries.length - 1]?.term ?? purged.term;
    const logId = { term, index: purged.index + entries.length };
    const io = { sequence: ++this.sequence, vote, logId };
    this.history(group).submitted(io, entries, purged);
    this.lastIos.set(group, io);
    return io;
  }

  private openStore(): LogStore {
    if (this.store === undefined) throw new Error('the store of a workload is open');
    return this.store;
  }

  private history(group: number): LogHistory {
    const history = this.histories.get(group);
    if (history === undefined) throw new Error(`group ${group} is not of this workload`);
    return history;
  }

  private leader(group: number): Vote {
    return { term: this.term(group), nodeId: 1, committed: true };
  }

  private term(group: number): number {
    return this.terms.get(group) ?? 1;
  }

  private nextTerm(group: number): number {
    const term = this.term(group) + 1;
    this.terms.set(group, term);
    return term;
  }
}
