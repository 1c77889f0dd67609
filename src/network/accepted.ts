import type { Socket } from 'node:net';
import { toErrorRecord } from '../base/errors.js';
import type { Timer } from '../base/scheduler.js';
import type { NodeId } from '../engine/types.js';
import { packError, readAppend, readControl, readForwardRequest } from './codec.js';
import { bytesOf, writeU64 } from './codec-numbers.js';
import { Connection, type ConnectionOwner } from './connection.js';
import { FRAME, fixedBytes, MAX_MSGPACK_BYTES } from './frame.js';
import {
  type Channel,
  type Hello,
  packHello,
  packRefusal,
  type Refusal,
  refuse,
  unpackHello,
  unpackRefusal,
} from './handshake.js';
import type { ForwardResponse } from './network.js';
import { readSnapshot } from './snapshot-codec.js';
import { helloOf, PING_INTERVAL_MS, type RefusalLog, type TcpContext } from './tcp-context.js';

/**
 * A connection that another node has dialled: what that node says to this one, and the answers to the
 * requests that it forwards. Until the handshake is done, nothing but one `hello` is read.
 */
export class Accepted implements ConnectionOwner {
  /** Who is at the other end, once `open`. */
  peerId: NodeId = 0;
  channel: Channel = 'control';
  /** Where it wants to be dialled, if it says so. */
  advertise: string | undefined;
  private readonly context: TcpContext;
  private readonly refusals: RefusalLog;
  private readonly events: AcceptedEvents;
  private readonly connection: Connection;
  private readonly remote: string;
  private state: 'greeting' | 'deciding' | 'open' = 'greeting';
  private timer: Timer | undefined;
  private serving = 0;

  constructor(context: TcpContext, refusals: RefusalLog, events: AcceptedEvents, socket: Socket) {
    this.context = context;
    this.refusals = refusals;
    this.events = events;
    this.remote = socket.remoteAddress ?? 'an unknown address';
    this.connection = new Connection(socket, context.scheduler, this);
    const limitMs = context.config.handshakeTimeoutMs;
    this.timer = context.scheduler.setTimer(limitMs, () => {
      this.destroy(new Error(`no handshake within ${limitMs} ms`));
    });
  }

  get open(): boolean {
    return this.state === 'open';
  }

  /** Without a reason nothing went wrong, and nothing is logged. */
  destroy(reason?: Error): void {
    this.connection.destroy(reason);
  }

  tick(nowMs: number, excused: boolean): void {
    const { connection } = this;
    if (this.state !== 'open' || !connection.alive) return;
    if (excused) connection.lastReceivedMs = nowMs;
    const silentMs = nowMs - connection.lastReceivedMs;
    if (silentMs > this.context.config.connectTimeoutMs + PING_INTERVAL_MS) {
      this.destroy(new Error(`nothing was heard for ${Math.round(silentMs)} ms`));
    } else if (connection.queuedBytes === 0) {
      connection.sendBody(FRAME.ping, NO_BYTES);
    }
  }

  maxBodyBytes(type: number): number {
    if (this.state !== 'open') {
      return this.state === 'greeting' && type === FRAME.hello ? MAX_MSGPACK_BYTES : -1;
    }
    switch (type) {
      case FRAME.ping:
        return 0;
      case FRAME.refusal:
        return MAX_MSGPACK_BYTES;
      case FRAME.append:
      case FRAME.snapshot:
      case FRAME.forwardRequest:
        return this.channel === 'bulk' ? this.context.config.maxFrameBytes : -1;
      case FRAME.voteRequest:
      case FRAME.voteResponse:
      case FRAME.heartbeatRequest:
      case FRAME.heartbeatResponse:
      case FRAME.appendResponse:
      case FRAME.snapshotResponse:
        return this.channel === 'control' ? MAX_MSGPACK_BYTES : -1;
      default:
        return -1;
    }
  }

  frame(
    type: number,
    view: DataView,
    at: number,
    fixedLength: number,
    rest: readonly Uint8Array[],
  ): void {
    switch (type) {
      case FRAME.append:
        this.context.handler().append(this.peerId, readAppend(view, at), rest);
        break;
      case FRAME.snapshot: {
        const bytes = rest.reduce((sum, part) => sum + part.byteLength, 0);
        this.context.handler().snapshot(this.peerId, readSnapshot(view, at, bytes), rest);
        break;
      }
      case FRAME.ping:
        break;
      case FRAME.forwardRequest:
        this.serve(view, at, rest);
        break;
      case FRAME.hello:
        this.greeted(unpackHello(bytesOf(view, at, fixedLength)));
        break;
      case FRAME.refusal: {
        const refusal = unpackRefusal(bytesOf(view, at, fixedLength));
        this.refusals.note(this.subject(this.peerId), 'peer', refusal);
        this.destroy(new Error(refusal.text));
        break;
      }
      default:
        this.context.handler().message(this.peerId, readControl(type, view, at, fixedLength));
    }
  }

  receivedBytes(bytes: number): void {
    this.context.counters.receivedBytes += bytes;
  }

  flushed(): void {}

  room(): void {}

  closed(failure: Error | undefined): void {
    this.timer?.cancel();
    if (failure !== undefined) this.logFailure(failure);
    this.events.closed(this);
  }

  private greeted(hello: Hello): void {
    this.state = 'deciding';
    const { context } = this;
    const { identity, channel } = hello;
    const mine = helloOf(context, channel, identity.nodeId);
    const refusal = refuse(mine, hello, undefined, context.registry);
    if (refusal !== undefined) {
      this.turnAway(hello, refusal);
    } else if (context.registry.check(identity.nodeId, identity.incarnation) === 'known') {
      this.welcome(hello);
    } else {
      const remember = async (): Promise<void> =>
        context.registry.remember(identity.nodeId, identity.incarnation);
      remember().then(
        () => {
          const conflict = refuse(mine, hello, undefined, context.registry);
          if (conflict === undefined) this.welcome(hello);
          else this.turnAway(hello, conflict);
        },
        (error: unknown) => {
          const text = `node ${identity.nodeId} could not be remembered: ${String(error)}`;
          this.turnAway(hello, { reason: 'registry', text });
        },
      );
    }
  }

  private welcome(hello: Hello): void {
    if (!this.connection.alive) return;
    const { nodeId } = hello.identity;
    this.timer?.cancel();
    this.peerId = nodeId;
    this.channel = hello.channel;
    this.advertise = hello.advertise;
    this.state = 'open';
    this.refusals.forget(this.subject(nodeId));
    const mine = helloOf(this.context, hello.channel, nodeId);
    this.connection.sendBody(FRAME.welcome, packHello(mine));
    this.events.opened(this);
  }

  private turnAway(hello: Hello, refusal: Refusal): void {
    if (!this.connection.alive) return;
    this.refusals.note(this.subject(hello.identity.nodeId), 'us', refusal);
    this.context.counters.refusedHandshakes++;
    this.connection.sendBody(FRAME.refusal, packRefusal(refusal));
    this.connection.end();
  }

  private serve(view: DataView, at: number, rest: readonly Uint8Array[]): void {
    const { id, request } = readForwardRequest(view, at, new Uint8Array(Buffer.concat(rest)));
    const limit = this.context.config.maxRequests;
    if (this.serving >= limit) {
      const message = `${limit} requests of node ${this.peerId} are being served already`;
      this.answerError(id, { code: 'KEELSON_OVERLOADED', message, outcome: 'rejected' });
      return;
    }
    this.serving++;
    this.context
      .handler()
      .request(this.peerId, request)
      .then(
        (response) => this.answer(id, response),
        (error: unknown) => this.answerError(id, toErrorRecord(error, 'KEELSON_NO_LEADER')),
      )
      .finally(() => {
        this.serving--;
      });
  }

  private answerError(id: number, error: NonNullable<ForwardResponse['error']>): void {
    this.answer(id, { payload: NO_BYTES, index: 0, term: 0, error });
  }

  private answer(id: number, response: ForwardResponse): void {
    const { connection } = this;
    if (!connection.alive) return;
    const { maxFrameBytes, maxQueuedBytes } = this.context.config;
    const { payload } = response;
    const error = response.error === undefined ? NO_BYTES : packError(response.error);
    const fixedLength = fixedBytes(FRAME.forwardResponse);
    const restBytes = payload.byteLength + error.byteLength;
    if (fixedLength + restBytes > maxFrameBytes) {
      const message = `the response has ${restBytes} bytes, a frame holds ${maxFrameBytes}`;
      this.answerError(id, { code: 'KEELSON_ENTRY_TOO_LARGE', message, outcome: 'unknown' });
      return;
    }
    if (connection.queuedBytes > maxQueuedBytes) {
      this.destroy(new Error('the peer does not read the answers to its requests'));
      return;
    }
    const at = connection.reserve(fixedLength);
    const { view } = connection;
    writeU64(view, at, id);
    writeU64(view, at + 8, response.index);
    writeU64(view, at + 16, response.term);
    view.setUint32(at + 24, payload.byteLength, true);
    view.setUint32(at + 28, error.byteLength, true);
    connection.commit(FRAME.forwardResponse, at, fixedLength, restBytes);
    if (payload.byteLength > 0) connection.attach(payload);
    if (error.byteLength > 0) connection.attach(error);
    this.context.counters.sentBytes += fixedLength + restBytes;
  }

  /** Strangers may send what they like: what they do is not worth a warning. */
  private logFailure(failure: Error): void {
    const { logger } = this.context;
    if (this.state === 'open') {
      logger.warn(
        { event: 'connection.failed', peer: this.peerId, channel: this.channel, err: failure },
        `connection from node ${this.peerId} ended: ${failure.message}`,
      );
    } else {
      logger.debug(
        { event: 'connection.failed', remote: this.remote, err: failure },
        `connection from ${this.remote} ended: ${failure.message}`,
      );
    }
  }

  private subject(nodeId: NodeId): string {
    return `node ${nodeId} from ${this.remote}`;
  }
}

export interface AcceptedEvents {
  /** The handshake is done; `peerId`, `channel` and `advertise` are known. */
  opened(accepted: Accepted): void;
  closed(accepted: Accepted): void;
}

const NO_BYTES = new Uint8Array(0);
