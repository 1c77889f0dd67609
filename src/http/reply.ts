/**
 * Writes one answer. Every answer carries where this node stands:
 *
 *     keelson-leader  node id of the leader as far as this node knows, 0 when none is known
 *     keelson-term    term of this node
 *     keelson-index   log index of the write that is answered, else what this node has applied
 */
import type { ServerResponse } from 'node:http';
import type { Status } from '../api.js';
import type { HttpFailure } from './errors.js';

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
  readonly contentType: 'application/json' | 'application/octet-stream';
  /** Log index of an acknowledged write. */
  readonly logIndex?: number;
}

export function jsonAnswer(
  status: number,
  value: unknown,
  more: { headers?: Readonly<Record<string, string>>; logIndex?: number } = {},
): Answer {
  const body = `${JSON.stringify(value)}\n`;
  return { status, body, contentType: 'application/json', ...more };
}

export function failureAnswer(failure: HttpFailure): Answer {
  const { status, headers } = failure;
  return { status, headers, body: failure.body(), contentType: 'application/json' };
}

/** Headers of the answer, complete, in the order in which they are sent. */
export function answerHeaders(answer: Answer, position: Status): Record<string, string | number> {
  return {
    'content-type': answer.contentType,
    'content-length': Buffer.byteLength(answer.body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'keelson-leader': position.leader ?? 0,
    'keelson-term': position.term,
    'keelson-index': answer.logIndex ?? position.appliedIndex,
    ...answer.headers,
  };
}

/** Does nothing when the client has gone. */
export function reply(response: ServerResponse, answer: Answer, position: Status): void {
  if (response.destroyed || response.writableEnded) return;
  response.writeHead(answer.status, answerHeaders(answer, position));
  response.end(answer.body);
}
