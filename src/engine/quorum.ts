import type { Membership, NodeId } from './types.js';

/**
 * The members of the effective membership, each in a slot, and majorities over values kept per slot.
 *
 * Everything that needs a quorum is a number per member: index acknowledged, heartbeat round
 * answered, time of last contact, vote granted. `majority` gives the greatest value that a majority
 * of every configuration has reached; in a joint configuration each of the two must agree.
 *
 * Indexes come out of plain arrays here and wherever the engine keeps some: what is read from a typed
 * array of floats is boxed anew by every object that takes it on.
 */
export class Quorum {
  /** Node of each slot, ascending. */
  readonly ids: readonly NodeId[];
  /** Slots of the voters of each configuration. */
  private readonly configs: readonly Int32Array[];
  private readonly voters: ReadonlySet<NodeId>;
  private readonly scratch: Int32Array;

  constructor(membership: Membership | undefined) {
    const configs = membership?.configs ?? [];
    const members = new Set([...configs.flat(), ...(membership?.learners ?? [])]);
    const ids = [...members].sort((left, right) => left - right);
    this.ids = ids;
    this.configs = configs.map((nodes) => Int32Array.from(new Set(nodes), (id) => ids.indexOf(id)));
    this.voters = new Set(configs.flat());
    this.scratch = new Int32Array(ids.length);
  }

  /** Slot of a node, or -1. A scan: there are at most a few members. */
  slotOf(nodeId: NodeId): number {
    const ids = this.ids;
    for (let slot = 0; slot < ids.length; slot++) if (ids[slot] === nodeId) return slot;
    return -1;
  }

  isVoter(nodeId: NodeId): boolean {
    return this.voters.has(nodeId);
  }

  /** Whether this node alone is a majority of every configuration. */
  isOnlyVoter(nodeId: NodeId): boolean {
    return this.voters.size === 1 && this.voters.has(nodeId);
  }

  /** The greatest value that a majority of each configuration has reached; 0 without voters. */
  majority(values: readonly number[]): number {
    const configs = this.configs;
    if (configs.length === 0) return 0;
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < configs.length; i++) {
      const value = this.majorityOf(configs[i]!, values);
      if (value < least) least = value;
    }
    return least;
  }

  private majorityOf(slots: Int32Array, values: readonly number[]): number {
    const scratch = this.scratch;
    const count = slots.length;
    if (count === 0) return 0;
    for (let i = 0; i < count; i++) {
      const slot = slots[i]!;
      const value = values[slot]!;
      let place = i;
      while (place > 0 && values[scratch[place - 1]!]! < value) {
        scratch[place] = scratch[place - 1]!;
        place--;
      }
      scratch[place] = slot;
    }
    return values[scratch[count >>> 1]!]!;
  }
}
