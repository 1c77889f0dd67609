/**
 * The vocabulary of the consensus algorithm. Terms, indexes and node ids are safe integers; index 0
 * and term 0 stand before the first entry, node id 0 stands for nobody.
 */
export type Term = number;
export type LogIndex = number;
export type NodeId = number;

/** Position and term of an entry. Ordered by term, then index, when logs are compared. */
export interface LogId {
  readonly term: Term;
  readonly index: LogIndex;
}

export const NO_LOG_ID: LogId = { term: 0, index: 0 };

/**
 * What a node has promised: the term, for whom, and whether that node is known to lead
 * (`committed`). Within a term: nobody < a vote granted < the elected leader, and the granted votes
 * of two nodes never replace one another.
 */
export interface Vote {
  readonly term: Term;
  readonly nodeId: NodeId;
  readonly committed: boolean;
}

export const NO_VOTE: Vote = { term: 0, nodeId: 0, committed: false };

/** All entries from `firstIndex` up to the next run carry `term`. */
export interface TermRun {
  readonly firstIndex: LogIndex;
  readonly term: Term;
}

/**
 * Who votes and who listens. One configuration, or two in a joint configuration; a decision needs a
 * majority of each. Addresses are carried for the network; the engine does not look at them.
 */
export interface Membership {
  readonly configs: readonly (readonly NodeId[])[];
  readonly learners: readonly NodeId[];
  readonly addresses: Readonly<Record<NodeId, string>>;
}

export interface StoredMembership {
  /** Index of the entry that carried it. */
  readonly index: LogIndex;
  readonly membership: Membership;
}

/**
 * Names one write to the log lane. `sequence` orders I/O of one group and is never reused; vote and
 * log id say what is durable once it has completed. Vote first, because a log id alone can come back
 * after a truncation.
 */
export interface IoId {
  readonly sequence: number;
  readonly vote: Vote;
  readonly logId: LogId;
}

/** A durable snapshot, as the engine sees it. */
export interface SnapshotMeta {
  /** The last entry whose effect it holds. */
  readonly lastIncluded: LogId;
  /** The membership in force there. */
  readonly membership: StoredMembership;
}

/** What recovery found of one group; the engine starts from it. */
export interface RecoveredLog {
  readonly vote: Vote;
  /** The entry before the first one kept; `NO_LOG_ID` when nothing was ever purged. */
  readonly purged: LogId;
  /** Runs of the kept entries, ascending; empty when there are none. */
  readonly termRuns: readonly TermRun[];
  readonly lastIndex: LogIndex;
  /** Highest commit index that was recorded, never beyond `lastIndex`. */
  readonly committed: LogIndex;
  /** What a durable state machine holds already; by default what was purged. Never beyond `lastIndex`. */
  readonly applied?: LogIndex;
  /** All memberships in the kept entries, ascending by index. */
  readonly memberships: readonly StoredMembership[];
  /** The newest snapshot, which the state machine has been restored from or is ahead of. */
  readonly snapshot?: SnapshotMeta | undefined;
  /**
   * The disk has lost entries or votes. What is told here is whole; but this node does not know any more
   * what it has acknowledged and promised, so it takes no part in anything.
   */
  readonly damaged?: boolean;
}

export interface LostRange {
  readonly firstIndex: LogIndex;
  /** Undefined when nobody knows how far the log went. */
  readonly lastIndex: LogIndex | undefined;
}

/** What is lost of a group; no range when its entries are whole. */
export interface GroupLoss {
  readonly group: number;
  /** Ascending; only the last one may have no end. */
  readonly ranges: readonly LostRange[];
  /** The node may have voted in a later term than the one that is known. */
  readonly voteInDoubt: boolean;
}

/** A `damaged` node applies what it knows to be committed; it neither votes nor acknowledges. */
export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader' | 'learner' | 'damaged';
