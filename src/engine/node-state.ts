import { CommandQueue } from './command-queue.js';
import type { Command, EntrySource } from './commands.js';
import type { EngineConfig } from './config.js';
import { invariant } from './invariant.js';
import { IoProgress } from './io-progress.js';
import { LogIds } from './log-ids.js';
import { Memberships } from './memberships.js';
import type { ControlMessage } from './messages.js';
import { Quorum } from './quorum.js';
import { Random, seedForNode } from './random.js';
import { ReplyQueue } from './reply-queue.js';
import type {
  IoId,
  LogId,
  LogIndex,
  NodeId,
  RecoveredLog,
  Role,
  SnapshotMeta,
  StoredMembership,
  Term,
  TermRun,
  Vote,
} from './types.js';
import { mayReplaceVote, sameVote } from './vote.js';

/**
 * What a node of any role has: its vote, its log, how far both are durable, how far the log is
 * committed and applied, and the commands that await the runtime. Every change of these passes
 * through the methods here, which keep the invariants
 *
 *   purged ≤ snapshot ≤ applied ≤ committed ≤ last index, flushed ≤ submitted ≤ accepted,
 *   nothing committed is truncated, a vote is replaced only as votes may be, and a damaged log takes
 *   nothing.
 */
export class NodeState {
  readonly config: EngineConfig;
  readonly nodeId: NodeId;
  readonly log: LogIds;
  readonly memberships: Memberships;
  readonly io: IoProgress;
  readonly damaged: boolean;
  quorum: Quorum;
  role: Role = 'follower';
  vote: Vote;
  leader: NodeId = 0;
  committed: LogIndex;
  applied: LogIndex;
  /** The newest durable snapshot; `NO_LOG_ID` when there is none. */
  snapshot: LogId;
  nowMs: number;
  electionDeadlineMs = 0;
  /** When a live leader was last heard of; such a node does not help to depose it. */
  leaderHeardMs: number = Number.NEGATIVE_INFINITY;
  /** Heartbeat rounds, numbered over all terms of this run. */
  round = 0;
  /** Replication sessions, numbered over all terms of this run. */
  session = 0;
  private applySubmitted: LogIndex;
  private electionTimeoutMs = 0;
  private armedSequence = 0;
  private announcedRole: Role = 'follower';
  private announcedLeader: NodeId = 0;
  private announcedVote: Vote;
  private readonly commands = new CommandQueue();
  private readonly random: Random;
  private readonly voteReplies: ReplyQueue = new ReplyQueue();
  private readonly logReplies: ReplyQueue = new ReplyQueue();

  constructor(config: EngineConfig, recovered: RecoveredLog, nowMs: number) {
    this.config = config;
    this.nodeId = config.nodeId;
    this.nowMs = nowMs;
    this.damaged = recovered.damaged === true;
    this.vote = recovered.vote;
    this.announcedVote = recovered.vote;
    this.log = new LogIds(recovered.purged, recovered.termRuns, recovered.lastIndex);
    const { snapshot } = recovered;
    this.snapshot = snapshot?.lastIncluded ?? recovered.purged;
    this.memberships = new Memberships(membershipsOf(recovered));
    this.quorum = new Quorum(this.memberships.effective);
    this.io = new IoProgress(recovered.lastIndex);
    this.applied = recovered.applied ?? this.snapshot.index;
    invariant(this.log.purged.index <= this.snapshot.index, 'purged ≤ snapshot');
    this.committed = Math.max(recovered.committed, this.applied);
    this.applySubmitted = this.applied;
    this.random = new Random(seedForNode(config.seed, config.nodeId));
    if (snapshot !== undefined) this.startFrom(snapshot);
    invariant(this.log.lastTerm <= this.vote.term, 'no entry is newer than the vote');
    invariant(this.committed <= this.log.lastIndex, 'committed ≤ last', this.committed);
    invariant(this.snapshot.index <= this.applied, 'snapshot ≤ applied', this.applied);
    this.role = this.roleOfFollower();
    this.armElection();
    this.announce();
    this.submitApply();
  }

  get term(): Term {
    return this.vote.term;
  }

  get isVoter(): boolean {
    return !this.damaged && this.quorum.isVoter(this.nodeId);
  }

  lastLogId(): LogId {
    return { term: this.log.lastTerm, index: this.log.lastIndex };
  }

  roleOfFollower(): Role {
    if (this.damaged) return 'damaged';
    return this.isVoter ? 'follower' : 'learner';
  }

  // Commands

  emit(command: Command): void {
    this.commands.push(command);
  }

  send(target: NodeId, message: ControlMessage): void {
    this.emit({ type: 'Send', target, message });
  }

  nextCommand(): Command | undefined {
    this.io.submitted = this.io.accepted;
    return this.commands.shift();
  }

  /** Tells of role, term, vote and leader when one of them has changed. */
  announce(): void {
    const { role, leader, vote } = this;
    const changed = role !== this.announcedRole || leader !== this.announcedLeader;
    if (!changed && vote === this.announcedVote) return;
    this.announcedRole = role;
    this.announcedLeader = leader;
    this.announcedVote = vote;
    this.emit({ type: 'LeadershipChanged', role, term: vote.term, leader, vote });
  }

  // Log lane

  saveVote(vote: Vote): void {
    if (sameVote(this.vote, vote)) return;
    invariant(mayReplaceVote(this.vote, vote), 'vote order', this.vote.term, vote.term);
    this.vote = vote;
    const io = this.acceptIo();
    this.io.voteSequence = io.sequence;
    this.emit({ type: 'SaveVote', io });
  }

  append(source: EntrySource, count: number): LogIndex {
    const firstIndex = this.log.lastIndex + 1;
    const lastIndex = this.log.lastIndex + count;
    const term = this.vote.term;
    this.log.append(firstIndex, lastIndex, term);
    this.emit({ type: 'AppendEntries', io: this.acceptIo(), source, firstIndex, lastIndex, term });
    return firstIndex;
  }

  appendReceived(runs: readonly TermRun[], firstIndex: LogIndex, lastIndex: LogIndex): void {
    this.log.appendRuns(runs, firstIndex, lastIndex);
    invariant(this.log.lastIndex === lastIndex, 'runs cover the entries', lastIndex);
    invariant(this.log.lastTerm <= this.vote.term, 'no entry is newer than its leader');
    const term = this.log.lastTerm;
    const io = this.acceptIo();
    this.emit({ type: 'AppendEntries', io, source: 'received', firstIndex, lastIndex, term });
  }

  truncateAfter(index: LogIndex): void {
    invariant(index >= this.committed, 'nothing committed is truncated', index, this.committed);
    this.log.truncateAfter(index);
    this.io.truncatedAfter(index);
    this.emit({ type: 'TruncateAfter', io: this.acceptIo(), index });
    if (this.memberships.truncateAfter(index)) this.membershipChanged();
  }

  advanceIo(): void {
    this.emit({ type: 'AdvanceIo', io: this.acceptIo() });
  }

  /**
   * A durable snapshot that the log does not lead to has taken its place. Its entries were committed
   * elsewhere, so all that it holds is committed and durable here too.
   */
  installSnapshot(snapshot: SnapshotMeta): void {
    const { lastIncluded } = snapshot;
    invariant(lastIncluded.index > this.committed, 'what is committed stays', this.committed);
    this.snapshot = lastIncluded;
    this.committed = lastIncluded.index;
    this.applySubmitted = lastIncluded.index;
    this.resetLog(snapshot);
    this.emit({ type: 'InstallSnapshot', lastIncluded });
    this.emit({ type: 'Commit', index: lastIncluded.index });
  }

  /** Whether the log leads to this entry: then everything before it is equal as well. */
  holds({ term, index }: LogId): boolean {
    return index <= this.committed || this.log.termAt(index) === term;
  }

  /** Gives up entries up to `index`, if they are still there. */
  purge(index: LogIndex): void {
    if (index <= this.log.purged.index) return;
    invariant(index <= this.snapshot.index, 'purged ≤ snapshot', index, this.snapshot.index);
    this.log.purge(index);
    this.memberships.purge(index);
    this.emit({ type: 'PurgeUpTo', upTo: this.log.purged });
  }

  appendMembership(stored: StoredMembership): void {
    this.memberships.append(stored);
    this.membershipChanged();
  }

  // Replies

  /** Replies once the present vote is durable. */
  replyAfterVote(target: NodeId, message: ControlMessage): void {
    if (this.io.voteIsFlushed) this.send(target, message);
    else this.voteReplies.push(this.io.voteSequence, target, message);
  }

  /** Replies once everything accepted so far is durable. */
  replyAfterLog(target: NodeId, message: ControlMessage): void {
    if (this.io.pending === 0) this.send(target, message);
    else this.logReplies.push(this.io.accepted, target, message);
  }

  releaseReplies(): void {
    this.release(this.voteReplies);
    this.release(this.logReplies);
  }

  // Commit and apply

  commitUpTo(index: LogIndex): void {
    if (index <= this.committed) return;
    invariant(index <= this.log.lastIndex, 'committed ≤ last', index, this.log.lastIndex);
    this.committed = index;
    this.emit({ type: 'Commit', index });
    this.submitApply();
  }

  /** Applies what is both committed and durable here. */
  submitApply(): void {
    const lastIndex = Math.min(this.committed, this.io.flushedIndex);
    if (lastIndex <= this.applySubmitted) return;
    const firstIndex = this.applySubmitted + 1;
    this.applySubmitted = lastIndex;
    this.emit({ type: 'Apply', firstIndex, lastIndex });
  }

  /** The machine holds the snapshot that was installed. */
  restoredUpTo(index: LogIndex): void {
    this.appliedUpTo(index);
    this.submitApply();
  }

  appliedUpTo(index: LogIndex): void {
    invariant(index <= this.applySubmitted, 'applied ≤ submitted', index, this.applySubmitted);
    if (index > this.applied) this.applied = index;
  }

  // Election timer

  /** Draws a new timeout and starts it. */
  armElection(): void {
    const least = this.config.electionTimeoutMs;
    this.electionTimeoutMs = least + this.random.below(least);
    this.restartElectionTimer();
  }

  restartElectionTimer(): void {
    this.electionDeadlineMs = this.nowMs + this.electionTimeoutMs;
    this.armedSequence = this.io.accepted;
  }

  /** Whether the disk has kept up since the timer was started; a node whose disk hangs must not lead. */
  diskKeptUp(): boolean {
    return this.io.flushed >= this.armedSequence;
  }

  heardLeader(): boolean {
    return this.nowMs - this.leaderHeardMs < this.config.electionTimeoutMs;
  }

  /**
   * What is on the disk at a start: the newest snapshot, and a log that may be older (the power failed
   * between the two), or may even hold other entries at its index.
   */
  private startFrom(snapshot: SnapshotMeta): void {
    const { lastIncluded } = snapshot;
    const { term, index } = lastIncluded;
    // The vote that came with it may not have been durable yet; nothing was promised in that term.
    if (this.vote.term < term) this.saveVote({ term, nodeId: 0, committed: false });
    if (this.log.termAt(index) !== term) this.resetLog(snapshot);
    this.committed = Math.max(this.committed, index);
  }

  private resetLog({ lastIncluded, membership }: SnapshotMeta): void {
    this.log.reset(lastIncluded);
    this.io.resetTo(lastIncluded.index);
    this.memberships.reset(membership);
    this.emit({ type: 'ResetLog', io: this.acceptIo(), lastIncluded });
    this.membershipChanged();
  }

  private acceptIo(): IoId {
    invariant(!this.damaged, 'a damaged log takes nothing');
    const sequence = this.io.accept(this.log.lastIndex);
    return { sequence, vote: this.vote, logId: this.lastLogId() };
  }

  private membershipChanged(): void {
    const membership = this.memberships.effective;
    this.quorum = new Quorum(membership);
    if (this.role === 'follower' || this.role === 'learner') this.role = this.roleOfFollower();
    this.emit({
      type: 'MembershipChanged',
      index: this.memberships.effectiveIndex,
      membership: membership ?? { configs: [], learners: [], addresses: {} },
    });
    this.announce();
  }

  private release(queue: ReplyQueue): void {
    while (queue.isDue(this.io.flushed)) {
      const target = queue.target();
      const message = queue.take();
      if (message.term !== this.vote.term) continue;
      invariant(
        (message.type !== 'AppendResponse' && message.type !== 'SnapshotResponse') ||
          message.matchIndex <= this.io.flushedIndex,
        'only durable entries are acknowledged',
      );
      this.send(target, message);
    }
  }
}

/** The one that the snapshot holds, and those behind it in the log. */
function membershipsOf({ memberships, snapshot }: RecoveredLog): readonly StoredMembership[] {
  if (snapshot === undefined) return memberships;
  const { membership } = snapshot;
  return [membership, ...memberships.filter(({ index }) => index > membership.index)];
}
