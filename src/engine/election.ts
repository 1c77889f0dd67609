import { isUpToDate } from './log-ids.js';
import type { PreVoteRequest, PreVoteResponse, VoteRequest, VoteResponse } from './messages.js';
import type { NodeState } from './node-state.js';
import type { NodeId, Term } from './types.js';

/**
 * An attempt to be elected, from the side of the candidate.
 *
 *   timeout → pre-vote asks, changes nothing → majority → vote for oneself, save it
 *           → flushed: count it and ask the others → majority → leader
 */
export class Campaign {
  /** The term to be won. */
  readonly term: Term;
  readonly isPreVote: boolean;
  private readonly granted: number[];
  private ownVoteCounted = false;

  constructor(state: NodeState, isPreVote: boolean) {
    this.term = isPreVote ? state.term + 1 : state.term;
    this.isPreVote = isPreVote;
    this.granted = state.quorum.ids.map(() => 0);
  }

  grant(state: NodeState, from: NodeId): void {
    const slot = state.quorum.slotOf(from);
    if (slot >= 0) this.granted[slot] = 1;
  }

  isWon(state: NodeState): boolean {
    return state.quorum.majority(this.granted) >= 1;
  }

  /** Once the vote for oneself is durable, it counts, and the others may be asked. */
  ownVoteFlushed(state: NodeState): void {
    if (this.isPreVote || this.ownVoteCounted || !state.io.voteIsFlushed) return;
    this.ownVoteCounted = true;
    this.grant(state, state.nodeId);
    const { term } = this;
    broadcast(state, { type: 'VoteRequest', term, lastLogId: state.lastLogId() });
  }
}

/** Begins to ask whether an election could be won; wins at once when nobody else has a say. */
export function beginPreVote(state: NodeState): Campaign {
  state.role = 'pre-candidate';
  state.leader = 0;
  state.armElection();
  const campaign = new Campaign(state, true);
  campaign.grant(state, state.nodeId);
  const { term } = campaign;
  broadcast(state, { type: 'PreVoteRequest', term, lastLogId: state.lastLogId() });
  state.announce();
  return campaign;
}

/** Votes for oneself in a new term; the others are asked when that vote is durable. */
export function beginElection(state: NodeState): Campaign {
  state.role = 'candidate';
  state.leader = 0;
  state.saveVote({ term: state.term + 1, nodeId: state.nodeId, committed: false });
  state.armElection();
  state.announce();
  return new Campaign(state, false);
}

/**
 * Answers whether this node would vote for the sender. Never while a live leader is heard, and only
 * for a term of its own future; a refusal carries the present term, which the sender then adopts, so
 * that a candidate with the better log is not refused for ever by a node with the higher term.
 */
export function answerPreVote(state: NodeState, from: NodeId, request: PreVoteRequest): void {
  const granted =
    request.term > state.term && !followsLiveLeader(state) && mayElect(state, request.lastLogId);
  const { term } = state;
  const response: PreVoteResponse = {
    type: 'PreVoteResponse',
    term,
    requestTerm: request.term,
    granted,
  };
  state.replyAfterVote(from, response);
}

/** Whether a candidate is to be ignored, its term included, because a leader is alive. */
export function ignoresCandidate(state: NodeState, request: VoteRequest): boolean {
  return state.config.checkQuorum && request.term > state.term && followsLiveLeader(state);
}

/** Whether a request of the present or a later term gets this node's vote. */
export function deservesVote(state: NodeState, from: NodeId, request: VoteRequest): boolean {
  const { vote } = state;
  const free = request.term > vote.term || vote.nodeId === 0 || vote.nodeId === from;
  return free && mayElect(state, request.lastLogId);
}

export function answerVote(
  state: NodeState,
  from: NodeId,
  request: VoteRequest,
  granted: boolean,
): void {
  const response: VoteResponse = {
    type: 'VoteResponse',
    term: state.term,
    requestTerm: request.term,
    granted,
  };
  state.replyAfterVote(from, response);
}

/** A node that has no membership has lost its log or never had one: it elects nobody. */
function mayElect(state: NodeState, lastLogId: VoteRequest['lastLogId']): boolean {
  if (state.memberships.effective === undefined) return false;
  return isUpToDate(lastLogId, state.log.lastTerm, state.log.lastIndex);
}

function followsLiveLeader(state: NodeState): boolean {
  return state.role === 'leader' || (state.leader !== 0 && state.heardLeader());
}

function broadcast(state: NodeState, message: PreVoteRequest | VoteRequest): void {
  for (const peer of state.quorum.ids) {
    if (peer !== state.nodeId && state.quorum.isVoter(peer)) state.send(peer, message);
  }
}
