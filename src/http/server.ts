/**
 * A `node:http` server around the handler, with limits on everything a client can hold open, and a
 * close that lets answers in flight finish.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { type Logger, silentLogger } from '../base/logger.js';
import { HttpFailure } from './errors.js';
import { createHttpHandler, type HttpHandler, type HttpOptions, limitsOf } from './handler.js';
import type { KeyValueRaft } from './key-value-routes.js';
import { answerHeaders, failureAnswer, reply } from './reply.js';

export interface HttpListenOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
}

export class HttpServer {
  private readonly raft: KeyValueRaft;
  private readonly logger: Logger;
  private readonly server: Server;
  private readonly unanswered = new Set<ServerResponse>();

  constructor(raft: KeyValueRaft, options: HttpOptions = {}) {
    this.raft = raft;
    this.logger = options.logger ?? silentLogger;
    const limits = limitsOf(options);
    const handler = createHttpHandler(raft, options);
    const serve: HttpHandler = (request, response) => {
      this.unanswered.add(response);
      response.once('close', () => this.answered(response));
      if (!this.server.listening) response.shouldKeepAlive = false;
      handler(request, response);
    };
    this.server = createServer(
      {
        headersTimeout: limits.headersTimeoutMs,
        requestTimeout: limits.requestTimeoutMs,
        connectionsCheckingInterval: Math.min(limits.headersTimeoutMs, MAX_CHECKING_INTERVAL_MS),
        keepAliveTimeout: limits.keepAliveTimeoutMs,
        maxHeaderSize: limits.maxHeaderBytes,
        requireHostHeader: false,
      },
      serve,
    );
    this.server.maxConnections = limits.maxConnections;
    this.server.on('checkExpectation', serve);
    this.server.on('connect', (_request: IncomingMessage, socket: Socket) =>
      this.refuseConnect(socket),
    );
    this.server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) =>
      this.refuseUnread(error, socket),
    );
  }

  /** Resolves with the bound address `host:port`. */
  listen(options: HttpListenOptions): Promise<string> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(options.port, options.host, () => {
        this.server.off('error', reject);
        this.server.on('error', (error) => {
          const message = `accepting failed: ${error.message}`;
          this.logger.error({ event: 'http.accept-failed', err: error }, message);
        });
        const { address, port, family } = this.server.address() as AddressInfo;
        resolve(family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`);
      });
    });
  }

  /** Takes no more requests, lets those in flight be answered until `signal`, then cuts the rest. */
  async close(signal: AbortSignal): Promise<void> {
    if (!this.server.listening) return;
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    for (const response of this.unanswered) response.shouldKeepAlive = false;
    const cut = (): void => this.server.closeAllConnections();
    if (this.unanswered.size === 0) cut();
    if (signal.aborted) cut();
    signal.addEventListener('abort', cut);
    await closed;
    signal.removeEventListener('abort', cut);
  }

  private answered(response: ServerResponse): void {
    this.unanswered.delete(response);
    const closing = !this.server.listening;
    if (closing && this.unanswered.size === 0) this.server.closeAllConnections();
  }

  /** What the HTTP parser refuses never reaches the handler; it gets the same kind of answer. */
  private refuseUnread(error: NodeJS.ErrnoException, socket: Socket): void {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    const status = PARSER_STATUS[error.code ?? ''] ?? 400;
    const message = `not a request this server understands (${error.code ?? 'unknown'})`;
    this.refuse(socket, new HttpFailure(status, 'KEELSON_MALFORMED_REQUEST', message));
  }

  /** `node:http` hands over the bare connection of a CONNECT, and would close it without a word. */
  private refuseConnect(socket: Socket): void {
    socket.on('error', () => socket.destroy());
    socket.once('finish', () => socket.destroy());
    const headers = { allow: 'PUT, GET, HEAD, DELETE' };
    const message = 'CONNECT is not allowed: this server is no proxy';
    this.refuse(socket, new HttpFailure(405, 'KEELSON_METHOD_NOT_ALLOWED', message, { headers }));
  }

  /** Answers on a connection that no response object stands for. */
  private refuse(socket: Socket, failure: HttpFailure): void {
    const answer = failureAnswer(failure);
    const begun = [...this.unanswered].find((response) => response.socket === socket);
    if (begun !== undefined) {
      // The handler may be waiting for the rest of a body that will never be read.
      begun.once('finish', () => begun.req.destroy());
      begun.shouldKeepAlive = false;
      // A request that was read whole may be under way: what follows it says nothing about its outcome.
      if (begun.headersSent || begun.req.complete) socket.destroy();
      else reply(begun, answer, this.raft.status());
      return;
    }
    const { status } = failure;
    const headers = { ...answerHeaders(answer, this.raft.status()), connection: 'close' };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n`;
    socket.end(head + failure.body());
  }
}

/** A request that is too slow is found out at most this much later. */
const MAX_CHECKING_INTERVAL_MS = 10_000;

const PARSER_STATUS: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};
