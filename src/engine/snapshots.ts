import { invariant } from './invariant.js';
import type { Leadership } from './leadership.js';
import type { NodeState } from './node-state.js';
import type { LogId, LogIndex, NodeId, SnapshotMeta } from './types.js';

/**
 * Which snapshots this node has, and what may be purged for it: never more than the oldest one that is
 * kept includes, and nothing behind one that is under way to a follower, which goes on by the log.
 */
export class Snapshots {
  private readonly state: NodeState;
  private readonly leadership: () => Leadership | undefined;
  private building = false;
  private oldestKept: LogIndex = 0;
  /** The newest one is of no use any more: another one may take its place, though nothing was applied. */
  private isLost = false;

  constructor(state: NodeState, leadership: () => Leadership | undefined) {
    this.state = state;
    this.leadership = leadership;
  }

  /** What the newest durable snapshot includes. */
  get newest(): LogId {
    return this.state.snapshot;
  }

  get isBuilding(): boolean {
    return this.building;
  }

  /**
   * Asks for a snapshot of what is applied. False when there is nothing newer than the last one, and on a
   * node that is damaged; one that is being built already is not begun again.
   */
  build(): boolean {
    const { state } = this;
    if (this.building) return true;
    if (state.damaged || !this.leadsOn(state.applied)) return false;
    this.building = true;
    state.emit({ type: 'BuildSnapshot' });
    return true;
  }

  /** What a snapshot of the state behind `index` is to say; undefined when a newer one came meanwhile. */
  describe(index: LogIndex): SnapshotMeta | undefined {
    const { log, memberships, applied, io } = this.state;
    if (!this.leadsOn(index)) return undefined;
    invariant(index <= applied && index <= io.flushedIndex, 'snapshot ≤ applied', index, applied);
    const membership = memberships.at(index);
    invariant(membership !== undefined, 'the membership behind an applied entry is known', index);
    return { lastIncluded: { term: log.termAt(index), index }, membership };
  }

  /** Answers a BuildSnapshot; see `durable`. */
  built(lastIncluded: LogId, oldestKept: LogIndex): void {
    this.building = false;
    this.durable(lastIncluded, oldestKept);
  }

  /** A snapshot is durable, and the oldest that is kept includes `oldestKept`. */
  durable(lastIncluded: LogId, oldestKept: LogIndex): void {
    const { state } = this;
    if (lastIncluded.index >= state.snapshot.index) {
      state.snapshot = lastIncluded;
      this.isLost = false;
    }
    this.kept(oldestKept);
  }

  /** The newest snapshot turned out to be damaged. */
  lost(): void {
    this.isLost = true;
  }

  buildFailed(): void {
    this.building = false;
  }

  /** The oldest snapshot that is kept includes `oldestKept`: what is before it may go. */
  kept(oldestKept: LogIndex): void {
    this.oldestKept = Math.max(oldestKept, this.oldestKept);
    this.purge();
  }

  /** The machine has been restored from the snapshot of an InstallSnapshot. */
  installed(index: LogIndex): void {
    this.isLost = false;
    this.state.restoredUpTo(index);
  }

  /**
   * A SendSnapshot is answered with another snapshot than it names: one that the follower has a part of,
   * or an older one because that one is damaged. False when the log behind it is purged.
   */
  sendsInstead(target: NodeId, session: number, lastIncluded: LogIndex): boolean {
    if (lastIncluded < this.state.log.purged.index) return false;
    return this.leadership()?.sendsInstead(target, session, lastIncluded) ?? false;
  }

  /** A SendSnapshot came to nothing: the log is no longer kept for it. */
  sendFailed(target: NodeId, session: number): void {
    this.leadership()?.snapshotSendFailed(target, session);
    this.purge();
  }

  /** Whether a SendSnapshot is still to go on. */
  sends(target: NodeId, session: number): boolean {
    return this.leadership()?.sendsSnapshot(target, session) ?? false;
  }

  /** Whether a snapshot of what is applied up to `index` would be worth more than what there is. */
  private leadsOn(index: LogIndex): boolean {
    const { snapshot } = this.state;
    return index > snapshot.index || (this.isLost && index === snapshot.index);
  }

  /** Gives up what neither a restart nor a transfer needs. */
  purge(): void {
    const { state } = this;
    if (state.damaged) return;
    const pinned = this.leadership()?.pinnedIndex ?? Number.POSITIVE_INFINITY;
    const kept = Math.min(this.oldestKept, state.snapshot.index, pinned);
    state.purge(kept - state.config.keepEntries);
  }
}
