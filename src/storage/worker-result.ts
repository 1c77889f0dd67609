/** What a storage thread has answered, or that it died. */
import { fromErrorRecord, KeelsonError } from '../base/errors.js';
import type { WorkerAnswer } from './storage-worker.js';

/** @throws KeelsonError as it was thrown in the thread. */
export function resultOf(answer: WorkerAnswer): unknown {
  if (!answer.ok) throw fromErrorRecord(answer.error);
  return answer.value;
}

export function threadDied(error: unknown): KeelsonError {
  const reason = error instanceof Error ? error.message : String(error);
  return new KeelsonError(
    'KEELSON_STORAGE_FAILED',
    `A storage thread died: ${reason}. What it was writing may or may not be durable; nothing more ` +
      'is acknowledged. Open the store again.',
    { outcome: 'unknown', cause: error },
  );
}
