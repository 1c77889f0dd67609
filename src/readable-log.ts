/**
 * What a node whose log has lost something starts from: the part that is whole, behind what its machine
 * holds already and up to the first entry that is lost.
 *
 * ```
 *   in the snapshot, or applied       whole        lost
 * ─────────────────────────────┤├──────────────┤├────────
 * ```
 *
 * The committed entries in there are applied. No other node ever hears of this log.
 */
import type {
  GroupLoss,
  LogIndex,
  RecoveredLog,
  StoredMembership,
  Term,
  TermRun,
} from './engine/types.js';

/** `applied` is what the machine holds; `log.snapshot` what it was restored from, or is ahead of. */
export function readableLog(log: RecoveredLog, loss: GroupLoss, applied: LogIndex): RecoveredLog {
  const behind = Math.max(log.purged.index, applied);
  const lost = loss.ranges.find(({ lastIndex = Number.POSITIVE_INFINITY }) => lastIndex > behind);
  const end = (lost?.firstIndex ?? Number.POSITIVE_INFINITY) - 1;
  const leadsThere = lost === loss.ranges[0] && behind <= Math.min(end, log.lastIndex);
  if (leadsThere && holdsSnapshot(log)) {
    return upTo({ ...log, applied, damaged: true }, Math.min(end, log.lastIndex));
  }
  // What is committed follows on whatever was committed before it; of the rest nobody knows that.
  const known = Math.min(end, log.lastIndex, log.committed);
  const snapshot = log.snapshot?.lastIncluded.index === behind ? log.snapshot : undefined;
  const term = snapshot?.lastIncluded.term ?? Math.max(0, termAt(log, behind));
  const rest: RecoveredLog = {
    ...log,
    purged: { term, index: behind },
    termRuns: log.termRuns.filter((_, at) => lastIndexOf(log, at) > behind),
    memberships: membershipsOf(log),
    snapshot,
    applied,
    damaged: true,
  };
  return upTo(rest, Math.max(behind, known));
}

function upTo(log: RecoveredLog, lastIndex: LogIndex): RecoveredLog {
  const termRuns = log.termRuns.filter(({ firstIndex }) => firstIndex <= lastIndex);
  const lastTerm = termRuns.at(-1)?.term ?? log.purged.term;
  return {
    ...log,
    // A snapshot may tell of a later term than all that is left of the log.
    vote: log.vote.term < lastTerm ? { term: lastTerm, nodeId: 0, committed: false } : log.vote,
    termRuns,
    lastIndex,
    committed: Math.min(log.committed, lastIndex),
    memberships: log.memberships.filter(({ index }) => index <= lastIndex),
  };
}

function holdsSnapshot(log: RecoveredLog): boolean {
  if (log.snapshot === undefined) return true;
  const { term, index } = log.snapshot.lastIncluded;
  return termAt(log, index) === term;
}

/** -1 where nothing is known of it. */
function termAt({ purged, termRuns, lastIndex }: RecoveredLog, index: LogIndex): Term {
  if (index === purged.index) return purged.term;
  if (index < purged.index || index > lastIndex) return -1;
  return termRuns.findLast(({ firstIndex }: TermRun) => firstIndex <= index)?.term ?? -1;
}

function lastIndexOf({ termRuns, lastIndex }: RecoveredLog, at: number): LogIndex {
  return (termRuns[at + 1]?.firstIndex ?? lastIndex + 1) - 1;
}

/** The one that the snapshot holds, and those behind it in the log. */
function membershipsOf({ memberships, snapshot }: RecoveredLog): readonly StoredMembership[] {
  if (snapshot === undefined) return memberships;
  const { membership } = snapshot;
  return [membership, ...memberships.filter(({ index }) => index > membership.index)];
}
