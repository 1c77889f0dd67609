/**
 * What a recovery in the mode `repair` may still believe when a part of a lane is lost.
 *
 * The part that is lost may have held anything about any group: entries, cuts, votes. So of each log only
 * what was known to be committed by then is certain: that is never overwritten. What stands behind it
 * counts as lost, up to the first entry that the log says of the group afterwards, or to its end, which is then
 * unknown itself. A vote is in doubt until a batch or a checkpoint behind the loss tells the group's state.
 *
 * ```
 *   committed by then       lost: neither believed nor read          what came afterwards
 * ──────────────────────┤├──────────────────────────────────────┤├────────────────────────
 * ```
 *
 * In the index lost entries have segment 0 and term 0, as entries that nothing is known of.
 */
import type { GroupLoss, LogIndex, LostRange } from '../engine/types.js';
import type { RecoveredGroup } from './recovery.js';
import type { ScannedBlock } from './segment-scan.js';

/** Lost entries are kept in the index up to so many; behind more of them the index begins anew. */
export const MAX_LOST_ENTRIES: number = 1024 * 1024;

export class LostRanges {
  /** For each group of which nothing was said since the last loss: the first entry that is uncertain. */
  private readonly uncertain: Map<number, LogIndex> = new Map();
  /** Their entries were settled since the last loss. */
  private readonly settled: Set<number> = new Set();
  /** Their state was told since the last loss. */
  private readonly told: Set<number> = new Set();
  private lost = false;

  get any(): boolean {
    return this.lost;
  }

  /** Something is lost behind what the groups show now. */
  lose(groups: ReadonlyMap<number, RecoveredGroup>): void {
    for (const [id, group] of groups) {
      const from = Math.min(this.uncertainFrom(id, group), certainIndex(group) + 1);
      this.uncertain.set(id, from);
    }
    this.lost = true;
    this.settled.clear();
    this.told.clear();
  }

  /** A batch or checkpoint tells term, vote and commit of the group. */
  tell(group: number): void {
    if (this.any) this.told.add(group);
  }

  /** The next block of a group, before it is taken. */
  settle(group: RecoveredGroup, block: ScannedBlock): void {
    const { group: id } = group.checkpoint;
    if (!this.any || this.settled.has(id)) return;
    const from = Math.max(this.uncertainFrom(id, group), group.index.firstIndex);
    const { record } = block;
    // A purge says nothing of what stands behind it.
    if (record?.kind === 'purge') return;
    if (block.moved) {
      // A copy tells what its own entries are, and nothing of those behind it. One of what is certain
      // only says where that stands too.
      if (block.lastIndex < from) return;
      loseUpTo(group, from, block.firstIndex - 1);
      this.uncertain.set(id, block.lastIndex + 1);
      return;
    }
    this.settled.add(id);
    this.uncertain.delete(id);
    if (record?.kind === 'reset') return;
    const last = record === undefined ? block.firstIndex - 1 : record.logId.index;
    if (last >= from) loseUpTo(group, from, last);
  }

  /**
   * Behind the last batch: what was never settled ends where it is certain. One for each group, whole or
   * not; none when nothing is lost.
   */
  finish(groups: ReadonlyMap<number, RecoveredGroup>): GroupLoss[] {
    if (!this.any) return [];
    const losses: GroupLoss[] = [];
    for (const [group, recovered] of groups) {
      const { checkpoint, index } = recovered;
      const settled = this.settled.has(group);
      if (!settled) forget(recovered, this.uncertainFrom(group, recovered));
      const open = !settled || checkpoint.committed > index.lastIndex;
      const ranges = rangesOf(recovered, open);
      const committed = Math.min(checkpoint.committed, index.lastIndex);
      recovered.checkpoint = { ...checkpoint, committed };
      const voteInDoubt = !this.told.has(group);
      losses.push({ group, ranges, voteInDoubt });
    }
    return losses;
  }

  private uncertainFrom(id: number, group: RecoveredGroup): LogIndex {
    if (this.settled.has(id)) return Number.POSITIVE_INFINITY;
    // Nothing at all was known of a group that shows up only behind a loss.
    const from = this.uncertain.get(id) ?? (this.any ? 1 : Number.POSITIVE_INFINITY);
    return Math.max(from, group.checkpoint.purged.index + 1);
  }
}

function certainIndex({ checkpoint, index }: RecoveredGroup): LogIndex {
  return Math.max(checkpoint.purged.index, Math.min(checkpoint.committed, index.lastIndex));
}

/** Nothing of the group is known from an index on, and the log goes on behind `last`. */
function loseUpTo(group: RecoveredGroup, from: LogIndex, last: LogIndex): void {
  if (last - group.index.lastIndex > MAX_LOST_ENTRIES) {
    group.memberships.length = 0;
    group.index.reset(last);
    return;
  }
  forget(group, from);
  group.index.skip(last);
}

function forget({ index, memberships }: RecoveredGroup, from: LogIndex): void {
  index.truncateAfter(from - 1);
  while ((memberships[memberships.length - 1]?.index ?? 0) >= from) memberships.pop();
}

function rangesOf({ checkpoint, index }: RecoveredGroup, open: boolean): LostRange[] {
  const ranges: LostRange[] = [];
  const kept = checkpoint.purged.index + 1;
  if (kept < index.firstIndex) ranges.push({ firstIndex: kept, lastIndex: index.firstIndex - 1 });
  const runs = index.lastIndex < index.firstIndex ? [] : index.termRuns();
  for (const [place, { term, firstIndex }] of runs.entries()) {
    if (term !== 0) continue;
    const lastIndex = (runs[place + 1]?.firstIndex ?? index.lastIndex + 1) - 1;
    ranges.push({ firstIndex: Math.max(firstIndex, index.firstIndex), lastIndex });
  }
  if (open) ranges.push({ firstIndex: index.lastIndex + 1, lastIndex: undefined });
  return ranges;
}
