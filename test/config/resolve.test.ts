import { describe, expect, test } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { resolveConfig } from '../../dist/config/resolve.js';
import { describeConfig } from '../../dist/config/schema.js';

function violationsOf(input: unknown): { field: string; message: string }[] {
  try {
    resolveConfig(input as never);
  } catch (error) {
    expect(error).toBeInstanceOf(KeelsonError);
    const { code, details, message } = error as KeelsonError;
    expect(code).toBe('KEELSON_INVALID_CONFIG');
    const violations = details.violations as { field: string; message: string }[];
    for (const { field } of violations) expect(message).toContain(field);
    return violations;
  }
  return [];
}

const fieldsOf = (input: unknown) => violationsOf(input).map(({ field }) => field);

describe('resolveConfig', () => {
  test('the defaults fit one another, and are those that the description states', () => {
    const config = resolveConfig() as unknown as Record<string, Record<string, unknown>>;
    for (const { field, default: initial } of describeConfig()) {
      const [section, name] = field.split('.') as [string, string];
      expect(config[section]![name], field).toBe(initial);
    }
    const fields = Object.entries(config).flatMap(([section, values]) =>
      Object.keys(values).map((name) => `${section}.${name}`),
    );
    expect(describeConfig().map(({ field }) => field)).toEqual(fields);
  });

  test('every field has a sentence and, if it is a number, a range that holds its default', () => {
    for (const { field, type, default: initial, min, max, choices, about } of describeConfig()) {
      expect(about, field).toMatch(/^[A-Z].*\.$/);
      if (type === 'integer') {
        expect(initial, field).toBeGreaterThanOrEqual(min!);
        expect(initial, field).toBeLessThanOrEqual(max!);
      }
      if (type === 'choice') expect(choices, field).toContain(initial);
    }
  });

  test('given values replace defaults, and undefined does not', () => {
    const config = resolveConfig({
      raft: { electionTimeoutMs: 2000, preVote: undefined },
      storage: undefined,
    });
    expect(config.raft.electionTimeoutMs).toBe(2000);
    expect(config.raft.preVote).toBe(true);
    expect(config.storage.segmentBytes).toBe(64 * 1024 * 1024);
  });

  test('the result is frozen and shares nothing with the input', () => {
    const input = { raft: { electionTimeoutMs: 2000 } };
    const config = resolveConfig(input);
    expect(Object.isFrozen(config)).toBe(true);
    for (const section of Object.values(config)) expect(Object.isFrozen(section)).toBe(true);
    input.raft.electionTimeoutMs = 3000;
    expect(config.raft.electionTimeoutMs).toBe(2000);
  });

  test('values out of range, of a wrong type, and unknown keys are all reported at once', () => {
    expect(
      fieldsOf({
        raft: { electionTimeoutMs: 10, preVote: 'yes', electionTimeout: 5 },
        storage: { recovery: 'hope', segmentBytes: 1.5 },
        network: 7,
        extra: {},
      }).sort(),
    ).toEqual(
      [
        'raft.electionTimeoutMs',
        'raft.preVote',
        'raft.electionTimeout',
        'storage.recovery',
        'storage.segmentBytes',
        'network',
        'extra',
      ].sort(),
    );
  });

  test('every field refuses values one beyond its range', () => {
    for (const { field, type, min, max } of describeConfig()) {
      if (type !== 'integer') continue;
      const [section, name] = field.split('.') as [string, string];
      expect(fieldsOf({ [section]: { [name]: min! - 1 } }), field).toContain(field);
      expect(fieldsOf({ [section]: { [name]: max! + 1 } }), field).toContain(field);
    }
  });

  test.each([
    ['raft.heartbeatIntervalMs', { raft: { heartbeatIntervalMs: 334 } }],
    ['limits.maxEntryBytes', { limits: { maxEntryBytes: 8 * 1024 * 1024 } }],
    ['raft.maxAppendBytes', { raft: { maxAppendBytes: 8 * 1024 * 1024 } }],
    ['network.maxFrameBytes', { storage: { ringBytes: 32 * 1024 * 1024 - 1 } }],
    ['network.maxFrameBytes', { storage: { segmentBytes: 32 * 1024 * 1024 - 1 } }],
    ['storage.maxBatchBytes', { storage: { maxBatchBytes: 16 * 1024 * 1024 + 1 } }],
    ['raft.maxInflightBytes', { raft: { maxInflightBytes: 32 * 1024 * 1024 + 1 } }],
    ['raft.maxAppendBytes', { raft: { maxInflightBytes: 1024 * 1024 - 1 } }],
    ['storage.maxBatchEntries', { raft: { maxUncommittedEntries: 65_535 } }],
    ['network.maxFrameBytes', { network: { maxQueuedBytes: 8 * 1024 * 1024 - 1 } }],
    ['storage.maxIndexBytes', { storage: { lanes: 3, maxIndexBytes: 3 * 1024 * 1024 - 1 } }],
    ['limits.maxEntryBytes', { limits: { maxPendingBytes: 1024 * 1024 - 1 } }],
    ['snapshot.chunkBytes', { snapshot: { maxInflightBytes: 256 * 1024 - 1 } }],
    ['snapshot.chunkBytes', { network: { maxFrameBytes: 256 * 1024 } }],
    ['network.reconnectMinMs', { network: { reconnectMinMs: 2001 } }],
    ['limits.maxEntryBytes', { http: { maxBufferedBodyBytes: 1024 * 1024 - 1 } }],
    ['http.maxKeyBytes', { http: { maxHeaderBytes: 4096, maxKeyBytes: 1025 } }],
    ['http.headersTimeoutMs', { http: { requestTimeoutMs: 9_999 } }],
  ])('fields must fit one another: %s in %j', (field, input) => {
    expect(fieldsOf(input)).toContain(field);
  });

  test('shared memory must end below 4 GiB', () => {
    const GIB = 1024 ** 3;
    expect(fieldsOf({ storage: { ringBytes: 2 * GIB, maxIndexBytes: GIB } })).toEqual([]);
    expect(fieldsOf({ storage: { ringBytes: 2 * GIB, maxIndexBytes: 2 * GIB } })).toEqual([
      'storage.ringBytes',
    ]);
    // The largest entry has to be read back from a segment, beside all that.
    const all = { ringBytes: 2 * GIB, maxIndexBytes: 1.75 * GIB };
    expect(fieldsOf({ storage: { ...all, segmentBytes: 64 * 1024 * 1024 } })).toEqual([]);
    expect(fieldsOf({ storage: { ...all, segmentBytes: GIB } })).toEqual(['storage.ringBytes']);
    // Each lane has its own ring and its own room to read.
    const ofLane = { ringBytes: 0.5 * GIB, segmentBytes: GIB, maxIndexBytes: GIB };
    expect(fieldsOf({ storage: { ...ofLane, lanes: 4 } })).toEqual([]);
    expect(fieldsOf({ storage: { ...ofLane, ringBytes: 0.75 * GIB, lanes: 3 } })).toEqual([]);
    const larger = { ...ofLane, ringBytes: 0.75 * GIB, maxIndexBytes: 0.75 * GIB };
    expect(fieldsOf({ storage: { ...larger, lanes: 4 } })).toEqual(['storage.ringBytes']);
  });

  test('a rule says nothing when one of its fields is invalid by itself', () => {
    expect(fieldsOf({ raft: { electionTimeoutMs: 1 } })).toEqual(['raft.electionTimeoutMs']);
  });

  test('a violation of a rule is reported beside violations of fields', () => {
    expect(
      fieldsOf({ raft: { heartbeatIntervalMs: 900 }, limits: { callTimeoutMs: -1 } }).sort(),
    ).toEqual(['limits.callTimeoutMs', 'raft.heartbeatIntervalMs']);
  });
});
