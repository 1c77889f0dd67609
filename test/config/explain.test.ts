import { describe, expect, test } from 'vitest';
import { explainMemory } from '../../dist/config/explain.js';
import { resolveConfig } from '../../dist/config/resolve.js';
import { describeConfig } from '../../dist/config/schema.js';
import type { Config } from '../../dist/config/types.js';
import { walMemoryBytes } from '../../dist/storage/wal-memory.js';

const config = resolveConfig();

/** Sizes that take no memory of their own, and what they are a part of. */
const PARTS: Readonly<Record<string, string>> = {
  'raft.maxAppendBytes': 'raft.maxInflightBytes',
  'storage.segmentBytes': 'a file',
  'snapshot.everyBytes': 'the log',
  'snapshot.maxBytesPerSecond': 'a rate',
  'storage.maxBatchBytes': 'storage.ringBytes',
  'limits.maxEntryBytes': 'limits.maxPendingBytes',
  'http.maxKeyBytes': 'http.maxHeaderBytes',
};

function withDoubled(field: string): Config {
  const [section, name] = field.split('.') as [keyof Config, string];
  const fields = config[section] as unknown as Record<string, number>;
  return { ...config, [section]: { ...fields, [name]: fields[name]! * 2 } };
}

describe('what the bounded memory of a node adds up to', () => {
  const { items, totalBytes } = explainMemory(config);
  const sizes = describeConfig().filter(({ unit }) => unit === 'bytes');

  test.each(sizes)('$field counts, or is a part of what counts', ({ field }) => {
    const grown = explainMemory(withDoubled(field)).totalBytes - totalBytes;
    if (field in PARTS) expect(grown).toBe(0);
    else expect(grown).toBeGreaterThan(0);
  });

  test('is the sum of its items, each told as a formula of fields that are there', () => {
    expect(items.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(totalBytes);
    const fields = describeConfig().map(({ field }) => field);
    for (const { formula } of items) {
      for (const [field] of formula.matchAll(/[a-zA-Z]+\.\w+/g)) expect(fields).toContain(field);
    }
  });

  test.each([
    [1, 1],
    [16, 1],
    [16, 4],
  ])('covers the shared memory of the log, with %i queued batches, %i lanes', (batches, lanes) => {
    const queued = resolveConfig({ storage: { maxQueuedBatches: batches, lanes } });
    const ofLog = explainMemory(queued).items.filter(
      ({ name, formula }) => formula.startsWith('storage.') || /log|segments$/.test(name),
    );
    const told = ofLog.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(walMemoryBytes(queued.storage)).toBeLessThanOrEqual(told);
    expect(walMemoryBytes(queued.storage)).toBeGreaterThan(told - 4 * 1024 * 1024);
  });

  test('grows with each peer, and not for a node alone', () => {
    const alone = explainMemory(config, 0);
    const ofPeers = alone.items.filter(({ formula }) => formula.includes('peers'));
    expect(ofPeers.map(({ bytes }) => bytes)).toEqual(ofPeers.map(() => 0));
    const perPeer = explainMemory(config, 1).totalBytes - alone.totalBytes;
    expect(explainMemory(config, 6).totalBytes).toBe(alone.totalBytes + 6 * perPeer);
  });
});
