import { createServer, type Server, type Socket } from 'node:net';
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { NetworkConfig } from '../config/types.js';
import type { AppendRequest, ControlMessage, SnapshotRequest } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import { Accepted, type AcceptedEvents } from './accepted.js';
import { formatAddress, isLoopback, parseAddress } from './address.js';
import { type NodeVersions, type PeerRegistry, WIRE_VERSIONS } from './handshake.js';
import type {
  ForwardRequest,
  ForwardResponse,
  Network,
  NetworkHandler,
  NetworkMetrics,
  NodeIdentity,
  OutgoingEntries,
} from './network.js';
import { Peer } from './peer.js';
import { RequestTable } from './request-table.js';
import { PING_INTERVAL_MS, RefusalLog, type TcpContext } from './tcp-context.js';

/**
 * The network between processes. Each node dials each other one twice and speaks over what it has
 * dialled; over what it has accepted it only listens, and answers forwarded requests.
 *
 * ```
 *   node 1 ── control: votes, heartbeats, replies ──▶ node 2
 *          ── bulk: appends, requests ──▶ (answers come back on it)
 *   node 2 ── control ──▶ node 1
 *          ── bulk ──▶
 * ```
 */
export class TcpNetwork implements Network, AcceptedEvents {
  private readonly options: TcpNetworkOptions;
  private readonly context: TcpContext;
  private readonly refusals: RefusalLog;
  private readonly server: Server;
  private readonly peers: Map<NodeId, Peer> = new Map();
  /** Stopped peers of which a socket still exists. */
  private readonly leaving: Set<Peer> = new Set();
  /** In the order in which they came. */
  private readonly strangers: Set<Accepted> = new Set();
  private readonly sessions: Set<Accepted> = new Set();
  private handler: NetworkHandler | undefined;
  private ticker: Timer | undefined;
  private lastTickMs = 0;
  private binding: Promise<string> | undefined;
  private closing: Promise<void> | undefined;
  private onSocketGone: (() => void) | undefined;

  constructor(options: TcpNetworkOptions) {
    const { config, scheduler, logger, identity, registry } = options;
    this.options = options;
    this.refusals = new RefusalLog(logger);
    this.context = {
      identity,
      versions: {
        wire: options.versions.wire ?? WIRE_VERSIONS,
        format: options.versions.format,
        stateMachine: options.versions.stateMachine,
      },
      advertise: options.advertise,
      config,
      scheduler,
      logger,
      registry,
      requests: new RequestTable(scheduler, config.maxRequests),
      counters: { sentBytes: 0, receivedBytes: 0, droppedMessages: 0, refusedHandshakes: 0 },
      handler: () => this.handler!,
    };
    this.server = createServer((socket) => this.accept(socket));
  }

  async start(handler: NetworkHandler): Promise<string> {
    this.handler = handler;
    const { logger, scheduler } = this.context;
    if (this.closing === undefined) this.binding = this.bind();
    const bound = await this.binding;
    if (bound === undefined || this.closing !== undefined) {
      throw new KeelsonError('KEELSON_CLOSED', 'the network of this node is closed');
    }
    this.server.on('error', (error) => {
      logger.error({ event: 'network.failed', err: error }, `accepting failed: ${error.message}`);
    });
    this.lastTickMs = scheduler.now();
    this.setTicker();
    return bound;
  }

  /** @throws KeelsonError INVALID_ARGUMENT for an address that cannot be read; nothing changes then. */
  setPeers(peers: ReadonlyMap<NodeId, string>): void {
    if (this.closing !== undefined) return;
    for (const address of peers.values()) parseAddress(address);
    for (const [peerId, peer] of this.peers) {
      const address = peers.get(peerId);
      if (address === peer.address) continue;
      const wasUp = peer.up;
      this.dismiss(peer);
      if (address !== undefined && wasUp) this.handler?.disconnected(peerId);
    }
    for (const [peerId, address] of peers) {
      if (peerId === this.context.identity.nodeId || this.peers.has(peerId)) continue;
      const peer: Peer = new Peer({
        context: this.context,
        refusals: this.refusals,
        peerId,
        address,
        gone: () => this.socketGone(peer),
      });
      this.peers.set(peerId, peer);
      for (const session of this.sessions) {
        if (session.peerId === peerId) peer.advertised(session.advertise);
      }
    }
  }

  send(target: NodeId, message: ControlMessage): void {
    const peer = this.peers.get(target);
    if (peer === undefined) this.context.counters.droppedMessages++;
    else peer.send(message);
  }

  sendAppend(target: NodeId, message: AppendRequest, entries: OutgoingEntries): boolean {
    return this.peers.get(target)?.sendAppend(message, entries) ?? false;
  }

  sendSnapshot(target: NodeId, message: SnapshotRequest, bytes: Uint8Array): boolean {
    return this.peers.get(target)?.sendSnapshot(message, bytes) ?? false;
  }

  async request(target: NodeId, request: ForwardRequest): Promise<ForwardResponse> {
    const peer = this.peers.get(target);
    if (peer === undefined) {
      throw new KeelsonError('KEELSON_NO_LEADER', `node ${target} is not a peer of this node`);
    }
    return peer.request(request);
  }

  /** Resolves when no socket is left and every reference is released. */
  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  metrics(): NetworkMetrics {
    let queuedBytes = 0;
    const connectedPeers: NodeId[] = [];
    for (const [peerId, peer] of this.peers) {
      queuedBytes += peer.queuedBytes;
      if (peer.up) connectedPeers.push(peerId);
    }
    return { connectedPeers, queuedBytes, ...this.context.counters };
  }

  opened(accepted: Accepted): void {
    this.strangers.delete(accepted);
    for (const older of this.sessions) {
      if (older.peerId === accepted.peerId && older.channel === accepted.channel) {
        older.destroy(new Error('replaced by a newer connection of the same node'));
      }
    }
    this.sessions.add(accepted);
    if (this.sessions.size > MAX_SESSIONS) {
      accepted.destroy(new Error(`more than ${MAX_SESSIONS} connections`));
    }
    const peer = this.peers.get(accepted.peerId);
    peer?.advertised(accepted.advertise);
    peer?.hurry();
  }

  closed(accepted: Accepted): void {
    this.strangers.delete(accepted);
    this.sessions.delete(accepted);
    this.onSocketGone?.();
  }

  private accept(socket: Socket): void {
    if (this.closing !== undefined) {
      socket.destroy();
      return;
    }
    this.strangers.add(new Accepted(this.context, this.refusals, this, socket));
    if (this.strangers.size <= MAX_STRANGERS) return;
    const [oldest] = this.strangers;
    oldest!.destroy(new Error(`more than ${MAX_STRANGERS} connections without a handshake`));
  }

  private bind(): Promise<string> {
    const { listen, advertise } = this.options;
    const { logger } = this.context;
    const { host, port } = parseAddress(listen);
    return new Promise((resolve, reject) => {
      this.server.once('error', (error: NodeJS.ErrnoException) => {
        const message = `cannot listen on ${listen}: ${error.message}. Choose an address of this machine and a port that is free`;
        reject(
          new KeelsonError('KEELSON_INVALID_CONFIG', message, {
            cause: error,
            details: { listen, systemCode: error.code },
          }),
        );
      });
      this.server.listen(port, host, () => {
        this.server.removeAllListeners('error');
        const bound = this.server.address();
        if (bound === null || typeof bound === 'string') throw new Error('bound to no port');
        const address = formatAddress(bound.address, bound.port);
        logger.info({ event: 'network.listening', address, advertise }, `listening on ${address}`);
        if (!isLoopback(host)) {
          logger.warn(
            { event: 'network.plaintext', address },
            `${address} is reachable from other machines, and what nodes say there is neither encrypted nor authenticated`,
          );
        }
        resolve(address);
      });
    });
  }

  private setTicker(): void {
    this.ticker = this.context.scheduler.setTimer(PING_INTERVAL_MS, () => {
      const nowMs = this.context.scheduler.now();
      // After a stall of this process, silence says nothing about the others.
      const excused = nowMs - this.lastTickMs > 2 * PING_INTERVAL_MS;
      this.lastTickMs = nowMs;
      for (const peer of this.peers.values()) peer.tick(nowMs, excused);
      for (const session of this.sessions) session.tick(nowMs, excused);
      this.setTicker();
    });
  }

  private dismiss(peer: Peer): void {
    this.peers.delete(peer.peerId);
    this.leaving.add(peer);
    peer.stop();
    this.socketGone(peer);
  }

  private socketGone(peer: Peer): void {
    if (peer.idle) this.leaving.delete(peer);
    this.onSocketGone?.();
  }

  private async shutDown(): Promise<void> {
    this.ticker?.cancel();
    this.context.requests.close();
    for (const peer of [...this.peers.values()]) this.dismiss(peer);
    for (const accepted of [...this.strangers, ...this.sessions]) accepted.destroy();
    await new Promise<void>((resolve) => {
      this.onSocketGone = () => {
        if (this.leaving.size + this.strangers.size + this.sessions.size === 0) resolve();
      };
      this.onSocketGone();
    });
    // A server that is not bound yet cannot be closed, and would listen later.
    await this.binding?.catch(ignore);
    if (!this.server.listening) return;
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}

export interface TcpNetworkOptions {
  readonly identity: NodeIdentity;
  readonly versions: Pick<NodeVersions, 'format' | 'stateMachine'> & Partial<NodeVersions>;
  /** `host:port` to bind; port 0 takes a free one. */
  readonly listen: string;
  /** Where peers are to dial this node; where the membership says when absent. */
  readonly advertise?: string | undefined;
  readonly config: NetworkConfig;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly registry: PeerRegistry;
}

/** `start` tells its caller why it could not bind. */
function ignore(): void {}

/** Connections without a handshake; beyond it the oldest goes. */
const MAX_STRANGERS = 64;
/** Connections that other nodes have dialled, two for each node. */
const MAX_SESSIONS = 256;
