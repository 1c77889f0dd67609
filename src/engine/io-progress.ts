import { invariant } from './invariant.js';
import type { LogIndex } from './types.js';

/** A node with this many unflushed writes to its log takes no more until some are durable. */
export const MAX_PENDING_IO = 65_536;

/**
 * How far the log lane has come. Every I/O has a sequence number; three watermarks pass over them:
 *
 *   flushed (durable) ≤ submitted (handed to the runtime) ≤ accepted (decided)
 *
 * For each pending I/O it is known up to which index the log is durable *as it stands now* once that
 * I/O is. A truncation lowers this for all that are pending, so that the completion of an append
 * whose entries were overwritten since never counts for the entries that replaced them.
 */
export class IoProgress {
  accepted = 0;
  submitted = 0;
  flushed = 0;
  /** All entries up to here are durable, and are the ones in the log now. */
  flushedIndex: LogIndex;
  /** The I/O that made the present vote durable, or will. */
  voteSequence = 0;
  private lastIndexes: LogIndex[] = new Array(256).fill(0);

  constructor(recoveredLastIndex: LogIndex) {
    this.flushedIndex = recoveredLastIndex;
  }

  get pending(): number {
    return this.accepted - this.flushed;
  }

  get voteIsFlushed(): boolean {
    return this.voteSequence <= this.flushed;
  }

  /** Accepts one more I/O, after which the log ends at `lastIndex`. */
  accept(lastIndex: LogIndex): number {
    if (this.pending === this.lastIndexes.length) this.grow();
    this.accepted++;
    this.lastIndexes[this.accepted & (this.lastIndexes.length - 1)] = lastIndex;
    return this.accepted;
  }

  truncatedAfter(index: LogIndex): void {
    if (this.flushedIndex > index) this.flushedIndex = index;
    const mask = this.lastIndexes.length - 1;
    for (let sequence = this.flushed + 1; sequence <= this.accepted; sequence++) {
      if (this.lastIndexes[sequence & mask]! > index) this.lastIndexes[sequence & mask] = index;
    }
  }

  /** A durable snapshot holds everything up to `index`, and the log behind it is empty. */
  resetTo(index: LogIndex): void {
    this.flushedIndex = index;
    const mask = this.lastIndexes.length - 1;
    for (let sequence = this.flushed + 1; sequence <= this.accepted; sequence++) {
      this.lastIndexes[sequence & mask] = index;
    }
  }

  /** Everything up to `sequence` is durable. Returns whether that is news. */
  flush(sequence: number): boolean {
    invariant(sequence <= this.submitted, 'flushed ≤ submitted', sequence, this.submitted);
    if (sequence <= this.flushed) return false;
    this.flushed = sequence;
    const lastIndex = this.lastIndexes[sequence & (this.lastIndexes.length - 1)]!;
    invariant(lastIndex >= this.flushedIndex, 'durable log shrinks', lastIndex, this.flushedIndex);
    this.flushedIndex = lastIndex;
    return true;
  }

  private grow(): void {
    const grown: LogIndex[] = new Array(this.lastIndexes.length * 2).fill(0);
    const mask = this.lastIndexes.length - 1;
    for (let sequence = this.flushed + 1; sequence <= this.accepted; sequence++) {
      grown[sequence & (grown.length - 1)] = this.lastIndexes[sequence & mask]!;
    }
    this.lastIndexes = grown;
  }
}
