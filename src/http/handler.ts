/**
 * One HTTP request from beginning to end: read the target, find the route, check everything, ask
 * the node, answer. A client that goes away aborts its own wait; a write of it that was appended
 * may still commit.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Logger, silentLogger } from '../base/logger.js';
import { resolveHttpConfig } from '../config/resolve.js';
import type { HttpConfig } from '../config/types.js';
import { discardRest, readBody } from './body.js';
import { ByteBudget } from './byte-budget.js';
import { HttpFailure, RETRY_AFTER, toHttpFailure } from './errors.js';
import { livez, readyz, statusRoute } from './health-routes.js';
import {
  checkKey,
  get,
  type KeyValueRaft,
  put,
  range,
  remove,
  writeCondition,
} from './key-value-routes.js';
import { type Answer, failureAnswer, reply } from './reply.js';
import { onlyParameters, parseRequestTarget, type RequestTarget } from './request-target.js';
import { type KeyValueRoute, route } from './router.js';

/**
 * Limits are those of the section `http` of the configuration, with the same defaults. What concerns
 * connections and the time of a request holds for `HttpServer`; a server of your own has its own.
 */
export interface HttpOptions extends Partial<HttpConfig> {
  /** Largest value that PUT takes, bytes; a larger one is answered 413. Default 1 MiB. */
  readonly maxBodyBytes?: number;
  /** Time for one read or write, ms. Default: `limits.callTimeoutMs` of the node. */
  readonly callTimeoutMs?: number;
  /** Gets `http.failed` for every unexpected error. Silent by default. */
  readonly logger?: Logger;
}

export type HttpHandler = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Serves a node that runs the key-value machine. Paths and answers: docs/http-api.md.
 * @throws KeelsonError INVALID_CONFIG
 */
export function createHttpHandler(raft: KeyValueRaft, options: HttpOptions = {}): HttpHandler {
  const service = new HttpService(raft, options);
  return (request, response) => {
    void service.serve(request, response);
  };
}

/** The limits among the options, and the defaults of those that are not given. */
export function limitsOf(options: HttpOptions): HttpConfig {
  const { maxBodyBytes, callTimeoutMs, logger, ...limits } = options;
  return resolveHttpConfig(limits);
}

class HttpService {
  private readonly raft: KeyValueRaft;
  private readonly limits: HttpConfig;
  private readonly maxBodyBytes: number;
  private readonly callTimeoutMs: number | undefined;
  private readonly bodies: ByteBudget;
  private readonly answers: ByteBudget;
  private readonly logger: Logger;
  private concurrentRequests = 0;

  constructor(raft: KeyValueRaft, options: HttpOptions) {
    const { maxBodyBytes, callTimeoutMs, logger } = options;
    this.raft = raft;
    this.limits = limitsOf(options);
    this.maxBodyBytes = maxBodyBytes ?? 1024 * 1024;
    this.callTimeoutMs = callTimeoutMs;
    this.bodies = new ByteBudget('request bodies in flight', this.limits.maxBufferedBodyBytes);
    this.answers = new ByteBudget('answers in flight', this.limits.maxBufferedAnswerBytes);
    this.logger = logger ?? silentLogger;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.answer(request, response);
    } catch (error) {
      const changesState = request.method === 'PUT' || request.method === 'DELETE';
      const failure = toHttpFailure(error, changesState);
      if (failure.status === 500) this.logUnexpected(request, error);
      answer = failureAnswer(failure);
      discardRest(request, DISCARDED_BODIES * this.maxBodyBytes);
    }
    reply(response, answer, this.raft.status());
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<Answer> {
    checkHead(request);
    const target = parseRequestTarget(request.url ?? '');
    const found = route(request.method ?? '', target);
    switch (found.name) {
      case 'livez':
        return livez();
      case 'readyz': {
        onlyParameters(target.parameters, ['verbose']);
        const verbose = target.parameters.has('verbose');
        return readyz(this.raft.status(), verbose, this.limits.readyLagEntries);
      }
      case 'status':
        onlyParameters(target.parameters, []);
        return statusRoute(this.raft.status());
      default:
        return await this.keyValue(found, target, request, response);
    }
  }

  private async keyValue(
    found: KeyValueRoute,
    target: RequestTarget,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<Answer> {
    const { maxConcurrentRequests, maxKeyBytes } = this.limits;
    if (this.concurrentRequests >= maxConcurrentRequests) {
      const message = `${maxConcurrentRequests} requests are being served already`;
      throw new HttpFailure(429, 'KEELSON_OVERLOADED', message, { headers: RETRY_AFTER });
    }
    this.concurrentRequests += 1;
    try {
      const signal = disconnectSignal(response);
      const call =
        this.callTimeoutMs === undefined ? { signal } : { signal, timeoutMs: this.callTimeoutMs };
      if (found.name === 'range') {
        return this.held(await range(this.raft, target, call), response);
      }
      checkKey(found.key, maxKeyBytes);
      if (found.name === 'get') {
        return this.held(await get(this.raft, found.key, target, call), response);
      }
      const condition = writeCondition(target);
      if (found.name === 'delete') return await remove(this.raft, found.key, condition, call);
      const body = await readBody(request, this.maxBodyBytes, this.bodies);
      try {
        return await put(this.raft, found.key, body.bytes, condition, call);
      } finally {
        body.release();
      }
    } finally {
      this.concurrentRequests -= 1;
    }
  }

  /** Counts what was read until the client has taken it, however slowly, or has gone. */
  private held(answer: Answer, response: ServerResponse): Answer {
    if (response.destroyed) return answer;
    const bytes = Buffer.byteLength(answer.body);
    this.answers.take(bytes);
    response.once('close', () => this.answers.giveBack(bytes));
    return answer;
  }

  private logUnexpected(request: IncomingMessage, error: unknown): void {
    const fields = { event: 'http.failed', method: request.method, path: request.url, err: error };
    this.logger.error(fields, 'a request failed unexpectedly');
  }
}

/** What `node:http` would refuse by itself, in its own words, unless the server leaves it to us. */
function checkHead({ headers, httpVersion }: IncomingMessage): void {
  if (httpVersion === '1.1' && headers.host === undefined) {
    throw new HttpFailure(400, 'KEELSON_MALFORMED_REQUEST', 'the header Host is missing');
  }
  const { expect } = headers;
  if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
    const message = `nothing here meets the expectation "${expect.slice(0, 100)}"`;
    throw new HttpFailure(417, 'KEELSON_MALFORMED_REQUEST', message);
  }
}

/** A refused client may go on sending for so many times the body limit before it is cut off. */
const DISCARDED_BODIES = 8;

function disconnectSignal(response: ServerResponse): AbortSignal {
  const disconnected = new AbortController();
  response.once('close', () => {
    if (!response.writableEnded) disconnected.abort();
  });
  return disconnected.signal;
}
