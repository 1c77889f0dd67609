/**
 * From errors to HTTP statuses. The rule that clients can build on:
 *
 * - 504 if and only if the outcome is `unknown`: a write may have been, or may still be, committed.
 * - Every other error status means that nothing was changed; 429 and 503 carry `Retry-After`.
 *
 * (The one exception is 500, a bug in the server: on a write its outcome is `unknown` too.)
 */
import { type ErrorCode, KeelsonError, type Outcome } from '../base/errors.js';

/** Codes of `KeelsonError`, and those that exist only over HTTP. */
export type HttpErrorCode =
  | ErrorCode
  | 'KEELSON_KEY_NOT_FOUND'
  | 'KEELSON_ROUTE_NOT_FOUND'
  | 'KEELSON_METHOD_NOT_ALLOWED'
  | 'KEELSON_VERSION_MISMATCH'
  | 'KEELSON_BODY_TOO_LARGE'
  | 'KEELSON_MALFORMED_REQUEST'
  | 'KEELSON_NOT_READY'
  | 'KEELSON_INTERNAL';

export interface HttpFailureOptions {
  readonly outcome?: Outcome;
  readonly headers?: Readonly<Record<string, string>>;
  /** More fields of the error object in the body. */
  readonly fields?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

export class HttpFailure extends Error {
  override readonly name = 'HttpFailure';
  readonly status: number;
  readonly code: HttpErrorCode;
  readonly outcome: Outcome;
  readonly headers: Readonly<Record<string, string>>;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(
    status: number,
    code: HttpErrorCode,
    message: string,
    options: HttpFailureOptions = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    this.code = code;
    this.outcome = options.outcome ?? 'rejected';
    this.headers = options.headers ?? {};
    this.fields = options.fields ?? {};
  }

  body(): string {
    const { code, message, outcome } = this;
    return `${JSON.stringify({ error: { code, message, outcome, ...this.fields } })}\n`;
  }
}

/** Seconds after which a refused request may be tried again: about an election timeout. */
export const RETRY_AFTER: Readonly<Record<string, string>> = { 'retry-after': '1' };

export function malformed(message: string): HttpFailure {
  return new HttpFailure(400, 'KEELSON_INVALID_ARGUMENT', message);
}

/** `changesState`: whether the request was a write, so that an unexpected error leaves it open. */
export function toHttpFailure(error: unknown, changesState: boolean): HttpFailure {
  if (error instanceof HttpFailure) return error;
  if (!(error instanceof KeelsonError)) {
    return new HttpFailure(500, 'KEELSON_INTERNAL', 'internal error; the server log has more', {
      outcome: changesState ? 'unknown' : 'rejected',
      cause: error,
    });
  }
  const status = error.outcome === 'unknown' ? 504 : (REJECTED_STATUS[error.code] ?? 503);
  return new HttpFailure(status, error.code, error.message, {
    outcome: error.outcome,
    headers: status === 429 || status === 503 ? RETRY_AFTER : {},
    cause: error,
  });
}

/** Any other code says that this node cannot serve now, though another one might: 503. */
const REJECTED_STATUS: Readonly<Partial<Record<ErrorCode, number>>> = {
  KEELSON_INVALID_ARGUMENT: 400,
  KEELSON_ENTRY_TOO_LARGE: 413,
  KEELSON_OVERLOADED: 429,
  KEELSON_STORAGE_FULL: 507,
};
