import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { AppendRequest, ControlMessage, SnapshotRequest } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import {
  frameTypeOf,
  packVote,
  unpackError,
  writeAppend,
  writeControl,
  writeForwardRequest,
} from './codec.js';
import { readU64 } from './codec-numbers.js';
import type { Connection } from './connection.js';
import { Dialler, type DiallerEvents } from './dialler.js';
import { corruptFrame, FRAME, fixedBytes } from './frame.js';
import type { Refusal } from './handshake.js';
import type { ForwardRequest, ForwardResponse, OutgoingEntries } from './network.js';
import { writeSnapshot } from './snapshot-codec.js';
import { PING_INTERVAL_MS, type RefusalLog, type TcpContext } from './tcp-context.js';

/**
 * What this node sends to one other: votes, heartbeats and replies over the control connection,
 * appends and forwarded requests over the bulk connection, so that a heartbeat never waits behind
 * data. The peer is connected while both are open.
 */
export class Peer implements DiallerEvents {
  readonly peerId: NodeId;
  readonly address: string;
  private readonly context: TcpContext;
  private readonly onGone: () => void;
  private readonly control: Dialler;
  private readonly bulk: Dialler;
  private reportedUp = false;
  private refusedAppend = false;
  private writableQueued = false;
  private stopped = false;
  /** Requests that are staged and have not been handed to the socket. */
  private unsent: number[] = [];

  constructor(options: PeerOptions) {
    const { context, refusals, peerId, address } = options;
    this.peerId = peerId;
    this.address = address;
    this.context = context;
    this.onGone = options.gone;
    const shared = { context, refusals, events: this, peerId, address };
    this.control = new Dialler({ ...shared, channel: 'control' });
    this.bulk = new Dialler({ ...shared, channel: 'bulk' });
    this.control.dial();
    this.bulk.dial();
  }

  get up(): boolean {
    return this.reportedUp;
  }

  /** No socket is left. */
  get idle(): boolean {
    return this.control.idle && this.bulk.idle;
  }

  get queuedBytes(): number {
    return (this.control.open?.queuedBytes ?? 0) + (this.bulk.open?.queuedBytes ?? 0);
  }

  hurry(): void {
    this.control.hurry();
    this.bulk.hurry();
  }

  /** The peer has passed a handshake, and said where it wants to be dialled. */
  advertised(address: string | undefined): void {
    this.control.advertised(address);
    this.bulk.advertised(address);
  }

  stop(): void {
    this.stopped = true;
    this.control.stop();
    this.bulk.stop();
  }

  send(message: ControlMessage): void {
    const connection = this.control.open;
    const { counters, config } = this.context;
    const limit = Math.min(MAX_QUEUED_CONTROL_BYTES, config.maxQueuedBytes);
    if (connection === undefined || !connection.alive || connection.queuedBytes > limit) {
      counters.droppedMessages++;
      return;
    }
    const type = frameTypeOf(message);
    const body = packVote(message);
    if (body !== undefined) {
      connection.sendBody(type, body);
      counters.sentBytes += body.byteLength;
      return;
    }
    const bytes = fixedBytes(type);
    const at = connection.reserve(bytes);
    writeControl(connection.view, at, message);
    connection.commit(type, at, bytes, 0);
    counters.sentBytes += bytes;
  }

  sendAppend(message: AppendRequest, entries: OutgoingEntries): boolean {
    const connection = this.roomFor(FRAME.append, entries.bytes);
    if (connection === undefined) return false;
    const bytes = fixedBytes(FRAME.append);
    const at = connection.reserve(bytes);
    writeAppend(connection.view, at, message);
    connection.commit(FRAME.append, at, bytes, entries.bytes);
    connection.attachEntries(entries);
    this.context.counters.sentBytes += bytes + entries.bytes;
    return true;
  }

  sendSnapshot(message: SnapshotRequest, piece: Uint8Array): boolean {
    const connection = this.roomFor(FRAME.snapshot, piece.byteLength);
    if (connection === undefined) return false;
    const bytes = fixedBytes(FRAME.snapshot);
    const at = connection.reserve(bytes);
    writeSnapshot(connection.view, at, message);
    connection.commit(FRAME.snapshot, at, bytes, piece.byteLength);
    if (piece.byteLength > 0) connection.attach(piece);
    this.context.counters.sentBytes += bytes + piece.byteLength;
    return true;
  }

  /** The bulk connection, if it takes that much more; `writable` is owed otherwise. */
  private roomFor(type: number, bytes: number): Connection | undefined {
    const connection = this.bulk.open;
    const { config } = this.context;
    invariant(fixedBytes(type) + bytes <= config.maxFrameBytes, 'it fits into a frame');
    if (this.reportedUp && connection?.alive === true) {
      const queued = connection.queuedBytes;
      const fits = queued === 0 || queued + bytes <= config.maxQueuedBytes;
      if (fits && connection.pinnedCount < MAX_PINNED_APPENDS) return connection;
    }
    this.refusedAppend = true;
    return undefined;
  }

  /** Throws, `rejected`, when the request cannot be queued. */
  request(request: ForwardRequest): Promise<ForwardResponse> {
    const connection = this.bulk.open;
    if (!this.reportedUp || connection === undefined || !connection.alive) {
      throw new KeelsonError('KEELSON_NO_LEADER', `node ${this.peerId} is not connected`);
    }
    const { config, requests, counters } = this.context;
    const bytes = fixedBytes(FRAME.forwardRequest);
    const { payload } = request;
    if (bytes + payload.byteLength > config.maxFrameBytes) {
      throw new KeelsonError(
        'KEELSON_ENTRY_TOO_LARGE',
        `a command of ${payload.byteLength} bytes does not fit into a frame (maxFrameBytes ${config.maxFrameBytes})`,
      );
    }
    if (connection.queuedBytes + payload.byteLength > config.maxQueuedBytes) {
      throw new KeelsonError(
        'KEELSON_OVERLOADED',
        `the connection to node ${this.peerId} holds ${connection.queuedBytes} bytes already`,
      );
    }
    const { id, promise } = requests.open(connection, request.timeoutMs);
    const at = connection.reserve(bytes);
    writeForwardRequest(connection.view, at, id, request);
    connection.commit(FRAME.forwardRequest, at, bytes, payload.byteLength);
    connection.attach(payload);
    this.unsent.push(id);
    counters.sentBytes += bytes + payload.byteLength;
    return promise;
  }

  /** Shows the peer that this node lives, and gives up connections on which the peer does not. */
  tick(nowMs: number, excused: boolean): void {
    for (const dialler of [this.control, this.bulk]) {
      const connection = dialler.open;
      if (connection === undefined || !connection.alive) continue;
      if (excused) connection.lastReceivedMs = nowMs;
      const silentMs = nowMs - connection.lastReceivedMs;
      if (silentMs > this.context.config.connectTimeoutMs + PING_INTERVAL_MS) {
        dialler.drop(new Error(`nothing was heard for ${Math.round(silentMs)} ms`));
      } else if (connection.queuedBytes === 0) {
        connection.sendBody(FRAME.ping, NO_BYTES);
      }
    }
  }

  opened(): void {
    if (this.reportedUp || this.stopped) return;
    if (this.control.open === undefined || this.bulk.open === undefined) return;
    this.reportedUp = true;
    const { logger, handler } = this.context;
    logger.info(
      { event: 'peer.connected', peer: this.peerId, address: this.control.dialled },
      `connected to node ${this.peerId}`,
    );
    handler().connected(this.peerId);
    this.room();
  }

  lost(dialler: Dialler, connection: Connection, failure: Error | undefined): void {
    if (dialler === this.bulk) {
      this.unsent = [];
      this.context.requests.carrierLost(
        connection,
        `the connection to node ${this.peerId} is lost`,
      );
    }
    if (!this.reportedUp) return;
    this.reportedUp = false;
    if (this.stopped) return;
    const { logger, handler } = this.context;
    logger.info(
      {
        event: 'peer.disconnected',
        peer: this.peerId,
        channel: dialler.channel,
        reason: failure?.message ?? 'closed by the peer',
      },
      `disconnected from node ${this.peerId}`,
    );
    handler().disconnected(this.peerId);
  }

  refused(_dialler: Dialler, refusal: Refusal): void {
    this.context.handler().refused?.(this.peerId, refusal.reason, refusal.text);
  }

  flushed(dialler: Dialler): void {
    if (dialler !== this.bulk || this.unsent.length === 0) return;
    for (const id of this.unsent) this.context.requests.markSent(id);
    this.unsent = [];
  }

  /** `writable` comes from the run queue, never from within a call of the handler's owner. */
  room(): void {
    if (!this.refusedAppend || this.writableQueued || !this.hasRoom()) return;
    this.writableQueued = true;
    this.context.scheduler.enqueue(() => {
      this.writableQueued = false;
      if (!this.refusedAppend || !this.hasRoom()) return;
      this.refusedAppend = false;
      this.context.handler().writable(this.peerId);
    });
  }

  response(dialler: Dialler, view: DataView, at: number, rest: readonly Uint8Array[]): void {
    const payloadBytes = view.getUint32(at + 24, true);
    const errorBytes = view.getUint32(at + 28, true);
    const bytes = new Uint8Array(Buffer.concat(rest));
    if (payloadBytes + errorBytes !== bytes.byteLength || errorBytes > MAX_ERROR_BYTES) {
      throw corruptFrame('lengths of a response that do not add up');
    }
    this.context.requests.settle(dialler.open!, readU64(view, at), {
      index: readU64(view, at + 8),
      term: readU64(view, at + 16),
      payload: bytes.subarray(0, payloadBytes),
      error: errorBytes === 0 ? undefined : unpackError(bytes.subarray(payloadBytes)),
    });
  }

  gone(): void {
    this.onGone();
  }

  private hasRoom(): boolean {
    const connection = this.bulk.open;
    if (!this.reportedUp || connection === undefined || !connection.alive) return false;
    return (
      connection.queuedBytes * 2 <= this.context.config.maxQueuedBytes &&
      connection.pinnedCount * 2 <= MAX_PINNED_APPENDS
    );
  }
}

export interface PeerOptions {
  readonly context: TcpContext;
  readonly refusals: RefusalLog;
  readonly peerId: NodeId;
  readonly address: string;
  /** Called when a stopped peer has lost a socket. */
  readonly gone: () => void;
}

const NO_BYTES = new Uint8Array(0);
/** Control messages are small and repeated: more of them waiting is only older news. */
const MAX_QUEUED_CONTROL_BYTES = 1024 * 1024;
/** References on entry bytes that one connection may hold. */
const MAX_PINNED_APPENDS = 1024;
export const MAX_ERROR_BYTES = 16_384;
