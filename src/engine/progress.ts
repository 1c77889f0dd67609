import type { LogIndex } from './types.js';

/**
 * What a leader knows of one follower. (The index that it has acknowledged is kept beside those of
 * the others, where quorums are computed.)
 *
 * - `probe`: it is not known where its log agrees with ours. One append is in flight; it is repeated
 *   when a heartbeat is answered, in case it was lost.
 * - `replicate`: it follows. Appends are pipelined up to the limits in messages and bytes.
 * - `snapshot`: it needs entries that are purged, and is sent a snapshot in their place. No append goes
 *   out, and the log behind the snapshot stays.
 *
 * A session is one uninterrupted run of assumptions about the follower. Answers to an older one say
 * nothing about this one.
 */
export class Progress {
  state: 'probe' | 'replicate' | 'snapshot' = 'probe';
  session: number;
  nextIndex: LogIndex;
  /** Session of the Replicate that the runtime has not answered yet, or 0. */
  outstandingSession = 0;
  /** In state probe: the probe has been sent. */
  probeInFlight = false;
  /** The runtime could not send; wait for a sign of life. */
  paused = false;
  /** Since when the oldest append in flight has brought no news. */
  waitingSinceMs = 0;
  /** In state snapshot: the last index that the snapshot includes. */
  snapshotIndex: LogIndex = 0;
  /** Behind a snapshot: until it matches up to here, the log that it still needs stays; 0 otherwise. */
  catchUpTo: LogIndex = 0;
  /** How often it rejected what it had acknowledged as durable: it has lost data. */
  regressions = 0;
  inflightBytes = 0;
  private readonly lastIndexes: LogIndex[];
  private readonly sizes: number[];
  private head = 0;
  private count = 0;

  constructor(session: number, nextIndex: LogIndex, maxInflightMessages: number) {
    this.session = session;
    this.nextIndex = nextIndex;
    this.lastIndexes = new Array(maxInflightMessages).fill(0);
    this.sizes = new Array(maxInflightMessages).fill(0);
  }

  get inflightMessages(): number {
    return this.count;
  }

  get inflightIsFull(): boolean {
    return this.count === this.lastIndexes.length;
  }

  sent(lastIndex: LogIndex, bytes: number): void {
    let place = this.head + this.count;
    if (place >= this.lastIndexes.length) place -= this.lastIndexes.length;
    this.lastIndexes[place] = lastIndex;
    this.sizes[place] = bytes;
    this.inflightBytes += bytes;
    this.count++;
  }

  acknowledged(matchIndex: LogIndex): void {
    while (this.count > 0 && this.lastIndexes[this.head]! <= matchIndex) {
      this.inflightBytes -= this.sizes[this.head]!;
      this.head = this.head + 1 === this.lastIndexes.length ? 0 : this.head + 1;
      this.count--;
    }
  }

  /** It is sent a snapshot, under a new session. */
  sendSnapshot(session: number, lastIncluded: LogIndex): void {
    this.reset(session, lastIncluded + 1);
    this.state = 'snapshot';
    this.snapshotIndex = lastIncluded;
  }

  /** Forgets what is in flight and asks again from `nextIndex`, under a new session. */
  reset(session: number, nextIndex: LogIndex): void {
    this.state = 'probe';
    this.session = session;
    this.nextIndex = nextIndex;
    this.probeInFlight = false;
    this.catchUpTo = 0;
    this.head = 0;
    this.count = 0;
    this.inflightBytes = 0;
  }
}
