/**
 * One HTTP request from beginning to end: read the target, find the route, check everything, ask
 * the node, answer. A client that goes away aborts its own wait; a write of it that was appended
 * may still commit.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Logger, silentLogger } from '../base/logger.js';
import { BodyBudget, discardRest, readBody } from './body.js';
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

export interface HttpOptions {
  /** Largest value that PUT takes, bytes; a larger one is answered 413. Default 1 MiB. */
  readonly maxBodyBytes?: number;
  /** All bodies held at one time, bytes; beyond it 429. Default 64 MiB. */
  readonly maxBufferedBodyBytes?: number;
  /** Longest key, bytes of UTF-8. Default 1,024. */
  readonly maxKeyBytes?: number;
  /** Key-value requests served at one time; beyond it 429. Default 4,096. */
  readonly maxConcurrentRequests?: number;
  /** Time for one read or write, ms. Default: `limits.callTimeoutMs` of the node. */
  readonly callTimeoutMs?: number;
  /** /readyz fails when this node has applied fewer than all but so many committed entries. Default 10,000. */
  readonly readyLagEntries?: number;
  /** Gets `http.failed` for every unexpected error. Silent by default. */
  readonly logger?: Logger;
}

export type HttpHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** Serves a node that runs the key-value machine. Paths and answers: docs/http-api.md. */
export function createHttpHandler(raft: KeyValueRaft, options: HttpOptions = {}): HttpHandler {
  const service = new HttpService(raft, options);
  return (request, response) => {
    void service.serve(request, response);
  };
}

class HttpService {
  private readonly raft: KeyValueRaft;
  private readonly maxBodyBytes: number;
  private readonly maxKeyBytes: number;
  private readonly maxConcurrentRequests: number;
  private readonly callTimeoutMs: number | undefined;
  private readonly readyLagEntries: number;
  private readonly bodyBudget: BodyBudget;
  private readonly logger: Logger;
  private concurrentRequests = 0;

  constructor(raft: KeyValueRaft, options: HttpOptions) {
    this.raft = raft;
    this.maxBodyBytes = options.maxBodyBytes ?? 1024 * 1024;
    this.maxKeyBytes = options.maxKeyBytes ?? 1_024;
    this.maxConcurrentRequests = options.maxConcurrentRequests ?? 4_096;
    this.callTimeoutMs = options.callTimeoutMs;
    this.readyLagEntries = options.readyLagEntries ?? 10_000;
    this.bodyBudget = new BodyBudget(options.maxBufferedBodyBytes ?? 64 * 1024 * 1024);
    this.logger = options.logger ?? silentLogger;
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
        return readyz(this.raft.status(), verbose, this.readyLagEntries);
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
    if (this.concurrentRequests >= this.maxConcurrentRequests) {
      throw new HttpFailure(
        429,
        'KEELSON_OVERLOADED',
        `${this.maxConcurrentRequests} requests are being served already`,
        { headers: RETRY_AFTER },
      );
    }
    this.concurrentRequests += 1;
    try {
      const signal = disconnectSignal(response);
      const call =
        this.callTimeoutMs === undefined ? { signal } : { signal, timeoutMs: this.callTimeoutMs };
      if (found.name === 'range') return await range(this.raft, target, call);
      checkKey(found.key, this.maxKeyBytes);
      if (found.name === 'get') return await get(this.raft, found.key, target, call);
      const condition = writeCondition(target);
      if (found.name === 'delete') return await remove(this.raft, found.key, condition, call);
      const body = await readBody(request, this.maxBodyBytes, this.bodyBudget);
      try {
        return await put(this.raft, found.key, body.bytes, condition, call);
      } finally {
        body.release();
      }
    } finally {
      this.concurrentRequests -= 1;
    }
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
