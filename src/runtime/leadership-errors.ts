import { KeelsonError, type LeaderHint } from '../base/errors.js';
import type { Engine } from '../engine/engine.js';
import type { NodeId } from '../engine/types.js';

/** What callers are told when this node does not lead, or leads no longer; with the leader it knows of. */
export class LeadershipErrors {
  private readonly nodeId: NodeId;
  private readonly engine: Engine;

  constructor(nodeId: NodeId, engine: Engine) {
    this.nodeId = nodeId;
    this.engine = engine;
  }

  notLeader(): KeelsonError {
    return new KeelsonError('KEELSON_NOT_LEADER', `node ${this.nodeId} does not lead`, {
      leader: this.leaderHint(),
    });
  }

  overwritten(): KeelsonError {
    return new KeelsonError(
      'KEELSON_LEADERSHIP_LOST',
      'the entry was overwritten by another leader before this node saw it committed',
      { outcome: 'unknown', leader: this.leaderHint() },
    );
  }

  private leaderHint(): LeaderHint | undefined {
    const nodeId = this.engine.leader;
    if (nodeId === 0) return undefined;
    return { nodeId, address: this.engine.membership?.addresses[nodeId] };
  }
}
