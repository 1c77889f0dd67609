/** Writes through a log store to one group, and remembers what must be in it. */
import assert from 'node:assert/strict';
import { type IoId, type LogId, NO_LOG_ID, type RecoveredLog } from '../engine/types.js';
import type { LogStore } from '../storage/log-store.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import { same, until } from './conformance.js';
import { decodeBlocks, type LogEntry } from './log-blocks.js';
import { decodeTestMembership } from './test-membership.js';

export class LogDriver {
  readonly store: LogStore;
  readonly group: number;
  readonly model: LogEntry[];
  readonly flushed: IoId[] = [];
  sequence = 0;
  term = 1;
  time = 1000;
  /** Of the entry before the first one kept. */
  purged: LogId = NO_LOG_ID;

  constructor(store: LogStore, group: number, model: LogEntry[] = []) {
    this.store = store;
    this.group = group;
    this.model = model;
  }

  get lastIndex(): number {
    return this.model.length;
  }

  io(): IoId {
    const vote = { term: this.term, nodeId: 1, committed: true };
    const last = this.model.at(-1);
    const logId = { term: last?.term ?? 0, index: this.lastIndex };
    return { sequence: ++this.sequence, vote, logId };
  }

  append(
    payloads: readonly Uint8Array[],
    firstIndex: number = this.lastIndex + 1,
    kind: number = ENTRY_KIND.application,
  ): IoId {
    const { group, term, time, store } = this;
    const count = payloads.length;
    const staged = store.stage(group, { firstIndex, term, time, kind, payloads, count });
    assert.equal(staged.firstIndex, firstIndex, 'first index of what is staged');
    assert.equal(staged.lastIndex, firstIndex + count - 1, 'last index of what is staged');
    same(staged.termRuns, [{ firstIndex, term }], 'runs of terms of what is staged');
    this.model.length = firstIndex - 1;
    for (const payload of payloads) {
      const index = this.model.length + 1;
      const text = Buffer.from(payload).toString('latin1');
      this.model.push({ index, term, time, kind, payload: text });
    }
    const io = this.io();
    store.append(group, staged, firstIndex, io);
    return io;
  }

  truncateAfter(index: number): IoId {
    this.model.length = index;
    const io = this.io();
    this.store.truncateAfter(this.group, index, io);
    return io;
  }

  purge(index: number): void {
    this.purged = { index, term: this.model[index - 1]!.term };
    this.store.purge(this.group, this.purged);
  }

  /** Begins anew behind an entry that was never in the log; the model keeps its place. */
  reset(index: number): IoId {
    this.purged = { index, term: this.term };
    const { term, time } = this;
    this.model.length = 0;
    for (let gone = 1; gone <= index; gone++) {
      this.model.push({ index: gone, term, time, kind: ENTRY_KIND.blank, payload: '' });
    }
    const io = this.io();
    this.store.resetLog(this.group, this.purged, io);
    return io;
  }

  async durable(io: IoId): Promise<void> {
    await until(() => (this.flushed.at(-1)?.sequence ?? 0) >= io.sequence, 'the I/O is flushed');
  }

  async read(
    firstIndex: number,
    lastIndex: number,
    maxBytes: number = 1 << 24,
  ): Promise<LogEntry[]> {
    const lease = await this.store.read(this.group, firstIndex, lastIndex, maxBytes);
    const entries = decodeBlocks(lease.parts, this.group);
    const bytes = lease.parts.reduce((sum, part) => sum + part.length, 0);
    assert.equal(lease.bytes, bytes, 'bytes of a lease');
    assert.equal(lease.firstIndex, firstIndex, 'first index of a lease');
    assert.equal(lease.lastIndex, firstIndex + entries.length - 1, 'last index of a lease');
    assert.ok(entries.length === 1 || bytes <= maxBytes, 'a lease keeps to its budget');
    lease.release();
    return entries;
  }

  async expectWhole(what = 'the log'): Promise<void> {
    const { index: purged } = this.purged;
    const entries: LogEntry[] = [];
    while (purged + entries.length < this.lastIndex) {
      entries.push(...(await this.read(purged + entries.length + 1, this.lastIndex)));
    }
    same(entries, this.model.slice(purged), what);
  }

  expectRecovered(found: RecoveredLog, what = 'what is found again'): void {
    const kept = this.model.slice(this.purged.index);
    const runs = kept
      .filter((entry, place) => entry.term !== kept[place - 1]?.term)
      .map(({ index, term }) => ({ firstIndex: index, term }));
    const memberships = kept
      .filter(({ kind }) => kind === ENTRY_KIND.membership)
      .map(({ index, payload }) => ({
        index,
        membership: decodeTestMembership(Buffer.from(payload, 'latin1')),
      }));
    assert.equal(found.lastIndex, this.lastIndex, `${what}: last index`);
    same(found.termRuns, runs, `${what}: runs of terms`);
    same(found.memberships, memberships, `${what}: memberships`);
    same(found.purged, this.purged, `${what}: purged`);
  }
}
