import { KeelsonError, toErrorRecord } from '../base/errors.js';
import type {
  AppendRequest,
  ControlMessage,
  Message,
  SnapshotRequest,
} from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import type { InProcessHub } from './in-process-hub.js';
import { DelayLane, Inbox, type Link, releaseOn } from './in-process-link.js';
import type {
  ForwardRequest,
  ForwardResponse,
  Network,
  NetworkHandler,
  NetworkMetrics,
  OutgoingEntries,
} from './network.js';
import { RequestTable } from './request-table.js';

/**
 * The network between nodes of one process. Each node has one inbox; what arrives in a turn is
 * delivered by one job of the run queue. Nothing is copied: the receiver gets the sender's own bytes,
 * which are released as soon as its `append` has returned.
 *
 * A message costs an array index, a push and a pop: no closure, no look-up in a map, no allocation.
 */
export class InProcessNetwork implements Network {
  readonly nodeId: NodeId;
  private readonly hub: InProcessHub;
  private readonly maxQueuedMessages: number;
  private readonly maxQueuedBytes: number;
  private readonly requests: RequestTable;
  private readonly inbox: Inbox;
  /** By node id; small ids make this a plain array. */
  private readonly links: (Link | undefined)[] = [];
  private peers: readonly Link[] = [];
  private handler: NetworkHandler | undefined;
  private closed = false;
  private deliveryQueued = false;
  private reportQueued = false;
  private readonly deliverJob: () => void = () => this.deliverAll();
  private readonly reportJob: () => void = () => this.report();
  private sentBytes = 0;
  private receivedBytes = 0;
  private droppedMessages = 0;

  constructor(hub: InProcessHub, options: InProcessNetworkOptions) {
    this.nodeId = options.nodeId;
    this.hub = hub;
    this.maxQueuedMessages = options.maxQueuedMessages ?? 65_536;
    this.maxQueuedBytes = options.maxQueuedBytes ?? 32 * 1024 * 1024;
    this.requests = new RequestTable(hub.scheduler, options.maxRequests ?? 16_384);
    this.inbox = new Inbox(this.maxQueuedMessages);
  }

  start(handler: NetworkHandler): Promise<string> {
    if (this.closed) {
      const error = new KeelsonError('KEELSON_CLOSED', 'the network of this node is closed');
      return Promise.reject(error);
    }
    this.handler = handler;
    this.hub.join(this);
    return Promise.resolve(`in-process:${this.nodeId}`);
  }

  setPeers(peers: ReadonlyMap<NodeId, string>): void {
    for (const link of this.peers) {
      if (peers.has(link.to)) continue;
      this.takeDown(link);
      this.links[link.to] = undefined;
    }
    const kept: Link[] = [];
    for (const to of peers.keys()) {
      if (to === this.nodeId) continue;
      const link = this.links[to] ?? newLink(this, to);
      this.links[to] = link;
      kept.push(link);
    }
    this.peers = kept;
    this.refreshLinks();
  }

  send(target: NodeId, message: ControlMessage): void {
    const link = this.links[target];
    if (link === undefined || link.receiver === undefined) {
      this.droppedMessages++;
      return;
    }
    if (this.hub.fate !== undefined || link.controlDelays !== undefined) {
      this.sendWithFate(link, message, undefined);
    } else if (!link.receiver.arrive(link, message, undefined)) {
      this.droppedMessages++;
    }
  }

  sendAppend(target: NodeId, message: AppendRequest, entries: OutgoingEntries): boolean {
    return this.sendBulk(target, message, entries);
  }

  sendSnapshot(target: NodeId, message: SnapshotRequest, bytes: Uint8Array): boolean {
    const piece = { parts: [bytes], bytes: bytes.byteLength, release: nothing };
    return this.sendBulk(target, message, piece);
  }

  private sendBulk(
    target: NodeId,
    message: AppendRequest | SnapshotRequest,
    entries: OutgoingEntries,
  ): boolean {
    const link = this.links[target];
    if (link === undefined) return false;
    if (link.receiver === undefined) {
      link.refused = true;
      return false;
    }
    const { bytes } = entries;
    if (link.queuedBytes > 0 && link.queuedBytes + bytes > this.maxQueuedBytes) {
      link.refused = true;
      return false;
    }
    link.queuedBytes += bytes;
    const taken =
      this.hub.fate === undefined && link.appendDelays === undefined
        ? link.receiver.arrive(link, message, entries)
        : this.sendWithFate(link, message, entries);
    if (!taken) {
      link.queuedBytes -= bytes;
      link.refused = true;
      this.queueReport();
      return false;
    }
    this.sentBytes += bytes;
    return true;
  }

  request(target: NodeId, request: ForwardRequest): Promise<ForwardResponse> {
    const link = this.links[target];
    if (link?.receiver === undefined) {
      return Promise.reject(
        new KeelsonError('KEELSON_NO_LEADER', `node ${target} is not connected`),
      );
    }
    try {
      const { id, promise } = this.requests.open(link, request.timeoutMs);
      this.hub.scheduler.enqueue(() => this.carry(link, id, request));
      return promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  close(): Promise<void> {
    if (this.closed) return Promise.resolve();
    this.closed = true;
    this.requests.close();
    for (const link of this.peers) this.takeDown(link);
    this.inbox.lose(undefined);
    this.hub.leave(this);
    return Promise.resolve();
  }

  metrics(): NetworkMetrics {
    let queuedBytes = 0;
    for (const link of this.peers) queuedBytes += link.queuedBytes;
    return {
      connectedPeers: this.peers.filter((link) => link.receiver !== undefined).map(({ to }) => to),
      queuedBytes,
      sentBytes: this.sentBytes,
      receivedBytes: this.receivedBytes,
      droppedMessages: this.droppedMessages,
      refusedHandshakes: 0,
    };
  }

  /** Called by the hub, and by itself, when what is reachable may have changed. */
  refreshLinks(): void {
    if (this.closed) return;
    for (const link of this.peers) {
      const receiver = this.hub.reach(this.nodeId, link.to);
      if (receiver === link.receiver) continue;
      this.takeDown(link);
      link.receiver = receiver;
      this.queueReport();
    }
  }

  /** Called on the receiver of a link. False when its inbox is full. */
  arrive(link: Link, message: Message, entries: OutgoingEntries | undefined): boolean {
    if (!this.inbox.push(link, message, entries)) return false;
    if (!this.deliveryQueued) {
      this.deliveryQueued = true;
      this.hub.scheduler.enqueue(this.deliverJob);
    }
    return true;
  }

  deliverControl(link: Link, message: ControlMessage): void {
    this.handler!.message(link.from, message);
  }

  deliverBulk(
    link: Link,
    message: AppendRequest | SnapshotRequest,
    entries: OutgoingEntries,
  ): void {
    this.receivedBytes += entries.bytes;
    try {
      if (message.type === 'AppendRequest') {
        this.handler!.append(link.from, message, entries.parts);
      } else this.handler!.snapshot(link.from, message, entries.parts);
    } finally {
      releaseOn(link, entries);
    }
  }

  /** What arrives during the delivery waits for the next job, so that no pair of nodes starves others. */
  private deliverAll(): void {
    this.deliveryQueued = false;
    try {
      for (let left = this.inbox.count; left > 0 && !this.closed; left--) {
        this.inbox.deliverOldest(this);
      }
    } finally {
      if (this.inbox.count > 0 && !this.deliveryQueued && !this.closed) {
        this.deliveryQueued = true;
        this.hub.scheduler.enqueue(this.deliverJob);
      }
    }
  }

  private sendWithFate(
    link: Link,
    message: Message,
    entries: OutgoingEntries | undefined,
  ): boolean {
    const delayMs = this.hub.fate?.(link.from, link.to, message) ?? 0;
    if (delayMs < 0) {
      if (entries !== undefined) releaseOn(link, entries);
      return true;
    }
    const { scheduler } = this.hub;
    let lane = entries === undefined ? link.controlDelays : link.appendDelays;
    if (lane === undefined) {
      lane = new DelayLane(scheduler, link, this.maxQueuedMessages);
      if (entries === undefined) link.controlDelays = lane;
      else link.appendDelays = lane;
    }
    const taken =
      delayMs === 0 && lane.empty
        ? link.receiver!.arrive(link, message, entries)
        : lane.hold(delayMs, message, entries);
    if (!taken && entries === undefined) this.droppedMessages++;
    return taken;
  }

  private carry(link: Link, id: number, request: ForwardRequest): void {
    const { receiver } = link;
    if (receiver?.handler === undefined || receiver.closed) return;
    if (!this.requests.markSent(id)) return;
    receiver.handler.request(this.nodeId, request).then(
      (response) => this.answered(link, receiver, id, response),
      (error: unknown) => {
        const record = toErrorRecord(error, 'KEELSON_NO_LEADER');
        this.answered(link, receiver, id, errorResponse(record));
      },
    );
  }

  /** An answer travels back only while the other node still reaches this one. */
  private answered(
    link: Link,
    receiver: InProcessNetwork,
    id: number,
    response: ForwardResponse,
  ): void {
    if (receiver.closed || this.hub.reach(receiver.nodeId, this.nodeId) !== this) return;
    this.hub.scheduler.enqueue(() => this.requests.settle(link, id, response));
  }

  private takeDown(link: Link): void {
    const { receiver } = link;
    if (receiver === undefined) return;
    link.receiver = undefined;
    link.interrupted = true;
    receiver.inbox.lose(link);
    link.controlDelays?.lose();
    link.appendDelays?.lose();
    this.requests.carrierLost(link, `node ${link.to} was disconnected`);
    if (!this.closed) this.queueReport();
  }

  /** Called by itself, and by a link on which something was refused and room has come. */
  queueReport(): void {
    if (this.reportQueued || this.closed) return;
    this.reportQueued = true;
    this.hub.scheduler.enqueue(this.reportJob);
  }

  /** Tells the handler what has changed, never from within one of its own calls. */
  private report(): void {
    this.reportQueued = false;
    for (const link of this.peers) {
      if (this.closed) return;
      const up = link.receiver !== undefined;
      if (link.reportedUp && link.interrupted) {
        link.reportedUp = false;
        this.handler?.disconnected(link.to);
      }
      link.interrupted = false;
      if (up && !link.reportedUp) {
        link.reportedUp = true;
        this.handler?.connected(link.to);
      }
      if (up && link.refused && link.queuedBytes * 2 <= this.maxQueuedBytes) {
        link.refused = false;
        this.handler?.writable(link.to);
      }
    }
  }
}

export interface InProcessNetworkOptions {
  readonly nodeId: NodeId;
  /** Messages that wait at this node, count; a power of two. Default 65,536. */
  readonly maxQueuedMessages?: number;
  /** Entry bytes on their way to one peer; beyond it appends are refused. Default 32 MiB. */
  readonly maxQueuedBytes?: number;
  /** Default 16,384. */
  readonly maxRequests?: number;
}

/** Pieces of a snapshot belong to nobody. */
function nothing(): void {}

function newLink(sender: InProcessNetwork, to: NodeId): Link {
  return {
    sender,
    from: sender.nodeId,
    to,
    receiver: undefined,
    reportedUp: false,
    interrupted: false,
    queuedBytes: 0,
    refused: false,
    controlDelays: undefined,
    appendDelays: undefined,
  };
}

function errorResponse(error: ForwardResponse['error']): ForwardResponse {
  return { payload: new Uint8Array(0), index: 0, term: 0, error };
}
