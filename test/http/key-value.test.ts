import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Harness } from './harness.js';

let harness: Harness;
beforeEach(async () => {
  harness = await Harness.open({ maxBodyBytes: 1_000, maxKeyBytes: 100, callTimeoutMs: 1_234 });
});
afterEach(() => harness.close());

describe('PUT /v1/kv/{key}', () => {
  it('stores raw bytes and tells version, log index and term', async () => {
    const value = Uint8Array.from({ length: 256 }, (_, index) => index);
    const put = await harness.send('PUT', '/v1/kv/a', value);
    expect(put.status).toBe(200);
    expect(put.json).toEqual({ version: 1, logIndex: 41, term: 7 });
    expect(put.headers['keelson-version']).toBe('1');
    const got = await harness.send('GET', '/v1/kv/a');
    expect(got.status).toBe(200);
    expect(got.headers['content-type']).toBe('application/octet-stream');
    expect(got.headers['keelson-version']).toBe('1');
    expect(got.bytes).toEqual(Buffer.from(value));
  });

  it('stores an empty value, and a body sent in chunks', async () => {
    expect((await harness.send('PUT', '/v1/kv/empty')).status).toBe(200);
    expect((await harness.send('GET', '/v1/kv/empty')).bytes.length).toBe(0);
    const chunked = await harness.send('PUT', '/v1/kv/chunked', 'abc', {
      'transfer-encoding': 'chunked',
    });
    expect(chunked.status).toBe(200);
    expect((await harness.send('GET', '/v1/kv/chunked')).bytes.toString()).toBe('abc');
  });

  it.each([
    ['/v1/kv/a%20b%2Fc', 'a b/c'],
    ['/v1/kv/a/b', 'a/b'],
    ['/v1/kv/a/../b', 'a/../b'],
    ['/v1/kv/%C3%A9%00', 'é\0'],
    ['/v1/kv/a+b', 'a+b'],
    ['/v1/kv//', '/'],
    ['http://somewhere:1/v1/kv/absolute', 'absolute'],
  ])('takes the key of %s exactly', async (path, key) => {
    expect((await harness.send('PUT', path, 'v')).status).toBe(200);
    expect([...harness.raft.pairs.keys()]).toEqual([key]);
  });

  it('compares the version, 0 meaning absent, and answers 412 with the present one', async () => {
    expect((await harness.send('PUT', '/v1/kv/a?ifVersion=0', 'one')).status).toBe(200);
    const refused = await harness.send('PUT', '/v1/kv/a?ifVersion=0', 'two');
    expect(refused.status).toBe(412);
    expect(refused.headers['keelson-version']).toBe('1');
    expect(refused.json.error).toMatchObject({
      code: 'KEELSON_VERSION_MISMATCH',
      outcome: 'rejected',
      version: 1,
    });
    expect((await harness.send('PUT', '/v1/kv/a?ifVersion=1', 'two')).json.version).toBe(2);
    const absent = await harness.send('PUT', '/v1/kv/b?ifVersion=9', 'x');
    expect([absent.status, absent.json.error.version]).toEqual([412, 0]);
  });

  it.each([
    ['declared', {}],
    ['chunked', { 'transfer-encoding': 'chunked' }],
  ])('answers 413 to a %s body over the limit, and stores the one at it', async (_, headers) => {
    const refused = await harness.send('PUT', '/v1/kv/a', Buffer.alloc(1_001), headers);
    expect(refused.status).toBe(413);
    expect(refused.json.error.code).toBe('KEELSON_BODY_TOO_LARGE');
    expect(harness.raft.writes).toEqual([]);
    expect((await harness.send('PUT', '/v1/kv/a', Buffer.alloc(1_000), headers)).status).toBe(200);
  });

  it('cuts off a client that goes on sending far beyond the limit', async () => {
    const head = 'PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n';
    const answer = await harness.raw(head + 'x'.repeat(100_000)).catch(String);
    expect(answer).toMatch(/413|ECONNRESET|EPIPE/);
  });

  it('answers 400 to what the machine itself finds invalid', async () => {
    harness.raft.invalid = 'key must be well-formed';
    const answer = await harness.send('PUT', '/v1/kv/a', 'x');
    expect([answer.status, answer.json.error.message]).toEqual([400, 'key must be well-formed']);
  });

  it('passes its time limit on', async () => {
    await harness.send('PUT', '/v1/kv/a', 'x');
    expect(harness.raft.calls[0]).toMatchObject({ timeoutMs: 1_234 });
  });
});

describe('GET and DELETE /v1/kv/{key}', () => {
  it('answers 404 for a key that does not exist', async () => {
    const got = await harness.send('GET', '/v1/kv/nothing');
    expect(got.status).toBe(404);
    expect(got.json.error).toMatchObject({ code: 'KEELSON_KEY_NOT_FOUND', outcome: 'rejected' });
  });

  it('reads linearizably unless asked otherwise', async () => {
    await harness.send('GET', '/v1/kv/a');
    await harness.send('GET', '/v1/kv/a?consistency=local');
    await harness.send('GET', '/v1/kv?consistency=local');
    const asked = harness.raft.calls.map((call) => call.consistency);
    expect(asked).toEqual(['linearizable', 'local', 'local']);
  });

  it('answers HEAD like GET, without the bytes', async () => {
    await harness.send('PUT', '/v1/kv/a', 'hello');
    const head = await harness.send('HEAD', '/v1/kv/a');
    expect([head.status, head.headers['content-length'], head.bytes.length]).toEqual([200, '5', 0]);
  });

  it('deletes, and compares the version when asked', async () => {
    await harness.send('PUT', '/v1/kv/a', 'x');
    expect((await harness.send('DELETE', '/v1/kv/a?ifVersion=5')).status).toBe(412);
    expect((await harness.send('GET', '/v1/kv/a')).status).toBe(200);
    const deleted = await harness.send('DELETE', '/v1/kv/a?ifVersion=1');
    expect(deleted.status).toBe(200);
    expect(deleted.json).toEqual({ version: 0, existed: true, logIndex: 43, term: 7 });
    expect((await harness.send('GET', '/v1/kv/a')).status).toBe(404);
    expect((await harness.send('DELETE', '/v1/kv/a')).json.existed).toBe(false);
  });
});

describe('GET /v1/kv', () => {
  it('lists in order, values in base64, with a cursor to go on', async () => {
    for (const key of ['b/2', 'a/1', 'b/1', 'b/3', 'c']) {
      await harness.send('PUT', `/v1/kv/${key}`, `value of ${key}`);
    }
    const first = await harness.send('GET', '/v1/kv?prefix=b%2F&limit=2');
    expect(first.json.entries).toEqual([
      { key: 'b/1', value: Buffer.from('value of b/1').toString('base64'), version: 1 },
      { key: 'b/2', value: Buffer.from('value of b/2').toString('base64'), version: 1 },
    ]);
    const next = encodeURIComponent(first.json.next);
    const rest = await harness.send('GET', `/v1/kv?prefix=b/&limit=2&start=${next}`);
    expect(rest.json.entries.map((entry: { key: string }) => entry.key)).toEqual(['b/3']);
    expect('next' in rest.json).toBe(false);
    const between = await harness.send('GET', '/v1/kv?start=a/2&end=b/2');
    expect(between.json.entries.map((entry: { key: string }) => entry.key)).toEqual(['b/1']);
  });
});

describe('what cannot be read exactly', () => {
  it.each([
    ['PUT', '/v1/kv/a?ifversion=1'],
    ['PUT', '/v1/kv/a?ifVersion=-1'],
    ['PUT', '/v1/kv/a?ifVersion=1.5'],
    ['PUT', '/v1/kv/a?ifVersion=1e3'],
    ['PUT', '/v1/kv/a?ifVersion='],
    ['PUT', '/v1/kv/a?ifVersion=9007199254740992'],
    ['PUT', '/v1/kv/a?ifVersion=1&ifVersion=2'],
    ['PUT', '/v1/kv/%'],
    ['PUT', '/v1/kv/%FF'],
    ['PUT', '/v1/kv/%ED%A0%80'],
    ['PUT', '/v1/kv/'],
    ['PUT', `/v1/kv/${'k'.repeat(101)}`],
    ['PUT', `/v1/kv/${'%C3%A9'.repeat(51)}`],
    ['DELETE', '/v1/kv/a?consistency=local'],
    ['GET', '/v1/kv/a?consistency=eventual'],
    ['GET', '/v1/kv/a?limit=1'],
    ['GET', '/v1/kv?limit=0'],
    ['GET', '/v1/kv?limit=1001'],
    ['GET', '/v1/kv?prefix=%zz'],
    ['GET', '/v1/status?x'],
    ['GET', '/readyz?quorum'],
  ])('%s %s is answered 400 and changes nothing', async (method, path) => {
    const answer = await harness.send(method, path, method === 'PUT' ? 'x' : undefined);
    expect(answer.status).toBe(400);
    expect(answer.json.error).toMatchObject({
      code: 'KEELSON_INVALID_ARGUMENT',
      outcome: 'rejected',
      message: expect.stringMatching(/./),
    });
    expect(harness.raft.calls).toEqual([]);
  });

  it.each([
    ['GARBAGE\r\n\r\n', 400],
    ['GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n', 400],
    [
      'PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: tea\r\ncontent-length: 1\r\n\r\nx',
      417,
    ],
    ['CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n', 405],
    ['GET / HTTP/9.9\r\n\r\n', 400],
    ['PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n', 400],
    ['PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n', 400],
    [`GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, 431],
  ])('not even HTTP: %j gets a typed answer as well', async (bytes, status) => {
    const answer = await harness.raw(bytes);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).toMatch(/keelson-leader: 1\r\nkeelson-term: 7\r\nkeelson-index: 40\r\n/);
    const { error } = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')));
    expect(error).toMatchObject({
      code: status === 405 ? 'KEELSON_METHOD_NOT_ALLOWED' : 'KEELSON_MALFORMED_REQUEST',
      outcome: 'rejected',
    });
    expect(harness.raft.writes).toEqual([]);
  });

  it.each(['GARBAGE', 'CONNECT x:1 HTTP/1.1\r\nhost: x'])(
    'not even HTTP: %j behind a write under way is not answered in place of it',
    async (bytes) => {
      let open = (): void => {};
      harness.raft.gate = new Promise((resolve) => {
        open = resolve;
      });
      const write = 'PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx';
      const answer = await harness.raw(`${write}${bytes}\r\n\r\n`).catch(String);
      expect(answer).not.toContain('HTTP/1.1');
      expect(harness.raft.calls.length).toBe(1);
      open();
    },
  );
});
