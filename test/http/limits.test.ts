import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createHttpHandler } from '../../dist/http/index.js';
import { Harness } from './harness.js';

let harness: Harness;
afterEach(() => harness.close());

function closedGate(raft: Harness['raft']): () => void {
  let open = (): void => {};
  raft.gate = new Promise((resolve) => {
    open = resolve;
  });
  return open;
}

describe('limits', () => {
  it('more requests at a time than allowed are refused with 429; probes still answer', async () => {
    harness = await Harness.open({ maxConcurrentRequests: 2 });
    const open = closedGate(harness.raft);
    const served = [harness.send('GET', '/v1/kv/a'), harness.send('PUT', '/v1/kv/a', 'x')];
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(2));
    const refused = await harness.send('PUT', '/v1/kv/b', 'x');
    expect([refused.status, refused.headers['retry-after']]).toEqual([429, '1']);
    expect(refused.json.error).toMatchObject({ code: 'KEELSON_OVERLOADED', outcome: 'rejected' });
    expect((await harness.send('GET', '/livez')).status).toBe(200);
    expect((await harness.send('GET', '/v1/status')).status).toBe(200);
    open();
    expect((await Promise.all(served)).map((answer) => answer.status)).toEqual([404, 200]);
    expect((await harness.send('PUT', '/v1/kv/b', 'x')).status).toBe(200);
  });

  it('bodies held at one time are bounded together, and given back', async () => {
    harness = await Harness.open({ maxBodyBytes: 600, maxBufferedBodyBytes: 1_000 });
    const open = closedGate(harness.raft);
    const served = harness.send('PUT', '/v1/kv/a', Buffer.alloc(600));
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(1));
    expect((await harness.send('PUT', '/v1/kv/b', Buffer.alloc(600))).status).toBe(429);
    open();
    expect((await served).status).toBe(200);
    for (let repeat = 0; repeat < 5; repeat += 1) {
      expect((await harness.send('PUT', '/v1/kv/b', Buffer.alloc(600))).status).toBe(200);
    }
  });

  it('a client that goes away aborts its wait', async () => {
    harness = await Harness.open();
    const open = closedGate(harness.raft);
    const { port } = harness;
    const client = request({ host: '127.0.0.1', port, method: 'PUT', path: '/v1/kv/a' });
    client.on('error', () => {});
    client.end('x');
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(1));
    const signal = harness.raft.calls[0]?.signal;
    expect(signal?.aborted).toBe(false);
    client.destroy();
    await vi.waitFor(() => expect(signal?.aborted).toBe(true));
    open();
  });

  it('an answered request does not abort', async () => {
    harness = await Harness.open();
    await harness.send('PUT', '/v1/kv/a', 'x');
    expect(harness.raft.calls[0]?.signal?.aborted).toBe(false);
  });

  it('a client that stops in the middle of its body changes nothing and leaks no budget', async () => {
    harness = await Harness.open({ maxBodyBytes: 1_000, maxBufferedBodyBytes: 1_000 });
    const { port } = harness;
    const headers = { 'content-length': '1000' };
    const client = request({ host: '127.0.0.1', port, method: 'PUT', path: '/v1/kv/a', headers });
    client.on('error', () => {});
    client.write(Buffer.alloc(900));
    await vi.waitFor(async () => {
      expect((await harness.send('PUT', '/v1/kv/b', Buffer.alloc(1_000))).status).toBe(429);
    });
    client.destroy();
    await vi.waitFor(async () => {
      expect((await harness.send('PUT', '/v1/kv/b', Buffer.alloc(1_000))).status).toBe(200);
    });
    expect(harness.raft.writes.every((command) => command.key === 'b')).toBe(true);
  });
});

describe('limits of what clients hold open', () => {
  it('answers that clients do not take are bounded together, and writes are answered all the same', async () => {
    const value = Buffer.alloc(24 * 1024 * 1024);
    harness = await Harness.open({ maxBufferedAnswerBytes: value.length + 100 });
    harness.raft.pairs.set('large', { value, version: 1 });
    harness.raft.pairs.set('small', { value: value.subarray(0, 200), version: 1 });
    const slow = request({ host: '127.0.0.1', port: harness.port, path: '/v1/kv/large' });
    slow.end();
    const [response] = await once(slow, 'response');
    const refused = await harness.send('GET', '/v1/kv/small');
    expect([refused.status, refused.headers['retry-after']]).toEqual([429, '1']);
    expect(refused.json.error).toMatchObject({ code: 'KEELSON_OVERLOADED', outcome: 'rejected' });
    expect((await harness.send('GET', '/v1/kv?prefix=s')).status).toBe(429);
    expect((await harness.send('PUT', '/v1/kv/small', 'x')).status).toBe(200);
    response.resume();
    await once(response, 'end');
    await vi.waitFor(async () => {
      expect((await harness.send('GET', '/v1/kv/large')).status).toBe(200);
    });
  });

  it('an answer whose client has gone is held no longer', async () => {
    const value = Buffer.alloc(24 * 1024 * 1024);
    harness = await Harness.open({ maxBufferedAnswerBytes: value.length });
    harness.raft.pairs.set('large', { value, version: 1 });
    const open = closedGate(harness.raft);
    const gone = request({ host: '127.0.0.1', port: harness.port, path: '/v1/kv/large' });
    gone.on('error', () => {});
    gone.end();
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(1));
    gone.destroy();
    await vi.waitFor(() => expect(harness.raft.calls[0]?.signal?.aborted).toBe(true));
    open();
    await vi.waitFor(async () => {
      expect((await harness.send('GET', '/v1/kv/large')).status).toBe(200);
    });
  });

  it('a request that comes too slowly is answered 408', async () => {
    harness = await Harness.open({ headersTimeoutMs: 1_000, requestTimeoutMs: 1_000 });
    expect(await harness.raw('GET /livez HTTP/1.1\r\nhost: x\r\n')).toMatch(/^HTTP\/1.1 408 /);
  }, 20_000);

  it('headers beyond the limit are answered 431', async () => {
    harness = await Harness.open({ maxHeaderBytes: 4_096 });
    const answer = await harness.raw(
      `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(5_000)}\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1.1 431 /);
  });

  it('connections beyond the limit are closed', async () => {
    harness = await Harness.open({ maxConnections: 1 });
    const first = connect(harness.port, '127.0.0.1');
    await once(first, 'connect');
    const second = connect(harness.port, '127.0.0.1');
    await once(second, 'close');
    first.destroy();
    await vi.waitFor(async () => expect((await harness.send('GET', '/livez')).status).toBe(200));
  });

  it('idle connections are closed after their time', async () => {
    harness = await Harness.open({ keepAliveTimeoutMs: 1 });
    const answer = await harness.raw('GET /livez HTTP/1.1\r\nhost: x\r\n\r\n');
    expect(answer).toContain('{"live":true}');
  });

  it.each([{ maxKeyBytes: 0 }, { maxConnections: 1.5 }, { maxKeyLength: 10 } as object])(
    '%j is refused before anything is bound',
    (options) => {
      expect(() => createHttpHandler(harness.raft, options)).toThrowError(
        expect.objectContaining({ code: 'KEELSON_INVALID_CONFIG' }),
      );
    },
  );
});

describe('close', () => {
  it('answers what is in flight, refuses what is new', async () => {
    harness = await Harness.open();
    const open = closedGate(harness.raft);
    const served = harness.send('PUT', '/v1/kv/a', 'x');
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(1));
    const closed = harness.server.close(new AbortController().signal);
    await expect(harness.send('GET', '/livez')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    open();
    const answer = await served;
    expect([answer.status, answer.headers.connection]).toEqual([200, 'close']);
    await closed;
  });

  it('does not wait for connections that ask nothing', async () => {
    harness = await Harness.open();
    const open = closedGate(harness.raft);
    const silent = connect(harness.port, '127.0.0.1');
    await once(silent, 'connect');
    const served = harness.send('PUT', '/v1/kv/a', 'x');
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(1));
    const closed = harness.server.close(new AbortController().signal);
    open();
    expect((await served).status).toBe(200);
    await closed;
    silent.destroy();
  });

  it('cuts what is still open when its time is up', async () => {
    harness = await Harness.open();
    const open = closedGate(harness.raft);
    const served = harness.send('PUT', '/v1/kv/a', 'x').catch((error: Error) => error);
    await vi.waitFor(() => expect(harness.raft.calls.length).toBe(1));
    const timeUp = new AbortController();
    const closed = harness.server.close(timeUp.signal);
    timeUp.abort();
    await closed;
    expect(await served).toBeInstanceOf(Error);
    open();
  });
});
