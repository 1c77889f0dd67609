import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { KeelsonError } from '../../dist/base/errors.js';
import { explainMemory } from '../../dist/config/explain.js';
import { configurationTables, formatBytes } from '../../dist/config/format.js';
import { environmentName, flagName, loadConfig } from '../../dist/config/load-config.js';
import { resolveConfig } from '../../dist/config/resolve.js';
import { describeConfig } from '../../dist/config/schema.js';

const directory = mkdtempSync(join(tmpdir(), 'keelson-config-'));
afterAll(() => rmSync(directory, { recursive: true }));

let files = 0;
function fileWith(content: unknown): string {
  const file = join(directory, `${++files}.json`);
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

function failureOf(run: () => unknown): KeelsonError {
  try {
    run();
  } catch (error) {
    return error as KeelsonError;
  }
  throw new Error('it did not fail');
}

const fieldsOf = (failure: KeelsonError) =>
  (failure.details.violations as { field: string }[]).map(({ field }) => field).sort();

describe('loadConfig', () => {
  test('without sources gives the defaults', () => {
    expect(loadConfig()).toEqual(resolveConfig());
  });

  test('a flag wins over the environment, that over the file, and the file over the default', () => {
    const file = fileWith({
      raft: { electionTimeoutMs: 2000, heartbeatIntervalMs: 200, maxInflightMessages: 7 },
    });
    const environment = {
      KEELSON_RAFT_ELECTION_TIMEOUT_MS: '3000',
      KEELSON_RAFT_HEARTBEAT_INTERVAL_MS: '300',
      KEELSON_STATE_MACHINE_APPLY_SLICE_MS: '3',
    };
    const flags = { 'raft-election-timeout-ms': '4000' };
    const { raft, stateMachine } = loadConfig({ file, environment, flags });
    expect(raft.electionTimeoutMs).toBe(4000);
    expect(raft.heartbeatIntervalMs).toBe(300);
    expect(raft.maxInflightMessages).toBe(7);
    expect(raft.maxInflightBytes).toBe(16 * 1024 * 1024);
    expect(stateMachine.applySliceMs).toBe(3);
  });

  test('every field can be given by variable and by flag', () => {
    for (const { field, default: initial } of describeConfig()) {
      const [section, name] = field.split('.') as [string, string];
      for (const config of [
        loadConfig({ environment: { [environmentName(field)]: String(initial) } }),
        loadConfig({ flags: { [flagName(field)]: String(initial) } }),
      ]) {
        const sections = config as unknown as Record<string, Record<string, unknown>>;
        expect(sections[section]![name], field).toBe(initial);
      }
      const bad = failureOf(() => loadConfig({ environment: { [environmentName(field)]: '?' } }));
      expect(fieldsOf(bad)).toEqual([field]);
    }
  });

  test('violations of all sources are reported at once', () => {
    const file = fileWith({ raft: { electionTimeout: 1 }, storage: { lanes: 5 }, network: 7 });
    const environment = {
      KEELSON_RAFT_ELECTION_TIMEOUT: '3000',
      KEELSON_LIMITS_CALL_TIMEOUT_MS: 'soon',
      KEELSON_NETWORK_MAX_REQUESTS: '8',
      KEELSON_DATA_DIR: '/data',
      HOME: '/root',
    };
    const failure = failureOf(() => loadConfig({ file, environment, flags: { fast: 'true' } }));
    expect(failure.code).toBe('KEELSON_INVALID_CONFIG');
    expect(fieldsOf(failure)).toEqual(
      [
        'raft.electionTimeout',
        'storage.lanes',
        'network',
        'KEELSON_RAFT_ELECTION_TIMEOUT',
        'limits.callTimeoutMs',
        '--fast',
      ].sort(),
    );
  });

  test('a file that is missing, not JSON or no object is named', () => {
    const missing = join(directory, 'missing.json');
    const failure = failureOf(() => loadConfig({ file: missing }));
    expect(failure.code).toBe('KEELSON_MISSING_FILE');
    expect(failure.message).toContain(missing);
    expect(failure.details).toEqual({ file: missing });
    for (const content of ['{', '[]', 'null', '7']) {
      const file = fileWith(content);
      const bad = failureOf(() => loadConfig({ file }));
      expect(bad.code).toBe('KEELSON_INVALID_CONFIG');
      expect(bad.message).toContain(file);
    }
  });

  test('keys that reach for the prototype are unknown fields', () => {
    const file = fileWith(
      '{"__proto__": {"polluted": 1}, "raft": {"__proto__": {"preVote": false}}}',
    );
    const failure = failureOf(() => loadConfig({ file, flags: { 'raft-check-quorum': 'false' } }));
    expect(fieldsOf(failure)).toEqual(['__proto__', 'raft.__proto__']);
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });
});

test('docs/configuration.md holds the tables of the schema', () => {
  const page = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8');
  // The formatter pads the cells of tables.
  const plain = (text: string) => text.replace(/ *\| */g, '|').replace(/-{3,}/g, '---');
  expect(plain(page.slice(page.indexOf('## `raft`')))).toBe(plain(configurationTables()));
});

test('the bounded memory is the sum of its items and grows with what bounds it', () => {
  const small = explainMemory(resolveConfig());
  expect(small.totalBytes).toBe(small.items.reduce((sum, { bytes }) => sum + bytes, 0));
  const MIB = 1024 * 1024;
  const large = explainMemory(resolveConfig({ storage: { ringBytes: 128 * MIB } }));
  expect(large.totalBytes - small.totalBytes).toBe(64 * MIB);
  expect(explainMemory(resolveConfig(), 4).totalBytes).toBeGreaterThan(small.totalBytes);
});

test.each([
  [0, '0 B'],
  [1000, '1000 B'],
  [4096, '4 KiB'],
  [64 * 1024 * 1024, '64 MiB'],
  [2 * 1024 ** 3, '2 GiB'],
])('%d bytes are shown as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
