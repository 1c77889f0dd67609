import { invariant } from './invariant.js';
import type { LogIndex, Membership, StoredMembership } from './types.js';

/**
 * Every membership in the log, ascending by index. The last one is in force as soon as it is
 * appended; when its entry is truncated, the one before it is in force again.
 */
export class Memberships {
  private readonly stored: StoredMembership[];

  constructor(recovered: readonly StoredMembership[]) {
    this.stored = [...recovered];
  }

  get effective(): Membership | undefined {
    return this.stored.at(-1)?.membership;
  }

  get effectiveIndex(): LogIndex {
    return this.stored.at(-1)?.index ?? 0;
  }

  /** What was in force at `index`; undefined when that is not known any more. */
  at(index: LogIndex): StoredMembership | undefined {
    return this.stored.findLast((stored) => stored.index <= index);
  }

  /** Forgets those that were replaced by one at or before `index`. */
  purge(index: LogIndex): void {
    const kept = this.stored.findLastIndex((stored) => stored.index <= index);
    if (kept > 0) this.stored.splice(0, kept);
  }

  /** The log was replaced by a snapshot: what it says is in force, and nothing else is known. */
  reset(membership: StoredMembership): void {
    this.stored.splice(0, this.stored.length, membership);
  }

  append(membership: StoredMembership): void {
    invariant(
      membership.index > this.effectiveIndex || this.stored.length === 0,
      'memberships ascend',
      this.effectiveIndex,
      membership.index,
    );
    this.stored.push(membership);
  }

  /** Returns whether another membership is in force now. */
  truncateAfter(index: LogIndex): boolean {
    const before = this.stored.length;
    while (this.stored.length > 0 && this.stored.at(-1)!.index > index) this.stored.pop();
    return this.stored.length !== before;
  }
}
