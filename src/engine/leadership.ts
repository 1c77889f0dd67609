import { invariant } from './invariant.js';
import type {
  AppendConflict,
  AppendResponse,
  HeartbeatResponse,
  SnapshotResponse,
} from './messages.js';
import type { NodeState } from './node-state.js';
import { Progress } from './progress.js';
import { ReadRounds } from './reads.js';
import type { LogIndex, NodeId, Term } from './types.js';

/**
 * What a leader has and does, from its election to the end of its term. Members are addressed by
 * their slot in the quorum; a number per member is kept for everything that needs a majority.
 */
export class Leadership {
  readonly term: Term;
  /** The blank entry with which the term starts. Only what is at or behind it commits by counting. */
  readonly firstIndex: LogIndex;
  heartbeatDeadlineMs = 0;
  private readonly state: NodeState;
  private readonly ownSlot: number;
  /** Per slot; none for the leader itself. */
  private readonly progress: (Progress | undefined)[];
  /** Per slot: durable up to here and equal to the leader's log. */
  private readonly matches: LogIndex[];
  /** Per slot: the last heartbeat round answered. */
  private readonly rounds: number[];
  /** Per slot: when it was last heard in this term. */
  private readonly contacts: number[];
  private readonly reads: ReadRounds;

  constructor(state: NodeState) {
    const { ids } = state.quorum;
    this.state = state;
    this.term = state.term;
    this.ownSlot = state.quorum.slotOf(state.nodeId);
    this.matches = ids.map(() => 0);
    this.rounds = ids.map(() => 0);
    this.contacts = ids.map(() => state.nowMs);
    this.reads = new ReadRounds(state);
    this.firstIndex = state.append('blank', 1);
    this.progress = ids.map((id) =>
      id === state.nodeId
        ? undefined
        : new Progress(++state.session, this.firstIndex, state.config.maxInflightMessages),
    );
    this.broadcastHeartbeat();
    this.replicateToAll();
  }

  get isReady(): boolean {
    return this.state.committed >= this.firstIndex;
  }

  end(): void {
    this.reads.fail(this.state);
  }

  // Time

  /** Returns false when no majority has been heard for an election timeout. */
  tick(): boolean {
    const { state } = this;
    if (state.config.checkQuorum) {
      if (this.ownSlot >= 0) this.contacts[this.ownSlot] = state.nowMs;
      const heard = state.quorum.majority(this.contacts);
      if (state.nowMs - heard >= state.config.electionTimeoutMs) return false;
    }
    if (state.nowMs >= this.heartbeatDeadlineMs) this.broadcastHeartbeat();
    return true;
  }

  /** After a pause of this process the silence of the others says nothing. */
  resume(): void {
    this.contacts.fill(this.state.nowMs);
    this.heartbeatDeadlineMs = this.state.nowMs;
  }

  broadcastHeartbeat(): void {
    const { state } = this;
    const { ids } = state.quorum;
    const round = ++state.round;
    this.heartbeatDeadlineMs = state.nowMs + state.config.heartbeatIntervalMs;
    if (this.ownSlot >= 0) this.rounds[this.ownSlot] = round;
    this.reads.roundBegins(state);
    for (let slot = 0; slot < ids.length; slot++) {
      if (slot === this.ownSlot) continue;
      const committed = Math.min(state.committed, this.matches[slot]!);
      state.send(ids[slot]!, { type: 'HeartbeatRequest', term: this.term, committed, round });
    }
  }

  // Events

  /** Returns the first index, or 0 when too much is uncommitted already. */
  write(count: number): LogIndex {
    const { state } = this;
    const uncommitted = state.log.lastIndex - state.committed;
    if (uncommitted + count > state.config.maxUncommittedEntries) return 0;
    const firstIndex = state.append('client', count);
    this.replicateToAll();
    return firstIndex;
  }

  read(): number {
    const round = this.reads.join(this.state);
    if (!this.reads.isInFlight) this.broadcastHeartbeat();
    this.confirmReads();
    return round;
  }

  flushed(): void {
    if (this.ownSlot < 0) return;
    const { flushedIndex } = this.state.io;
    if (flushedIndex <= this.matches[this.ownSlot]!) return;
    this.matches[this.ownSlot] = flushedIndex;
    if (flushedIndex > this.state.committed) this.commitByCounting();
  }

  /** Returns true when the follower has caught up behind a snapshot, and the log is no longer kept for it. */
  appendAnswered(from: NodeId, response: AppendResponse): boolean {
    const slot = this.state.quorum.slotOf(from);
    const progress = this.progress[slot];
    if (progress === undefined) return false;
    this.contacts[slot] = this.state.nowMs;
    if (response.session !== progress.session) return false;
    progress.paused = false;
    if (response.conflict !== undefined) {
      this.rejected(slot, progress, response.conflict);
      return false;
    }
    this.accepted(slot, progress, response.matchIndex);
    if (progress.catchUpTo === 0 || this.matches[slot]! < progress.catchUpTo) return false;
    progress.catchUpTo = 0;
    return true;
  }

  snapshotAnswered(from: NodeId, response: SnapshotResponse): void {
    const slot = this.state.quorum.slotOf(from);
    const progress = this.progress[slot];
    if (progress === undefined) return;
    this.contacts[slot] = this.state.nowMs;
    if (response.session !== progress.session || progress.state !== 'snapshot') return;
    if (response.state === 'installed') {
      progress.catchUpTo = this.state.log.lastIndex;
      this.accepted(slot, progress, response.matchIndex);
    } else if (response.state === 'failed') this.snapshotSendFailed(from, response.session);
  }

  /** It begins anew with a probe, at the next sign of life. */
  snapshotSendFailed(target: NodeId, session: number): void {
    if (!this.sendsSnapshot(target, session)) return;
    const progress = this.progress[this.state.quorum.slotOf(target)]!;
    progress.reset(++this.state.session, progress.nextIndex);
    progress.paused = true;
  }

  sendsInstead(target: NodeId, session: number, lastIncluded: LogIndex): boolean {
    if (!this.sendsSnapshot(target, session)) return false;
    this.progress[this.state.quorum.slotOf(target)]!.sendSnapshot(session, lastIncluded);
    return true;
  }

  sendsSnapshot(target: NodeId, session: number): boolean {
    const progress = this.progress[this.state.quorum.slotOf(target)];
    return progress?.state === 'snapshot' && progress.session === session;
  }

  /** The log behind this index stays: a snapshot of it is under way to somebody, or was. */
  get pinnedIndex(): LogIndex {
    let pinned = Number.POSITIVE_INFINITY;
    for (let slot = 0; slot < this.progress.length; slot++) {
      const progress = this.progress[slot];
      if (progress === undefined) continue;
      if (progress.state === 'snapshot') pinned = Math.min(pinned, progress.snapshotIndex);
      else if (progress.catchUpTo > 0) pinned = Math.min(pinned, this.matches[slot]!);
    }
    return pinned;
  }

  heartbeatAnswered(from: NodeId, response: HeartbeatResponse): void {
    const { state } = this;
    const slot = state.quorum.slotOf(from);
    const progress = this.progress[slot];
    if (progress === undefined) return;
    this.contacts[slot] = state.nowMs;
    if (response.round > this.rounds[slot]!) {
      invariant(response.round <= state.round, 'rounds are answered after they begin');
      this.rounds[slot] = response.round;
      this.confirmReads();
    }
    progress.paused = false;
    this.repeatWhatWasLost(slot, progress);
    this.replicate(slot);
  }

  /** The runtime has sent entries up to `lastIndex`. */
  replicated(target: NodeId, session: number, lastIndex: LogIndex, bytes: number): void {
    const slot = this.state.quorum.slotOf(target);
    const progress = this.progress[slot];
    if (progress === undefined || session !== progress.outstandingSession) return;
    progress.outstandingSession = 0;
    invariant(lastIndex <= this.state.log.lastIndex, 'sent ≤ last', lastIndex);
    if (session === progress.session) this.sent(progress, lastIndex, bytes);
    this.replicate(slot);
  }

  /** The runtime could not send; it is tried again at the next sign of life. */
  replicateFailed(target: NodeId, session: number): void {
    const progress = this.progress[this.state.quorum.slotOf(target)];
    if (progress === undefined || session !== progress.outstandingSession) return;
    progress.outstandingSession = 0;
    progress.paused = true;
  }

  peerConnected(peer: NodeId): void {
    const slot = this.state.quorum.slotOf(peer);
    const progress = this.progress[slot];
    if (progress === undefined) return;
    progress.paused = false;
    this.replicate(slot);
  }

  peerDisconnected(peer: NodeId): void {
    const slot = this.state.quorum.slotOf(peer);
    const progress = this.progress[slot];
    if (progress === undefined) return;
    const { state, nextIndex } = progress;
    const unknown = state === 'replicate' ? this.matches[slot]! + 1 : nextIndex;
    progress.reset(++this.state.session, unknown);
    progress.paused = true;
  }

  // What is known of a follower

  matchIndex(peer: NodeId): LogIndex {
    return this.matches[this.state.quorum.slotOf(peer)] ?? 0;
  }

  regressions(peer: NodeId): number {
    return this.progress[this.state.quorum.slotOf(peer)]?.regressions ?? 0;
  }

  /** The follower lives, but an append to it, or the answer, seems to be lost. */
  private repeatWhatWasLost(slot: number, progress: Progress): void {
    const { config, nowMs } = this.state;
    const silentMs = nowMs - progress.waitingSinceMs;
    if (progress.state === 'probe') {
      if (silentMs >= config.heartbeatIntervalMs) progress.probeInFlight = false;
    } else if (progress.inflightMessages > 0 && silentMs >= config.electionTimeoutMs) {
      progress.reset(++this.state.session, this.matches[slot]! + 1);
    }
  }

  private accepted(slot: number, progress: Progress, matchIndex: LogIndex): void {
    const { state } = this;
    invariant(matchIndex <= state.log.lastIndex, 'match ≤ last', matchIndex, state.log.lastIndex);
    progress.acknowledged(matchIndex);
    progress.waitingSinceMs = state.nowMs;
    progress.state = 'replicate';
    progress.probeInFlight = false;
    if (progress.nextIndex <= matchIndex) progress.nextIndex = matchIndex + 1;
    if (matchIndex > this.matches[slot]!) {
      this.matches[slot] = matchIndex;
      if (matchIndex > state.committed) this.commitByCounting();
    }
    this.replicate(slot);
  }

  private rejected(slot: number, progress: Progress, conflict: AppendConflict): void {
    const { state } = this;
    const matchIndex = this.matches[slot]!;
    if (conflict.rejectedIndex <= matchIndex) {
      // In state replicate it was overtaken by the answer that raised the match. A probe of this
      // session was sent after that answer, so here the follower denies what it had made durable.
      if (progress.state === 'probe') progress.regressions++;
      return;
    }
    if (progress.state === 'probe' && conflict.rejectedIndex !== progress.nextIndex - 1) return;
    if (conflict.rejectedIndex <= state.log.purged.index) {
      // Not even the first kept entry follows what it has.
      this.beginSnapshot(slot, progress);
      return;
    }
    progress.reset(++state.session, Math.max(matchIndex + 1, this.nextIndexAfter(conflict)));
    this.replicate(slot);
  }

  /**
   * Where to probe next. The follower holds `conflict.term` from `firstIndex` on and nothing later up
   * to the rejected place. If our log holds the same term there, they agree at our last entry of it;
   * if not, the whole run is skipped at once.
   */
  private nextIndexAfter(conflict: AppendConflict): LogIndex {
    const { log } = this.state;
    const upper = Math.min(conflict.rejectedIndex, conflict.lastIndex);
    const agreed = log.lastIndexWithTermAtMost(upper, conflict.term);
    if (agreed >= conflict.firstIndex && log.termAt(agreed) === conflict.term) return agreed + 1;
    return Math.max(log.purged.index + 1, Math.min(conflict.firstIndex, agreed + 1));
  }

  private beginSnapshot(slot: number, progress: Progress): void {
    const { state } = this;
    const { snapshot } = state;
    progress.sendSnapshot(++state.session, snapshot.index);
    state.emit({
      type: 'SendSnapshot',
      target: state.quorum.ids[slot]!,
      term: this.term,
      session: progress.session,
      lastIncluded: snapshot,
    });
  }

  private sent(progress: Progress, lastIndex: LogIndex, bytes: number): void {
    if (progress.state === 'probe') {
      progress.probeInFlight = true;
      progress.waitingSinceMs = this.state.nowMs;
      return;
    }
    // The answer may have come before the runtime told that it had sent.
    if (lastIndex < progress.nextIndex) return;
    if (progress.inflightMessages === 0) progress.waitingSinceMs = this.state.nowMs;
    progress.sent(lastIndex, bytes);
    progress.nextIndex = lastIndex + 1;
  }

  private replicateToAll(): void {
    for (let slot = 0; slot < this.progress.length; slot++) this.replicate(slot);
  }

  private replicate(slot: number): void {
    const progress = this.progress[slot];
    if (progress === undefined || progress.outstandingSession !== 0 || progress.paused) return;
    const { state } = this;
    const { config, log } = state;
    if (progress.state === 'snapshot') return;
    if (progress.nextIndex <= log.purged.index) {
      // What it has beyond its last answer is not known: the first kept entry may follow it.
      progress.reset(++state.session, log.purged.index + 1);
    }
    let maxBytes = config.maxAppendBytes;
    if (progress.state === 'replicate') {
      if (progress.nextIndex > log.lastIndex || progress.inflightIsFull) return;
      maxBytes = Math.min(maxBytes, config.maxInflightBytes - progress.inflightBytes);
      if (maxBytes <= 0) return;
    } else if (progress.probeInFlight) return;
    invariant(progress.nextIndex > this.matches[slot]!, 'next > match', progress.nextIndex);
    const prevIndex = progress.nextIndex - 1;
    progress.outstandingSession = progress.session;
    state.emit({
      type: 'Replicate',
      target: state.quorum.ids[slot]!,
      term: this.term,
      session: progress.session,
      prevLogId: { term: log.termAt(prevIndex), index: prevIndex },
      lastIndex: log.lastIndex,
      maxBytes,
      committed: state.committed,
    });
  }

  /** Paper, 5.4.2: an entry of an earlier term commits only together with one of this term. */
  private commitByCounting(): void {
    const { state } = this;
    const index = state.quorum.majority(this.matches);
    if (index <= state.committed || index < this.firstIndex) return;
    invariant(state.log.termAt(index) === this.term, 'commits its own term', index, this.term);
    const wasReady = this.isReady;
    state.commitUpTo(index);
    if (!wasReady) this.confirmReads();
  }

  private confirmReads(): void {
    const { reads, state } = this;
    if (!this.isReady || !reads.isInFlight) return;
    reads.confirm(state, state.quorum.majority(this.rounds), this.firstIndex);
    if (!reads.hasWaiting || reads.isInFlight) return;
    this.broadcastHeartbeat();
    // Without other voters the new round is answered already.
    reads.confirm(state, state.quorum.majority(this.rounds), this.firstIndex);
  }
}
