import type { Command } from './commands.js';
import { checkConfig, type EngineConfig } from './config.js';
import {
  answerPreVote,
  answerVote,
  beginElection,
  beginPreVote,
  type Campaign,
  deservesVote,
  ignoresCandidate,
} from './election.js';
import {
  answerHeartbeat,
  answerSnapshot,
  appendFromLeader,
  commitFromHeartbeat,
  installFromLeader,
  rejectOldLeader,
  rejectOldSnapshot,
  wantsSnapshot,
} from './follower.js';
import { invariant } from './invariant.js';
import { MAX_PENDING_IO } from './io-progress.js';
import { Leadership } from './leadership.js';
import type {
  AppendRequest,
  ControlMessage,
  HeartbeatRequest,
  PreVoteResponse,
  ReceivedEntries,
  SnapshotRequest,
  VoteRequest,
  VoteResponse,
} from './messages.js';
import { NodeState } from './node-state.js';
import { Snapshots } from './snapshots.js';
import type {
  LogId,
  LogIndex,
  Membership,
  NodeId,
  RecoveredLog,
  Role,
  SnapshotMeta,
  Term,
  Vote,
} from './types.js';
import { sameVote } from './vote.js';

/**
 * The consensus algorithm of one node. It is told what happened, by its methods, and answers with
 * what to do, by commands. It does no I/O, has no clock and no randomness of its own: the same seed
 * and the same events give the same commands, bit for bit.
 *
 * After every event, or after several, the runtime takes the commands and runs them.
 *
 * A node that was told that its log is damaged hears nobody and says nothing: whatever it answered would
 * stand for what it has forgotten. It applies what it knows to be committed, and that is all.
 */
export class Engine {
  readonly snapshots: Snapshots;
  private readonly state: NodeState;
  private leadership: Leadership | undefined;
  private campaigning: Campaign | undefined;

  /** A restarted node is a follower, whatever it was: it leads again only in a higher term. */
  constructor(config: EngineConfig, recovered: RecoveredLog, nowMs: number) {
    checkConfig(config);
    this.state = new NodeState(config, recovered, nowMs);
    this.snapshots = new Snapshots(this.state, () => this.leadership);
  }

  // Time

  /**
   * Monotonic time has come to `nowMs`. Called at `nextDeadline()`, and before other events so that
   * they are dated. After a gap of more than half an election timeout this process did not run:
   * timeouts start anew instead of firing, and what was known of others by time is void.
   */
  elapse(nowMs: number): void {
    const { state } = this;
    const gapMs = nowMs - state.nowMs;
    if (gapMs <= 0) return;
    state.nowMs = nowMs;
    if (gapMs * 2 > state.config.electionTimeoutMs) {
      state.leaderHeardMs = Number.NEGATIVE_INFINITY;
      state.armElection();
      this.leadership?.resume();
    }
    if (this.leadership !== undefined) {
      if (nowMs >= this.leadership.heartbeatDeadlineMs && !this.leadership.tick()) this.stepDown();
    } else if (nowMs >= state.electionDeadlineMs) this.electionTimedOut();
  }

  /**
   * When `elapse` is to be called at the latest. Never further off than a quarter of an election
   * timeout, so that a pause of the process can be told from an idle one.
   */
  nextDeadline(): number {
    const { state, leadership } = this;
    const deadlineMs = leadership?.heartbeatDeadlineMs ?? state.electionDeadlineMs;
    return Math.min(deadlineMs, state.nowMs + state.config.electionTimeoutMs / 4);
  }

  // Local events

  /**
   * Whether this node has never taken part in anything, so that `bootstrap` is allowed. A crash may
   * have kept the vote of an earlier bootstrap without its entry.
   */
  get isPristine(): boolean {
    const { log, vote, memberships } = this.state;
    const unused = vote.term <= 1 && vote.nodeId === 0 && log.lastIndex === 0;
    return unused && memberships.effective === undefined && !this.state.damaged;
  }

  /** Starts a fresh cluster; the same membership on every initial member. Only on a pristine node. */
  bootstrap(membership: Membership): void {
    const { state } = this;
    invariant(this.isPristine, 'bootstrap on a pristine node', state.term, state.log.lastIndex);
    state.saveVote({ term: 1, nodeId: 0, committed: false });
    const index = state.append('bootstrap', 1);
    state.appendMembership({ index, membership });
    state.armElection();
  }

  /**
   * Appends `count` client entries and returns the index of the first, or 0 when this node does not
   * lead or too much is uncommitted.
   */
  clientWrite(count: number): LogIndex {
    invariant(count > 0, 'a write has entries', count);
    if (this.leadership === undefined || this.state.io.pending >= MAX_PENDING_IO) return 0;
    return this.leadership.write(count);
  }

  /** Returns the round to wait for (ReadReady or ReadFailed), or 0 when this node does not lead. */
  requestRead(): number {
    return this.leadership?.read() ?? 0;
  }

  /** The I/O with this sequence number, and all before it, are durable. */
  logFlushed(sequence: number): void {
    const { state } = this;
    if (!state.io.flush(sequence)) return;
    state.releaseReplies();
    if (this.leadership !== undefined) this.leadership.flushed();
    else if (this.campaigning !== undefined) this.campaignGoesOn(this.campaigning);
    state.submitApply();
  }

  applied(index: LogIndex): void {
    this.state.appliedUpTo(index);
  }

  /** Gives up leadership or candidacy, within the term; the vote stays. For a disk that fails. */
  stepDown(): void {
    if (this.leadership === undefined && this.campaigning === undefined) return;
    this.becomeFollower(this.state.vote, 0);
  }

  /** Does not wait for the election timeout; asks with a pre-vote if those are configured. */
  campaign(): void {
    const { state } = this;
    if (this.leadership !== undefined || !state.isVoter) return;
    if (state.config.preVote && !state.quorum.isOnlyVoter(state.nodeId)) {
      this.campaigning = beginPreVote(state);
    } else this.elect();
  }

  // Replication

  /** Answers a Replicate: entries up to `lastIndex`, of `bytes` bytes, were handed to the network. */
  replicated(target: NodeId, session: number, lastIndex: LogIndex, bytes: number): void {
    this.leadership?.replicated(target, session, lastIndex, bytes);
  }

  /** Answers a Replicate that could not be sent. */
  replicateFailed(target: NodeId, session: number): void {
    this.leadership?.replicateFailed(target, session);
  }

  /** The peer can be sent to, again. */
  peerConnected(peer: NodeId): void {
    this.leadership?.peerConnected(peer);
  }

  peerDisconnected(peer: NodeId): void {
    this.leadership?.peerDisconnected(peer);
  }

  // Messages

  receive(from: NodeId, message: ControlMessage): void {
    if (this.state.damaged) return;
    const { type } = message;
    if (type === 'PreVoteRequest') answerPreVote(this.state, from, message);
    else if (type === 'VoteRequest') this.handleVoteRequest(from, message);
    else if (type === 'HeartbeatRequest') this.handleHeartbeat(from, message);
    else if (message.term > this.state.term) this.adopt(message.term);
    else if (message.term === this.state.term) {
      if (type === 'AppendResponse') {
        if (this.leadership?.appendAnswered(from, message) === true) this.snapshots.purge();
      } else if (type === 'SnapshotResponse') {
        this.leadership?.snapshotAnswered(from, message);
        this.snapshots.purge();
      } else if (type === 'HeartbeatResponse') this.leadership?.heartbeatAnswered(from, message);
      else this.handleVoteResponse(from, message);
    } else if (type === 'PreVoteResponse') this.handleVoteResponse(from, message);
  }

  handleAppend(from: NodeId, request: AppendRequest, entries: ReceivedEntries): void {
    const { state } = this;
    if (state.damaged || state.io.pending >= MAX_PENDING_IO) return;
    if (request.term < state.term) {
      rejectOldLeader(state, from, request);
      return;
    }
    this.follow(from, request.term);
    appendFromLeader(state, from, request, entries);
  }

  /**
   * A leader offers a snapshot, or sends a piece of it. Whether to take it; otherwise it is answered,
   * unless this node is damaged.
   */
  handleSnapshot(from: NodeId, request: SnapshotRequest): boolean {
    const { state } = this;
    if (state.damaged) return false;
    if (request.term < state.term) {
      rejectOldSnapshot(state, from, request);
      return false;
    }
    this.follow(from, request.term);
    return wantsSnapshot(state, from, request);
  }

  /** All bytes before `offset` are in the file, of the one that `handleSnapshot` wanted. */
  snapshotProgressed(from: NodeId, request: SnapshotRequest, offset: number): void {
    answerSnapshot(this.state, from, request, 'receiving', offset);
  }

  /** It could not be taken. */
  snapshotRefused(from: NodeId, request: SnapshotRequest): void {
    answerSnapshot(this.state, from, request, 'failed', 0);
  }

  /** All of the snapshot is verified and durable, as `snapshot` says. */
  snapshotReceived(from: NodeId, request: SnapshotRequest, snapshot: SnapshotMeta): void {
    installFromLeader(this.state, from, request, snapshot);
  }

  // Results

  /** What is to be done next; undefined when all is taken. */
  nextCommand(): Command | undefined {
    return this.state.nextCommand();
  }

  get role(): Role {
    return this.state.role;
  }

  get term(): Term {
    return this.state.vote.term;
  }

  get vote(): Vote {
    return this.state.vote;
  }

  /** The known leader, or 0. */
  get leader(): NodeId {
    return this.state.leader;
  }

  get lastLogId(): LogId {
    return this.state.lastLogId();
  }

  get committedIndex(): LogIndex {
    return this.state.committed;
  }

  get appliedIndex(): LogIndex {
    return this.state.applied;
  }

  /** Durable up to here, as the log stands now. */
  get flushedIndex(): LogIndex {
    return this.state.io.flushedIndex;
  }

  /** The last entry that is purged: the log begins behind it. */
  get purgedIndex(): LogIndex {
    return this.state.log.purged.index;
  }

  get membership(): Membership | undefined {
    return this.state.memberships.effective;
  }

  /** Whether this node leads and an entry of its term is committed. */
  get isReadyToLead(): boolean {
    return this.leadership?.isReady ?? false;
  }

  /** The term of the entry, or -1 when it is beyond this log or purged. */
  termAt(index: LogIndex): Term {
    return this.state.log.termAt(index);
  }

  /** What the leader knows of a follower; 0 on other nodes. */
  matchIndex(peer: NodeId): LogIndex {
    return this.leadership?.matchIndex(peer) ?? 0;
  }

  /** How often the follower denied, in this term, what it had acknowledged as durable. */
  regressions(peer: NodeId): number {
    return this.leadership?.regressions(peer) ?? 0;
  }

  // Roles

  private electionTimedOut(): void {
    const { state } = this;
    if (state.isVoter && state.diskKeptUp()) {
      this.campaign();
      return;
    }
    state.leader = 0;
    state.armElection();
    state.announce();
  }

  private elect(): void {
    this.campaigning = beginElection(this.state);
  }

  /** Whatever may have brought the campaign a step further. */
  private campaignGoesOn(campaign: Campaign): void {
    const { state } = this;
    campaign.ownVoteFlushed(state);
    if (!campaign.isWon(state)) return;
    if (campaign.isPreVote) this.elect();
    else this.lead();
  }

  private lead(): void {
    const { state } = this;
    this.campaigning = undefined;
    state.role = 'leader';
    state.leader = state.nodeId;
    state.saveVote({ term: state.term, nodeId: state.nodeId, committed: true });
    state.announce();
    this.leadership = new Leadership(state);
  }

  private becomeFollower(vote: Vote, leader: NodeId): void {
    const { state } = this;
    if (this.leadership !== undefined) {
      this.leadership.end();
      this.leadership = undefined;
      state.armElection();
    }
    this.campaigning = undefined;
    state.role = state.roleOfFollower();
    state.leader = leader;
    state.saveVote(vote);
    state.announce();
  }

  private adopt(term: Term): void {
    this.becomeFollower({ term, nodeId: 0, committed: false }, 0);
  }

  /** `from` leads `term`, which is the present one or later. */
  private follow(from: NodeId, term: Term): void {
    const { state } = this;
    const { vote } = state;
    if (state.leader !== from || vote.term !== term || !vote.committed) {
      const elected: Vote = { term, nodeId: from, committed: true };
      const known = vote.term === term && vote.committed;
      invariant(!known || vote.nodeId === from, 'one leader in a term', vote.nodeId, from);
      this.becomeFollower(sameVote(vote, elected) ? vote : elected, from);
    }
    state.leaderHeardMs = state.nowMs;
    state.restartElectionTimer();
  }

  // Messages, by kind

  private handleVoteRequest(from: NodeId, request: VoteRequest): void {
    const { state } = this;
    if (ignoresCandidate(state, request)) return;
    const granted = request.term >= state.term && deservesVote(state, from, request);
    if (granted) {
      const repeated = state.term === request.term && state.vote.nodeId === from;
      if (!repeated) {
        this.becomeFollower({ term: request.term, nodeId: from, committed: false }, 0);
      }
      state.armElection();
    } else if (request.term > state.term) this.adopt(request.term);
    answerVote(state, from, request, granted);
  }

  private handleVoteResponse(from: NodeId, response: VoteResponse | PreVoteResponse): void {
    const campaign = this.campaigning;
    if (campaign === undefined || !response.granted) return;
    if (campaign.isPreVote !== (response.type === 'PreVoteResponse')) return;
    if (campaign.term !== response.requestTerm) return;
    campaign.grant(this.state, from);
    this.campaignGoesOn(campaign);
  }

  private handleHeartbeat(from: NodeId, request: HeartbeatRequest): void {
    const { state } = this;
    if (request.term >= state.term) {
      this.follow(from, request.term);
      commitFromHeartbeat(state, request);
    }
    answerHeartbeat(state, from, request);
  }
}
