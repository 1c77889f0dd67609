import { connect, type Socket } from 'node:net';
import type { Timer } from '../base/scheduler.js';
import type { NodeId } from '../engine/types.js';
import { parseAddress } from './address.js';
import { bytesOf } from './codec-numbers.js';
import { Connection, type ConnectionOwner } from './connection.js';
import { corruptFrame, FRAME, MAX_MSGPACK_BYTES } from './frame.js';
import {
  type Channel,
  packHello,
  packRefusal,
  type Refusal,
  refuse,
  unpackHello,
  unpackRefusal,
} from './handshake.js';
import { helloOf, type RefusalLog, type TcpContext } from './tcp-context.js';

/**
 * Keeps one connection of one channel to one peer: dials, shakes hands, and dials again after a pause
 * that doubles with each failure. The name is resolved anew each time.
 *
 * The peer is dialled where it wants to be, if it has said so in a handshake, and else where the
 * membership says. What cannot be reached at the one is looked for at the other: what a peer said
 * is not durable, and may be wrong. Whoever answers must be that peer, wherever it is found.
 *
 *   dialling → greeting → deciding (is the peer known?) → open → (lost) → pausing → dialling …
 */
export class Dialler implements ConnectionOwner {
  readonly channel: Channel;
  readonly peerId: NodeId;
  private readonly context: TcpContext;
  private readonly refusals: RefusalLog;
  private readonly events: DiallerEvents;
  /** Where it has dialled last. */
  dialled: string;
  /** Of the membership. */
  private readonly address: string;
  private advertise: string | undefined;
  private next: string;
  private connection: Connection | undefined;
  private state: 'dialling' | 'greeting' | 'deciding' | 'open' | 'pausing' = 'dialling';
  private stopped = false;
  private failures = 0;
  /** Ends the dialling or the greeting when it takes too long, or the pause. */
  private timer: Timer | undefined;

  constructor(options: DiallerOptions) {
    this.context = options.context;
    this.refusals = options.refusals;
    this.events = options.events;
    this.channel = options.channel;
    this.peerId = options.peerId;
    this.address = options.address;
    this.dialled = options.address;
    this.next = options.address;
  }

  /** The connection, once the handshake is done. */
  get open(): Connection | undefined {
    return this.state === 'open' ? this.connection : undefined;
  }

  /** Whether a socket still exists, perhaps on its way out. */
  get idle(): boolean {
    return this.connection === undefined;
  }

  dial(): void {
    this.dialled = this.next;
    const { host, port } = parseAddress(this.dialled);
    const { scheduler, config } = this.context;
    this.state = 'dialling';
    // Where a name has several addresses, Node gives each 250 ms by default: too little for far peers.
    const autoSelectFamilyAttemptTimeout = Math.max(10, Math.floor(config.connectTimeoutMs / 2));
    const socket = connect({ host, port, autoSelectFamilyAttemptTimeout });
    this.connection = new Connection(socket, scheduler, this);
    this.limitTime(config.connectTimeoutMs, 'connect');
    socket.once('connect', () => this.greet(socket));
  }

  /** Counts from the next dialling on: a connection that is open is a good one. */
  advertised(address: string | undefined): void {
    if (address === this.advertise) return;
    this.advertise = address;
    this.next = address ?? this.address;
  }

  /** The peer shows that it lives: there is no reason to wait longer. */
  hurry(): void {
    if (this.state !== 'pausing' || this.stopped) return;
    this.cancelTimer();
    this.dial();
  }

  /** Gives up the connection, and dials again. */
  drop(reason: Error): void {
    this.connection?.destroy(reason);
  }

  stop(): void {
    this.stopped = true;
    this.cancelTimer();
    this.connection?.destroy();
  }

  maxBodyBytes(type: number): number {
    switch (type) {
      case FRAME.welcome:
      case FRAME.refusal:
        return this.state === 'greeting' ? MAX_MSGPACK_BYTES : -1;
      case FRAME.ping:
        return this.state === 'open' || this.state === 'deciding' ? 0 : -1;
      case FRAME.forwardResponse:
        return this.state === 'open' && this.channel === 'bulk'
          ? this.context.config.maxFrameBytes
          : -1;
      default:
        return -1;
    }
  }

  frame(
    type: number,
    view: DataView,
    at: number,
    fixedBytes: number,
    rest: readonly Uint8Array[],
  ): void {
    if (type === FRAME.ping) {
      this.failures = 0;
    } else if (type === FRAME.welcome) {
      this.welcomed(bytesOf(view, at, fixedBytes));
    } else if (type === FRAME.refusal) {
      const refusal = unpackRefusal(bytesOf(view, at, fixedBytes));
      this.refusals.note(this.subject, 'peer', refusal);
      this.context.counters.refusedHandshakes++;
      this.events.refused(this, refusal);
      this.connection?.destroy();
    } else {
      this.events.response(this, view, at, rest);
    }
  }

  receivedBytes(bytes: number): void {
    this.context.counters.receivedBytes += bytes;
  }

  flushed(): void {
    this.events.flushed(this);
  }

  room(): void {
    this.events.room(this);
  }

  closed(failure: Error | undefined): void {
    this.cancelTimer();
    const connection = this.connection!;
    const wasOpen = this.state === 'open';
    this.connection = undefined;
    this.state = 'dialling';
    if (wasOpen) this.events.lost(this, connection, failure);
    else this.next = this.elsewhere();
    if (this.stopped) this.events.gone();
    else this.pause(failure);
  }

  private get subject(): string {
    return `node ${this.peerId} at ${this.dialled}`;
  }

  private elsewhere(): string {
    const { advertise, address } = this;
    return advertise === undefined || this.dialled === advertise ? address : advertise;
  }

  private greet(socket: Socket): void {
    const { connection } = this;
    if (connection?.socket !== socket || !connection.alive) return;
    const { config } = this.context;
    this.state = 'greeting';
    this.limitTime(config.handshakeTimeoutMs, 'handshake');
    connection.sendBody(FRAME.hello, packHello(helloOf(this.context, this.channel, this.peerId)));
  }

  private welcomed(body: Uint8Array): void {
    const { context } = this;
    const connection = this.connection!;
    this.state = 'deciding';
    const hello = unpackHello(body);
    if (hello.channel !== this.channel) throw corruptFrame('a welcome for another channel');
    const { identity } = hello;
    const mine = helloOf(context, this.channel, this.peerId);
    const refusal = refuse(mine, hello, this.peerId, context.registry);
    if (refusal !== undefined) {
      this.turnAway(connection, refusal);
      return;
    }
    if (context.registry.check(identity.nodeId, identity.incarnation) === 'known') {
      this.opened(connection);
      return;
    }
    const remembered = async (): Promise<void> =>
      context.registry.remember(identity.nodeId, identity.incarnation);
    remembered().then(
      () => {
        if (!connection.alive || this.connection !== connection) return;
        const conflict = refuse(mine, hello, this.peerId, context.registry);
        if (conflict === undefined) this.opened(connection);
        else this.turnAway(connection, conflict);
      },
      (error: unknown) => {
        const text = `node ${this.peerId} could not be remembered: ${String(error)}`;
        this.turnAway(connection, { reason: 'registry', text });
      },
    );
  }

  private turnAway(connection: Connection, refusal: Refusal): void {
    if (!connection.alive) return;
    this.refusals.note(this.subject, 'us', refusal);
    this.context.counters.refusedHandshakes++;
    connection.sendBody(FRAME.refusal, packRefusal(refusal));
    connection.end();
  }

  private opened(connection: Connection): void {
    this.cancelTimer();
    this.state = 'open';
    this.refusals.forget(this.subject);
    connection.sendBody(FRAME.ping, NO_BYTES);
    this.events.opened(this);
  }

  private pause(failure: Error | undefined): void {
    const { config, scheduler, logger } = this.context;
    const longest = Math.min(config.reconnectMaxMs, config.reconnectMinMs * 2 ** this.failures);
    const delayMs = longest * (1 - scheduler.random() / 2);
    this.failures = Math.min(this.failures + 1, 30);
    this.state = 'pausing';
    const reason = failure?.message ?? 'closed by the peer';
    const fields = {
      event: 'peer.unreachable',
      peer: this.peerId,
      channel: this.channel,
      delayMs,
      reason,
    };
    const message = `no ${this.channel} connection to ${this.subject}, dialling again: ${reason}`;
    // Once for each time that the peer is away, and not for a connection that is back at once.
    if (this.channel === 'control' && this.failures === 2) logger.warn(fields, message);
    else logger.debug(fields, message);
    this.timer = scheduler.setTimer(delayMs, () => {
      this.cancelTimer();
      this.dial();
    });
  }

  private limitTime(limitMs: number, step: string): void {
    this.cancelTimer();
    this.timer = this.context.scheduler.setTimer(limitMs, () => {
      this.connection?.destroy(new Error(`${step} took longer than ${limitMs} ms`));
    });
  }

  private cancelTimer(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }
}

export interface DiallerOptions {
  readonly context: TcpContext;
  readonly refusals: RefusalLog;
  readonly events: DiallerEvents;
  readonly channel: Channel;
  readonly peerId: NodeId;
  readonly address: string;
}

export interface DiallerEvents {
  opened(dialler: Dialler): void;
  lost(dialler: Dialler, connection: Connection, failure: Error | undefined): void;
  refused(dialler: Dialler, refusal: Refusal): void;
  flushed(dialler: Dialler): void;
  room(dialler: Dialler): void;
  /** The body of a forwardResponse. */
  response(dialler: Dialler, view: DataView, at: number, rest: readonly Uint8Array[]): void;
  /** Stopped, and its socket is gone. */
  gone(): void;
}

const NO_BYTES = new Uint8Array(0);
