import { invariant } from '../base/assert.js';
import type { Scheduler } from '../base/scheduler.js';
import type { Message } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import type { InProcessNetwork } from './in-process-network.js';

/**
 * What connects the in-process networks of one cluster, and what a test or simulation breaks.
 *
 * A link leads one way. It is up when both ends have started and nothing cuts it; what travels on a
 * link that is cut is lost, and the sender is told `disconnected`.
 */
export class InProcessHub {
  readonly scheduler: Scheduler;
  /**
   * Decides what becomes of a message, in a simulation: a delay in ms (0: none), or -1 to lose it
   * without a trace. Messages of one link and kind (control, append) are never reordered.
   */
  fate: MessageFate | undefined;
  private readonly members: Map<NodeId, InProcessNetwork> = new Map();
  private readonly disconnected: Set<NodeId> = new Set();
  private readonly cuts: Map<NodeId, Set<NodeId>> = new Map();
  private groupOf: Map<NodeId, number> | undefined;

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler;
  }

  /** Nodes reach only nodes of their own group; those not named form one more group together. */
  partition(groups: readonly (readonly NodeId[])[]): void {
    const groupOf = new Map<NodeId, number>();
    for (const [group, nodes] of groups.entries()) {
      for (const node of nodes) groupOf.set(node, group);
    }
    this.groupOf = groupOf;
    this.refresh();
  }

  /** Cuts a node off from all others, until `heal`. */
  disconnect(node: NodeId): void {
    this.disconnected.add(node);
    this.refresh();
  }

  /** Cuts one direction only, until `heal`. */
  cut(from: NodeId, to: NodeId): void {
    const targets = this.cuts.get(from) ?? new Set<NodeId>();
    targets.add(to);
    this.cuts.set(from, targets);
    this.refresh();
  }

  /** Mends every cut. `fate` stays as it is. */
  heal(): void {
    this.groupOf = undefined;
    this.disconnected.clear();
    this.cuts.clear();
    this.refresh();
  }

  /** Called by a network that starts. */
  join(member: InProcessNetwork): void {
    const { nodeId } = member;
    invariant(!this.members.has(nodeId), `node ${nodeId} is in the hub only once`);
    this.members.set(nodeId, member);
    this.refresh();
  }

  /** Called by a network that closes. */
  leave(member: InProcessNetwork): void {
    if (this.members.get(member.nodeId) !== member) return;
    this.members.delete(member.nodeId);
    this.refresh();
  }

  /** The started network that `from` reaches under the id `to`. */
  reach(from: NodeId, to: NodeId): InProcessNetwork | undefined {
    if (!this.members.has(from)) return undefined;
    if (this.disconnected.has(from) || this.disconnected.has(to)) return undefined;
    if (this.groupOf !== undefined && this.groupOf.get(from) !== this.groupOf.get(to)) {
      return undefined;
    }
    if (this.cuts.get(from)?.has(to) === true) return undefined;
    return this.members.get(to);
  }

  private refresh(): void {
    for (const member of this.members.values()) member.refreshLinks();
  }
}

export type MessageFate = (from: NodeId, to: NodeId, message: Message) => number;
