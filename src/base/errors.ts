/**
 * Every error that Keelson reports to its caller.
 *
 * `code` is stable and meant for programs, the message is meant for people. `outcome` tells what a
 * caller may conclude about the operation:
 *
 * - `rejected`: it changed nothing and never will; trying again is safe.
 * - `unknown`: it may have been, or may still be, committed.
 */
export type ErrorCode =
  | 'KEELSON_INVALID_ARGUMENT'
  | 'KEELSON_INVALID_CONFIG'
  | 'KEELSON_NOT_LEADER'
  | 'KEELSON_NO_LEADER'
  | 'KEELSON_LEADERSHIP_LOST'
  | 'KEELSON_OVERLOADED'
  | 'KEELSON_ENTRY_TOO_LARGE'
  | 'KEELSON_TIMEOUT'
  | 'KEELSON_ABORTED'
  | 'KEELSON_CLOSED'
  | 'KEELSON_STORAGE_FAILED'
  | 'KEELSON_STORAGE_FULL'
  | 'KEELSON_STORAGE_LOCKED'
  | 'KEELSON_STORAGE_MISMATCH'
  | 'KEELSON_STORAGE_VERSION'
  | 'KEELSON_STORAGE_CORRUPT'
  | 'KEELSON_CORRUPT_FRAME'
  | 'KEELSON_HANDSHAKE_REFUSED'
  | 'KEELSON_STATE_MACHINE_FAILED'
  | 'KEELSON_LEADER_TASK_FAILED'
  | 'KEELSON_MISSING_FILE';

export type Outcome = 'rejected' | 'unknown';

/** Where the leader is believed to be; a hint that may be out of date. */
export interface LeaderHint {
  readonly nodeId: number;
  readonly address: string | undefined;
}

export interface KeelsonErrorOptions {
  readonly outcome?: Outcome;
  readonly leader?: LeaderHint | undefined;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

export class KeelsonError extends Error {
  override readonly name = 'KeelsonError';
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  readonly leader: LeaderHint | undefined;
  /** What the error is about: file (its path), offset, node, group, index, field. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: KeelsonErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.outcome = options.outcome ?? 'rejected';
    this.leader = options.leader;
    this.details = options.details ?? {};
  }
}

/** What crosses a thread or a socket in place of a thrown error, whose own fields would be lost. */
export interface ErrorRecord {
  readonly code: ErrorCode;
  readonly message: string;
  readonly outcome: Outcome;
  readonly leader?: LeaderHint | undefined;
  readonly details?: Readonly<Record<string, unknown>>;
}

export function toErrorRecord(error: unknown, fallback: ErrorCode): ErrorRecord {
  if (error instanceof KeelsonError) {
    const { code, message, outcome, leader, details } = error;
    return { code, message, outcome, leader, details };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: fallback, message, outcome: 'rejected' };
}

export function fromErrorRecord(record: ErrorRecord): KeelsonError {
  return new KeelsonError(record.code, record.message, record);
}
