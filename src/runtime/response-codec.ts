import { Packr } from 'msgpackr';
import { KeelsonError } from '../base/errors.js';
import type { LogIndex } from '../engine/types.js';

/**
 * The state machine's response to a forwarded write, on its way from the leader to the node that was
 * asked. It must arrive there as what the leader's own callers get: so a Map stays a Map, a Date a
 * Date, and binary fields are copies of their own. What is no data (classes, functions) does not pass.
 *
 * The write has happened, whatever becomes of its response: what fails here has an unknown outcome.
 */
const packr = new Packr({
  // Objects as records, each message with its own: so msgpack's maps are free for `Map`.
  useRecords: true,
  mapsAsObjects: false,
  moreTypes: true,
  copyBuffers: true,
});

/** @throws KeelsonError STATE_MACHINE_FAILED when the response cannot be encoded */
export function packResponse(response: unknown, index: LogIndex): Uint8Array {
  try {
    return packr.pack(response);
  } catch (cause) {
    throw failed('KEELSON_STATE_MACHINE_FAILED', 'encoded', index, cause);
  }
}

/** @throws KeelsonError CORRUPT_FRAME when the bytes cannot be decoded */
export function unpackResponse(payload: Uint8Array, index: LogIndex): unknown {
  if (payload.length === 0) return undefined;
  // Not as a Buffer: of that, copies would be Buffers too.
  const bytes = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  try {
    return packr.unpack(bytes);
  } catch (cause) {
    throw failed('KEELSON_CORRUPT_FRAME', 'decoded', index, cause);
  }
}

function failed(
  code: 'KEELSON_STATE_MACHINE_FAILED' | 'KEELSON_CORRUPT_FRAME',
  step: string,
  index: LogIndex,
  cause: unknown,
): KeelsonError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new KeelsonError(
    code,
    `the write is applied at index ${index}, but its response cannot be ${step}: ${reason}`,
    { outcome: 'unknown', details: { index }, cause },
  );
}
