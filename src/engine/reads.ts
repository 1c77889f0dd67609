import { invariant } from './invariant.js';
import type { NodeState } from './node-state.js';
import type { LogIndex } from './types.js';

/**
 * Linearizable reads without a log entry (ReadIndex, Ongaro's thesis, 6.4). A read may be answered
 * when a majority has answered a heartbeat round that began after the read was asked for, in the same
 * term: then nobody else led at that moment, and the commit index of that moment covers every write
 * acknowledged before. A new leader's commit index does so only once an entry of its own term is
 * committed.
 *
 * Reads that arrive while a round with reads is in flight wait together for the next round.
 */
export class ReadRounds {
  /** Highest round number handed to a caller. */
  private assigned = 0;
  /** Last round that has begun and carries reads. */
  private begun = 0;
  /** All rounds up to here are answered. */
  private answered: number;
  /** What must be applied before reads of the rounds begun may be answered. */
  private index: LogIndex = 0;

  constructor(state: NodeState) {
    this.answered = state.round;
  }

  get isInFlight(): boolean {
    return this.begun > this.answered;
  }

  get hasWaiting(): boolean {
    return this.assigned > this.begun;
  }

  /** The number of the next round to begin, for one more read. */
  join(state: NodeState): number {
    this.assigned = state.round + 1;
    return this.assigned;
  }

  /** A heartbeat round has begun; it carries the reads that wait. */
  roundBegins(state: NodeState): void {
    if (!this.hasWaiting) return;
    if (!this.isInFlight) this.answered = this.assigned - 1;
    this.begun = this.assigned;
    this.index = state.committed;
  }

  /** A majority has answered all rounds up to `round`, and the leader's term has a committed entry. */
  confirm(state: NodeState, round: number, firstIndexOfTerm: LogIndex): void {
    const confirmed = Math.min(round, this.begun);
    if (confirmed <= this.answered) return;
    this.answered = confirmed;
    if (this.index < firstIndexOfTerm) this.index = state.committed;
    invariant(this.index >= firstIndexOfTerm, 'a read sees its leader’s term', this.index);
    state.emit({ type: 'ReadReady', round: confirmed, index: this.index });
  }

  /** The leader has been deposed. Numbers handed out for rounds to come are not used again. */
  fail(state: NodeState): void {
    if (this.assigned <= this.answered) return;
    state.round = Math.max(state.round, this.assigned);
    state.emit({ type: 'ReadFailed', round: this.assigned });
  }
}
