/**
 * A log that was opened in the mode `repair` and has lost something: what is left can be read, and nothing
 * is written. Whatever were written now would make a later recovery believe that this node still knows what
 * it has acknowledged and for whom it has voted.
 *
 * Lanes may be whole beside one that is not: of their groups nothing is lost.
 */
import { KeelsonError } from '../base/errors.js';
import type { GroupLoss, LogIndex } from '../engine/types.js';
import { laneOfGroup } from './lane-of-group.js';

/** What the recovery of a lane has found; no losses when it is whole. */
export interface LaneLosses {
  readonly losses: readonly KeelsonError[];
  readonly lost: readonly GroupLoss[];
}

export class StoreDamage {
  /** Where it was found. */
  readonly losses: readonly KeelsonError[];
  private readonly lanes: readonly LaneLosses[];
  private readonly groups: ReadonlyMap<number, GroupLoss>;

  /** Of all lanes, in order. */
  constructor(lanes: readonly LaneLosses[]) {
    this.lanes = lanes;
    this.losses = lanes.flatMap(({ losses }) => losses);
    const lost = lanes.flatMap((lane) => lane.lost);
    this.groups = new Map(lost.map((loss) => [loss.group, loss]));
  }

  /** Of a group that nothing is left of in a damaged lane, all may be lost. */
  of(group: number): GroupLoss {
    const { lanes } = this;
    const whole = lanes[laneOfGroup(group, lanes.length)]!.losses.length === 0;
    if (whole) return { group, ranges: [], voteInDoubt: false };
    const all = [{ firstIndex: 1, lastIndex: undefined }];
    return this.groups.get(group) ?? { group, ranges: all, voteInDoubt: true };
  }

  /**
   * The last entry up to `lastIndex` that can be read together with `firstIndex`.
   * @throws KeelsonError STORAGE_CORRUPT when that one is lost
   */
  readableUpTo(group: number, firstIndex: LogIndex, lastIndex: LogIndex): LogIndex {
    for (const range of this.of(group).ranges) {
      const { firstIndex: first, lastIndex: last = Number.POSITIVE_INFINITY } = range;
      if (last < firstIndex) continue;
      if (first > firstIndex) return Math.min(lastIndex, first - 1);
      throw this.lostEntries(group, firstIndex, first, range.lastIndex);
    }
    return lastIndex;
  }

  /** What becomes of whatever would write. */
  refusal(): KeelsonError {
    const [first] = this.losses;
    return new KeelsonError(
      'KEELSON_STORAGE_CORRUPT',
      'The log has lost acknowledged data and takes nothing until it is repaired: this node must not vote ' +
        `or acknowledge. ${first?.message}`,
      { details: { ...first?.details, losses: this.losses.length }, cause: first },
    );
  }

  private lostEntries(
    group: number,
    index: LogIndex,
    firstIndex: LogIndex,
    lastIndex: LogIndex | undefined,
  ): KeelsonError {
    const [first] = this.losses;
    const range = `${firstIndex} to ${lastIndex ?? 'an end that is not known'}`;
    return new KeelsonError(
      'KEELSON_STORAGE_CORRUPT',
      `Entry ${index} of group ${group} is lost, with all from ${range}: ${first?.message}`,
      { details: { ...first?.details, group, index, firstIndex, lastIndex }, cause: first },
    );
  }
}
