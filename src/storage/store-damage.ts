/**
 * A log that was opened in the mode `repair` and has lost something: what is left can be read, and nothing
 * is written. Whatever were written now would make a later recovery believe that this node still knows what
 * it has acknowledged and for whom it has voted.
 */
import { KeelsonError } from '../base/errors.js';
import type { GroupLoss, LogIndex } from '../engine/types.js';

export class StoreDamage {
  /** Where it was found. */
  readonly losses: readonly KeelsonError[];
  /** What is lost of a group; no range when its entries are whole. */
  readonly of: (group: number) => GroupLoss;

  constructor(losses: readonly KeelsonError[], of: (group: number) => GroupLoss) {
    this.losses = losses;
    this.of = of;
  }

  /** Of a group that nothing is left of in a damaged lane, all may be lost. */
  static ofLane(losses: readonly KeelsonError[], groups: readonly GroupLoss[]): StoreDamage {
    const known = new Map(groups.map((loss) => [loss.group, loss]));
    const all = [{ firstIndex: 1, lastIndex: undefined }];
    return new StoreDamage(losses, (group) => {
      return known.get(group) ?? { group, ranges: all, voteInDoubt: true };
    });
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
