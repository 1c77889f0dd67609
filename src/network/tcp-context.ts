import type { Logger } from '../base/logger.js';
import type { Scheduler } from '../base/scheduler.js';
import type { NetworkConfig } from '../config/types.js';
import type { NodeId } from '../engine/types.js';
import type { Channel, Hello, NodeVersions, PeerRegistry, Refusal } from './handshake.js';
import type { NetworkHandler, NodeIdentity } from './network.js';
import type { RequestTable } from './request-table.js';

/** What the parts of one TCP network share. */
export interface TcpContext {
  readonly identity: NodeIdentity;
  readonly versions: NodeVersions;
  /** Where this node wants to be dialled, if elsewhere than the membership says. */
  readonly advertise: string | undefined;
  readonly config: NetworkConfig;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly registry: PeerRegistry;
  readonly requests: RequestTable;
  readonly counters: TcpCounters;
  readonly handler: () => NetworkHandler;
}

export interface TcpCounters {
  sentBytes: number;
  receivedBytes: number;
  droppedMessages: number;
  refusedHandshakes: number;
}

export function helloOf(context: TcpContext, channel: Channel, target: NodeId): Hello {
  const { identity, versions, advertise } = context;
  return { identity, versions, channel, target, advertise };
}

/** Logs each refusal once, and again only when it changes. Bounded, whatever strangers send. */
export class RefusalLog {
  private readonly logger: Logger;
  private readonly last: Map<string, string> = new Map();

  constructor(logger: Logger) {
    this.logger = logger;
  }

  /** `by`: who refused. `subject`: a stable name of the other side. */
  note(subject: string, by: 'us' | 'peer', refusal: Refusal): void {
    const text = `${by}: ${refusal.text}`;
    if (this.last.get(subject) === text) return;
    if (this.last.size >= MAX_SUBJECTS) this.last.clear();
    this.last.set(subject, text);
    this.logger.warn(
      { event: 'peer.refused', peer: subject, by, reason: refusal.reason },
      by === 'us'
        ? `refused ${subject}: ${refusal.text}`
        : `refused by ${subject}: ${refusal.text}`,
    );
  }

  forget(subject: string): void {
    this.last.delete(subject);
  }
}

const MAX_SUBJECTS = 256;
/** How often both ends of a connection show that they live. */
export const PING_INTERVAL_MS = 1_000;
