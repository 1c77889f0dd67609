import { Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ErrorCode, KeelsonError, type Outcome } from '../../dist/base/errors.js';
import { Harness } from './harness.js';

let harness: Harness;
beforeEach(async () => {
  harness = await Harness.open();
});
afterEach(() => harness.close());

describe('errors of the node', () => {
  it.each<[ErrorCode, Outcome, number, string | undefined]>([
    ['KEELSON_INVALID_ARGUMENT', 'rejected', 400, undefined],
    ['KEELSON_ENTRY_TOO_LARGE', 'rejected', 413, undefined],
    ['KEELSON_OVERLOADED', 'rejected', 429, '1'],
    ['KEELSON_NO_LEADER', 'rejected', 503, '1'],
    ['KEELSON_NOT_LEADER', 'rejected', 503, '1'],
    ['KEELSON_TIMEOUT', 'rejected', 503, '1'],
    ['KEELSON_TIMEOUT', 'unknown', 504, undefined],
    ['KEELSON_LEADERSHIP_LOST', 'unknown', 504, undefined],
    ['KEELSON_STORAGE_FAILED', 'unknown', 504, undefined],
    ['KEELSON_STORAGE_FAILED', 'rejected', 503, '1'],
    ['KEELSON_CLOSED', 'rejected', 503, '1'],
    ['KEELSON_STORAGE_FULL', 'rejected', 507, undefined],
  ])('%s with outcome %s is answered %i', async (code, outcome, status, retryAfter) => {
    harness.raft.failure = new KeelsonError(code, 'what happened', { outcome });
    const answer = await harness.send('PUT', '/v1/kv/a', 'x');
    expect(answer.status).toBe(status);
    expect(answer.json).toEqual({ error: { code, message: 'what happened', outcome } });
    expect(answer.headers['retry-after']).toBe(retryAfter);
  });

  it('an unexpected error is logged, not told, and leaves a write open', async () => {
    await harness.close();
    const error = vi.fn();
    const logger = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error };
    harness = await Harness.open({ logger });
    harness.raft.failure = new TypeError('secret');
    const write = await harness.send('PUT', '/v1/kv/a', 'x');
    expect([write.status, write.json.error.code]).toEqual([500, 'KEELSON_INTERNAL']);
    expect(write.json.error.outcome).toBe('unknown');
    expect(write.bytes.toString()).not.toMatch(/secret/);
    expect(error.mock.calls[0]?.[0]).toMatchObject({ event: 'http.failed', path: '/v1/kv/a' });
    expect((await harness.send('GET', '/v1/kv/a')).json.error.outcome).toBe('rejected');
  });
});

it('an error of the socket that listens is logged, and the server goes on', async () => {
  await harness.close();
  const error = vi.fn();
  const listen = vi.spyOn(Server.prototype, 'listen');
  harness = await Harness.open({ logger: { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error } });
  const server = listen.mock.contexts[0] as Server;
  listen.mockRestore();
  const err = Object.assign(new Error('too many open files'), { code: 'EMFILE' });
  server.emit('error', err);
  expect(error.mock.calls).toEqual([[{ event: 'http.accept-failed', err }, expect.any(String)]]);
  expect((await harness.send('GET', '/livez')).status).toBe(200);
});

describe('every answer', () => {
  it.each([
    ['PUT', '/v1/kv/a', 200],
    ['GET', '/v1/kv/none', 404],
    ['GET', '/v1/kv', 200],
    ['GET', '/v1/status', 200],
    ['GET', '/livez', 200],
    ['GET', '/readyz', 200],
    ['GET', '/nowhere', 404],
    ['POST', '/v1/kv/a', 405],
    ['GET', '/v1/kv/%', 400],
  ])('%s %s (%i) tells leader, term and index', async (method, path, status) => {
    const answer = await harness.send(method, path, method === 'PUT' ? 'x' : undefined);
    expect(answer.status).toBe(status);
    expect(answer.headers).toMatchObject({
      'keelson-leader': '1',
      'keelson-term': '7',
      'keelson-index': method === 'PUT' ? '41' : '40',
    });
  });

  it('tells leader 0 when none is known', async () => {
    harness.raft.patch({ state: 'follower', leader: undefined });
    expect((await harness.send('GET', '/livez')).headers['keelson-leader']).toBe('0');
  });

  it('tells the log index of a write even where it is not applied yet', async () => {
    const { raft } = harness;
    const write = raft.write.bind(raft);
    raft.write = async (command, options) => {
      const result = await write(command, options);
      raft.patch({ appliedIndex: 12 });
      return result;
    };
    expect((await harness.send('PUT', '/v1/kv/a', 'x')).headers['keelson-index']).toBe('41');
  });
});

describe('routes', () => {
  it.each([
    ['POST', '/v1/kv/a', 'PUT, GET, HEAD, DELETE'],
    ['PATCH', '/v1/kv/a', 'PUT, GET, HEAD, DELETE'],
    ['DELETE', '/v1/kv', 'GET, HEAD'],
    ['PUT', '/v1/status', 'GET, HEAD'],
    ['POST', '/livez', 'GET, HEAD'],
  ])('%s %s is answered 405 and told what is allowed', async (method, path, allow) => {
    const answer = await harness.send(method, path);
    expect([answer.status, answer.headers.allow]).toEqual([405, allow]);
    expect(answer.json.error.code).toBe('KEELSON_METHOD_NOT_ALLOWED');
  });

  it.each(['/', '/v1', '/v1/kvx', '/v1/Status', '/livez/', '/metrics'])(
    '%s is answered 404',
    async (path) => {
      const answer = await harness.send('GET', path);
      expect([answer.status, answer.json.error.code]).toEqual([404, 'KEELSON_ROUTE_NOT_FOUND']);
    },
  );
});

const DAMAGE = {
  group: 0,
  ranges: [
    { firstIndex: 3, lastIndex: 5 },
    { firstIndex: 9, lastIndex: undefined },
  ],
  voteInDoubt: true,
  error: new KeelsonError('KEELSON_STORAGE_CORRUPT', 'lost in a file'),
};

describe('GET /v1/status', () => {
  it('tells what is lost of the log, null for what nobody knows', async () => {
    expect((await harness.send('GET', '/v1/status')).json.damage).toBeNull();
    harness.raft.patch({ state: 'damaged', damage: DAMAGE });
    const { json } = await harness.send('GET', '/v1/status');
    expect(json).toMatchObject({ state: 'damaged', failure: null });
    expect(json.damage).toEqual({
      group: 0,
      ranges: [
        { firstIndex: 3, lastIndex: 5 },
        { firstIndex: 9, lastIndex: null },
      ],
      voteInDoubt: true,
      error: { code: 'KEELSON_STORAGE_CORRUPT', message: 'lost in a file' },
    });
  });

  it('tells what the node knows', async () => {
    const { json } = await harness.send('GET', '/v1/status');
    expect(json).toMatchObject({
      nodeId: 1,
      state: 'leader',
      term: 7,
      leader: 1,
      leaderAddress: '127.0.0.1:7001',
      lastLogIndex: 40,
      committedIndex: 40,
      appliedIndex: 40,
      voters: [1, 2, 3],
      failure: null,
    });
  });

  it('says null for a leader that is not known, and why a node has stopped', async () => {
    const failure = new KeelsonError('KEELSON_STORAGE_FAILED', 'fdatasync failed');
    harness.raft.patch({ state: 'stopped', leader: undefined, leaderAddress: undefined, failure });
    expect((await harness.send('GET', '/v1/status')).json).toMatchObject({
      state: 'stopped',
      leader: null,
      leaderAddress: null,
      failure: { code: 'KEELSON_STORAGE_FAILED', message: 'fdatasync failed' },
    });
  });
});

describe('probes', () => {
  it('/livez and /healthz answer whatever the state of the cluster, and ask nobody', async () => {
    harness.raft.patch({ state: 'candidate', leader: undefined });
    harness.raft.failure = new KeelsonError('KEELSON_NO_LEADER', 'no quorum');
    for (const path of ['/livez', '/healthz']) {
      const answer = await harness.send('GET', path);
      expect([answer.status, answer.json]).toEqual([200, { live: true }]);
    }
    expect(harness.raft.calls).toEqual([]);
  });

  it('/readyz is 200 on a node that follows and has caught up', async () => {
    harness.raft.patch({ state: 'follower', leader: 2 });
    expect((await harness.send('GET', '/readyz')).json).toEqual({ ready: true });
    const verbose = await harness.send('GET', '/readyz?verbose');
    expect(verbose.json.checks.map((check: { name: string }) => check.name)).toEqual([
      'running',
      'log',
      'leader',
      'applied',
    ]);
  });

  it.each([
    ['no leader', { leader: undefined }, 'leader'],
    ['stopped', { state: 'stopped' as const }, 'running'],
    ['damaged', { damage: DAMAGE }, 'log'],
    ['far behind', { committedIndex: 20_000, appliedIndex: 40 }, 'applied'],
  ])('/readyz is 503 when %s, and says which check failed', async (_, change, name) => {
    harness.raft.patch(change);
    const plain = await harness.send('GET', '/readyz');
    expect([plain.status, plain.headers['retry-after']]).toEqual([503, '1']);
    expect(plain.json.error.code).toBe('KEELSON_NOT_READY');
    const verbose = await harness.send('GET', '/readyz?verbose');
    const failed = verbose.json.error.checks.filter((check: { ok: boolean }) => !check.ok);
    expect(failed.map((check: { name: string }) => check.name)).toEqual([name]);
    expect(harness.raft.calls).toEqual([]);
  });
});
