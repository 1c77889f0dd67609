/**
 * What the log of one group may be after a crash: any of the states that it went through since the
 * last one that was acknowledged, whole. So what was acknowledged is there, and whatever else is there
 * was submitted, in that order.
 */
import assert from 'node:assert/strict';
import type { IoId, LogId, RecoveredLog, Vote } from '../engine/types.js';
import { NO_LOG_ID, NO_VOTE } from '../engine/types.js';
import type { LogStore } from '../storage/log-store.js';
import { type LogEntry, readEntries } from './log-blocks.js';

export interface LogState {
  /** The entry before the first one kept. */
  readonly purged: LogId;
  /** Those that are kept. */
  readonly entries: readonly LogEntry[];
  readonly vote: Vote;
  /** The highest commit that was recorded with it. */
  readonly committed: number;
}

const EMPTY: LogState = { purged: NO_LOG_ID, entries: [], vote: NO_VOTE, committed: 0 };

export function lastIndexOf({ purged, entries }: LogState): number {
  return purged.index + entries.length;
}

export class LogHistory {
  readonly group: number;
  /** The highest commit that was told to the store, recorded or not. */
  committed = 0;
  private states: LogState[] = [EMPTY];
  private acknowledged = 0;
  private readonly placeOf: Map<number, number> = new Map();

  constructor(group: number) {
    this.group = group;
  }

  /** What the log is once everything is durable that was submitted. */
  get last(): LogState {
    return this.states[this.states.length - 1]!;
  }

  get lastAcknowledged(): LogState {
    return this.states[this.acknowledged]!;
  }

  /** The I/O leads to that state. */
  submitted(io: IoId, entries: readonly LogEntry[], purged: LogId = this.last.purged): void {
    const { vote } = this.last;
    this.placeOf.set(io.sequence, this.states.length);
    this.add(entries, purged, isHigherVote(io.vote, vote) ? io.vote : vote);
  }

  /** Entries up to that one go, in order with the I/O, but nobody is told when. */
  purged(upTo: LogId): void {
    const { entries, purged, vote } = this.last;
    this.add(entries.slice(upTo.index - purged.index), upTo, vote);
  }

  private add(entries: readonly LogEntry[], purged: LogId, vote: Vote): void {
    const recorded = Math.min(this.committed, purged.index + entries.length);
    const committed = Math.max(this.last.committed, recorded);
    this.states.push({ purged, entries, vote, committed });
  }

  flushed(io: IoId): void {
    const place = this.placeOf.get(io.sequence);
    assert.ok(place !== undefined, `I/O ${io.sequence} of group ${this.group} was submitted`);
    assert.ok(place >= this.acknowledged, `I/O ${io.sequence} is not acknowledged out of order`);
    this.acknowledged = place;
  }

  /** Everything that was submitted is durable: the store was closed in order. */
  closed(): void {
    this.acknowledged = this.states.length - 1;
  }

  /** The same, as if nothing had been acknowledged since the store was opened. */
  unacknowledged(): LogHistory {
    const history = new LogHistory(this.group);
    history.states = [...this.states];
    history.committed = this.committed;
    return history;
  }

  /** The log that a reopened store has, which must be one that is allowed. */
  async check(store: LogStore): Promise<LogState> {
    const { group, states, acknowledged } = this;
    const found = store.recovered(group);
    const { purged } = found;
    const entries = await readEntries(store, group, purged.index + 1, found.lastIndex);
    const allowed = states.slice(acknowledged);
    const isOne = allowed.some(
      (state) => samePurge(state.purged, purged) && sameEntries(state.entries, entries),
    );
    if (!isOne) throw new assert.AssertionError({ message: this.explain(purged, entries) });
    assert.deepEqual(found.termRuns, termRunsOf(entries), `group ${group}: the runs of terms`);
    assert.ok(
      allowed.some(({ vote }) => sameVote(vote, found.vote)),
      `group ${group}: vote ${JSON.stringify(found.vote)} was found, ` +
        `${JSON.stringify(this.lastAcknowledged.vote)} was acknowledged`,
    );
    this.checkCommitted(found);
    return { purged, entries, vote: found.vote, committed: found.committed };
  }

  /**
   * The history goes on from what a reopened store has shown: it must not forget that any more. A commit that
   * it was told of and had not recorded is forgotten, and nobody tells it again.
   */
  startFrom(state: LogState): void {
    this.states = [state];
    this.acknowledged = 0;
    this.committed = state.committed;
    this.placeOf.clear();
  }

  private checkCommitted({ committed, lastIndex }: RecoveredLog): void {
    const { group } = this;
    const atLeast = this.lastAcknowledged.committed;
    assert.ok(
      committed >= atLeast && committed <= Math.min(lastIndex, this.committed),
      `group ${group}: commit ${committed} was found; ${atLeast} was recorded durably, ` +
        `${this.committed} was told, the log ends at ${lastIndex}`,
    );
  }

  private explain(foundPurged: LogId, found: readonly LogEntry[]): string {
    const { entries, purged } = this.lastAcknowledged;
    const foundFrom = foundPurged.index - purged.index;
    const at = entries.findIndex(
      (entry, place) => place >= foundFrom && !sameEntry(entry, found[place - foundFrom]),
    );
    const first = at < 0 ? entries.length : at;
    return (
      `group ${this.group}: ${entries.length} entries behind ${purged.index} were acknowledged, ` +
      `${found.length} behind ${foundPurged.index} found; they part at index ${purged.index + first + 1}: ` +
      `${show(entries[first])} was acknowledged, ${show(found[first - foundFrom])} found`
    );
  }
}

/** Holds an open store against the histories; they go on from what it has. */
export async function checkHistories(
  store: LogStore,
  histories: ReadonlyMap<number, LogHistory>,
): Promise<Map<number, LogHistory>> {
  const after = new Map<number, LogHistory>();
  for (const [group, history] of histories) {
    const next = new LogHistory(group);
    next.startFrom(await history.check(store));
    after.set(group, next);
  }
  return after;
}

/** Term first; within a term: nobody < a granted vote < the elected leader. */
export function isHigherVote(vote: Vote, than: Vote): boolean {
  if (vote.term !== than.term) return vote.term > than.term;
  return rank(vote) > rank(than);
}

function rank(vote: Vote): number {
  if (vote.nodeId === 0) return 0;
  return vote.committed ? 2 : 1;
}

function sameVote(left: Vote, right: Vote): boolean {
  return (
    left.term === right.term && left.nodeId === right.nodeId && left.committed === right.committed
  );
}

function samePurge(left: LogId, right: LogId): boolean {
  return left.index === right.index && left.term === right.term;
}

function sameEntries(left: readonly LogEntry[], right: readonly LogEntry[]): boolean {
  return left.length === right.length && left.every((entry, at) => sameEntry(entry, right[at]));
}

function sameEntry(left: LogEntry, right: LogEntry | undefined): boolean {
  return (
    right !== undefined &&
    left.index === right.index &&
    left.term === right.term &&
    left.time === right.time &&
    left.kind === right.kind &&
    left.payload === right.payload
  );
}

function termRunsOf(entries: readonly LogEntry[]): { firstIndex: number; term: number }[] {
  return entries
    .filter(({ term }, place) => term !== entries[place - 1]?.term)
    .map(({ index, term }) => ({ firstIndex: index, term }));
}

function show(entry: LogEntry | undefined): string {
  if (entry === undefined) return 'nothing';
  return `entry ${entry.index} of term ${entry.term}, "${entry.payload.slice(0, 40)}"`;
}
