/**
 * What a command may hold when msgpack encodes it. A value that the encoder would take and the decoder
 * refuse is worse than an error: it would stand in the log, and stop every node at every start. One
 * that arrives as other data than it was is no better.
 */

/** @throws TypeError names the value that msgpack cannot carry */
export function checkPlainData(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) checkPlainData(value[at]);
    return;
  }
  if (ArrayBuffer.isView(value)) {
    if (value instanceof Uint8Array) return;
    throw new TypeError(`of binary data only Uint8Array passes, not ${value.constructor.name}`);
  }
  if (value instanceof Map) {
    for (const [key, item] of value) {
      if (typeof key === 'object' && key !== null) {
        throw new TypeError('the keys of a Map are text or numbers, not objects');
      }
      checkPlainData(item);
    }
    return;
  }
  if (value instanceof Set) {
    for (const item of value) checkPlainData(item);
    return;
  }
  for (const key in value) checkPlainData((value as Record<string, unknown>)[key]);
}
