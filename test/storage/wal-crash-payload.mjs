// What the crash test and the process that it kills agree on.
export const CRASH_OPTIONS = {
  segmentBytes: 1024 * 1024,
  ringBytes: 1024 * 1024,
  maxBatchBytes: 256 * 1024,
  maxBatchEntries: 4096,
  maxQueuedBatches: 2,
  lingerMicros: 0,
  recovery: 'torn-tail',
  directIo: 'auto',
};

/** The payload of an entry tells its index, and its length and bytes depend on it. */
export function crashPayload(index) {
  return new TextEncoder().encode(`${index} ${'abcdefgh'.repeat((index * 7919) % 60)}`);
}
