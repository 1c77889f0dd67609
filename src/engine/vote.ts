import type { Vote } from './types.js';

/**
 * Whether a promise may replace another. A higher term always may. Within a term:
 *
 *   nobody < granted to a node < that term's elected leader
 *
 * and the granted votes of two nodes never replace one another: that would be two votes in one term.
 * The elected leader may replace a vote granted to a loser, because its election is a fact.
 */
export function mayReplaceVote(present: Vote, next: Vote): boolean {
  if (next.term !== present.term) return next.term > present.term;
  if (present.nodeId === 0) return true;
  if (next.nodeId === present.nodeId) return next.committed || !present.committed;
  return next.nodeId !== 0 && next.committed && !present.committed;
}

export function sameVote(left: Vote, right: Vote): boolean {
  return (
    left.term === right.term && left.nodeId === right.nodeId && left.committed === right.committed
  );
}
