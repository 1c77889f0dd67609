import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
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
