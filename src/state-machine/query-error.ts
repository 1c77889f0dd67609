/**
 * A query that throws fails alone: it changed nothing, and the machine goes on. Both hosts report it
 * alike, although a thrown error cannot cross a thread with its own fields.
 */
import { type ErrorRecord, KeelsonError } from '../base/errors.js';

export function queryFailed(error: unknown): KeelsonError {
  if (error instanceof KeelsonError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new KeelsonError(
    'KEELSON_INVALID_ARGUMENT',
    `the state machine refused the query: ${reason}`,
    { cause: error },
  );
}

/** Details that can cross a thread: anything else would turn a failed query into a lost worker. */
export function portableRecord(error: KeelsonError): ErrorRecord {
  const { code, message, outcome } = error;
  const details: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(error.details)) {
    if (value === null || typeof value !== 'object') {
      if (typeof value !== 'function' && typeof value !== 'symbol') details[name] = value;
    }
  }
  return { code, message, outcome, leader: error.leader, details };
}
