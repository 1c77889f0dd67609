import { afterEach, describe, expect, it } from 'vitest';
import { FRAME_HEADER_BYTES } from '../../dist/network/frame.js';
import { describeNetwork } from './support/describe-network.js';
import {
  appendRequest,
  CountedEntries,
  heartbeat,
  Recorder,
  sharedBytes,
  until,
} from './support/recorder.js';
import { StallingProxy, type TestNode, tcpNode } from './support/tcp-nodes.js';

describeNetwork('tcp network', () => {
  const made: TestNode[] = [];
  return {
    create(nodeId) {
      const node = tcpNode(nodeId, { maxQueuedBytes: 1_000_000 });
      made.push(node);
      return node.network;
    },
    async close() {
      for (const { network } of made) await network.close();
    },
  };
});

describe('tcp network', () => {
  const cleanUp: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const close of cleanUp.splice(0).reverse()) await close();
  });

  /** Node 1 reaches node 2 through a proxy. */
  async function proxied(config: Parameters<typeof tcpNode>[1]) {
    const one = tcpNode(1, config);
    const two = tcpNode(2, config);
    const first = new Recorder();
    const second = new Recorder();
    const addressOne = await one.network.start(first);
    const proxy = new StallingProxy(await two.network.start(second));
    await proxy.start();
    cleanUp.push(
      () => one.network.close(),
      () => two.network.close(),
      () => proxy.close(),
    );
    one.network.setPeers(new Map([[2, proxy.address]]));
    two.network.setPeers(new Map([[1, addressOne]]));
    await until(() => first.isConnected(2) && second.isConnected(1), 'connected');
    return { one, two, first, second, proxy };
  }

  /** The pair of the proxy that carries bulk: the one over which an append arrives. */
  async function bulkPair(proxy: StallingProxy, send: () => void, received: () => boolean) {
    const before = proxy.pairs.map(({ near }) => near.bytesRead);
    send();
    await until(received, 'an append');
    const grown = proxy.pairs.map(({ near }, at) => near.bytesRead - (before[at] ?? 0));
    return grown.indexOf(Math.max(...grown));
  }

  /** Whether a listener could be bound there, and so nobody else listens. */
  async function isFree(address: string): Promise<boolean> {
    const other = tcpNode(2, {}, { listen: address });
    const bound = await other.network.start(new Recorder()).catch(() => undefined);
    await other.network.close();
    return bound === address;
  }

  it('leaves no listener behind when it is closed while it starts', async () => {
    const probe = tcpNode(1);
    const listen = await probe.network.start(new Recorder());
    await probe.network.close();
    const { network } = tcpNode(1, {}, { listen });
    const starting = network.start(new Recorder());
    const closed = network.close();
    await expect(starting).rejects.toMatchObject({ code: 'KEELSON_CLOSED', outcome: 'rejected' });
    await closed;
    expect(await isFree(listen)).toBe(true);
  });

  it('warns once for each time that a peer cannot be reached, however often it dials', async () => {
    const one = tcpNode(1);
    const two = tcpNode(2);
    cleanUp.push(() => one.network.close());
    const first = new Recorder();
    await one.network.start(first);
    const address = await two.network.start(new Recorder());
    const attempts = () => one.logger.named('peer.unreachable');
    const warnings = () => attempts().filter(({ level }) => level === 'warn');
    one.network.setPeers(new Map([[2, address]]));
    await until(() => first.isConnected(2), 'connected');
    expect(attempts()).toEqual([]);
    await two.network.close();
    await until(() => attempts().length > 20, 'dialled often');
    expect(warnings()).toMatchObject([{ fields: { peer: 2 } }]);
    expect(warnings()[0]?.message).toContain(address);
    const again = tcpNode(2, {}, { listen: address });
    await again.network.start(new Recorder());
    await until(() => first.isConnected(2), 'connected again');
    const { receivedBytes } = one.network.metrics();
    const bothPings = receivedBytes + 2 * FRAME_HEADER_BYTES;
    await until(() => one.network.metrics().receivedBytes >= bothPings, 'signs of life');
    await again.network.close();
    await until(() => warnings().length > 1, 'warned again');
  });

  it('lets control pass while the reader of bulk stalls, and holds the entries meanwhile', async () => {
    const { one, first, second, proxy } = await proxied({ maxQueuedBytes: 2_000_000 });
    const bulk = await bulkPair(
      proxy,
      () => one.network.sendAppend(2, appendRequest(), new CountedEntries(sharedBytes(50_000))),
      () => second.appends.length === 1,
    );
    proxy.stall(bulk);
    const held: CountedEntries[] = [];
    for (;;) {
      const entries = new CountedEntries(sharedBytes(500_000));
      if (!one.network.sendAppend(2, appendRequest({ session: held.length }), entries)) break;
      held.push(entries);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(one.network.metrics().queuedBytes).toBeGreaterThan(1_000_000);
    expect(held.some(({ releases }) => releases === 0)).toBe(true);
    for (let round = 1; round <= 20; round++) one.network.send(2, heartbeat(round));
    await until(() => second.messages.length === 20, 'heartbeats beside a stalled bulk connection');
    expect(second.appends.length).toBe(1);
    expect(first.events).not.toContain('writable 2');
    proxy.resume(bulk);
    await until(() => first.events.includes('writable 2'), 'writable');
    await until(() => second.appends.length === held.length + 1, 'appends');
    await until(() => held.every(({ releases }) => releases === 1), 'releases');
  });

  it('releases what the socket still holds when it is destroyed, once, and not before it is gone', async () => {
    const { one, second, first, proxy } = await proxied({ maxQueuedBytes: 64_000_000 });
    const bulk = await bulkPair(
      proxy,
      () => one.network.sendAppend(2, appendRequest(), new CountedEntries(sharedBytes(50_000))),
      () => second.appends.length === 1,
    );
    proxy.stall(bulk);
    const held = Array.from({ length: 40 }, () => new CountedEntries(sharedBytes(1_000_000)));
    for (const entries of held) one.network.sendAppend(2, appendRequest(), entries);
    await new Promise((resolve) => setImmediate(resolve));
    const before = held.map(({ releases }) => releases);
    expect(before.at(-1)).toBe(0);
    proxy.pairs[bulk]!.near.resetAndDestroy();
    await until(() => first.events.includes('disconnected 2'), 'disconnected');
    expect(held.every(({ releases }) => releases === 1)).toBe(true);
    await until(() => first.isConnected(2), 'connected again');
    await one.network.close();
    expect(held.every(({ releases }) => releases === 1)).toBe(true);
  });

  it('gives up a connection on which nothing is heard, and dials anew', async () => {
    const { one, first, second, proxy } = await proxied({ connectTimeoutMs: 100 });
    for (const at of proxy.pairs.keys()) {
      proxy.stall(at);
      proxy.pairs[at]!.far.unpipe();
    }
    await until(() => first.events.includes('disconnected 2'), 'disconnected');
    await until(() => first.isConnected(2), 'connected again');
    one.network.send(2, heartbeat(3));
    await until(() => second.messages.length === 1, 'heartbeat');
  });

  it('keeps dialling until the other node is there', async () => {
    const late = tcpNode(2);
    const recorder = new Recorder();
    const address = await late.network.start(recorder);
    await late.network.close();
    const one = tcpNode(1);
    const first = new Recorder();
    cleanUp.push(() => one.network.close());
    await one.network.start(first);
    one.network.setPeers(new Map([[2, address]]));
    await until(() => one.logger.named('peer.unreachable').length > 6, 'failed attempts');
    const pauses = one.logger.named('peer.unreachable').map(({ fields }) => fields.delayMs);
    expect(Math.max(...(pauses as number[]))).toBeGreaterThan(10);
    expect(Math.max(...(pauses as number[]))).toBeLessThanOrEqual(50);
    const two = tcpNode(2, {}, { listen: address });
    cleanUp.push(() => two.network.close());
    await two.network.start(new Recorder());
    await until(() => first.isConnected(2), 'connected');
  });

  it('refuses a command that does not fit into a frame, and says what fits', async () => {
    const { one } = await proxied({ maxFrameBytes: 10_000 });
    const call = one.network.request(2, {
      kind: 'write',
      payload: new Uint8Array(10_000),
      timeoutMs: 1_000,
    });
    await expect(call).rejects.toMatchObject({
      code: 'KEELSON_ENTRY_TOO_LARGE',
      outcome: 'rejected',
    });
    expect(() =>
      one.network.sendAppend(2, appendRequest(), new CountedEntries(sharedBytes(10_000))),
    ).toThrow(/fits into a frame/);
  });

  it('tells that a response does not fit into a frame: the write may have happened', async () => {
    const { one, second } = await proxied({ maxFrameBytes: 10_000 });
    second.answer = () => Promise.resolve({ payload: new Uint8Array(20_000), index: 1, term: 1 });
    const response = await one.network.request(2, {
      kind: 'write',
      payload: new Uint8Array(10),
      timeoutMs: 5_000,
    });
    expect(response.error).toMatchObject({ code: 'KEELSON_ENTRY_TOO_LARGE', outcome: 'unknown' });
  });

  it('bounds the requests that wait for an answer', async () => {
    const { one, second } = await proxied({ maxRequests: 3 });
    second.answer = () => new Promise(() => {});
    const request = { kind: 'write', payload: new Uint8Array(10), timeoutMs: 60_000 } as const;
    const calls = Array.from({ length: 4 }, () => one.network.request(2, request));
    await expect(calls[3]).rejects.toMatchObject({
      code: 'KEELSON_OVERLOADED',
      outcome: 'rejected',
    });
    const settled = Promise.allSettled(calls.slice(0, 3));
    await one.network.close();
    for (const { status } of await settled) expect(status).toBe('rejected');
  });

  it('rejects as not sent what was still staged when the connection was lost', async () => {
    const { one } = await proxied({});
    const request = { kind: 'write', payload: new Uint8Array(10), timeoutMs: 60_000 } as const;
    const staged = one.network.request(2, request);
    const settled = expect(staged).rejects.toMatchObject({ outcome: 'rejected' });
    one.network.setPeers(new Map());
    await settled;
  });

  it('warns of a plaintext address that others can reach, and only then', async () => {
    const open = tcpNode(1, {}, { listen: '0.0.0.0:0' });
    const closed = tcpNode(2);
    cleanUp.push(
      () => open.network.close(),
      () => closed.network.close(),
    );
    await open.network.start(new Recorder());
    await closed.network.start(new Recorder());
    expect(open.logger.named('network.plaintext').map(({ level }) => level)).toEqual(['warn']);
    expect(closed.logger.named('network.plaintext')).toEqual([]);
  });

  it('names address and remedy when the port is taken', async () => {
    const one = tcpNode(1);
    cleanUp.push(() => one.network.close());
    const address = await one.network.start(new Recorder());
    const two = tcpNode(2, {}, { listen: address });
    await expect(two.network.start(new Recorder())).rejects.toMatchObject({
      code: 'KEELSON_INVALID_CONFIG',
      message: expect.stringContaining(address),
    });
    await two.network.close();
  });

  it('refuses an address that cannot be read and changes nothing', async () => {
    const { one, first } = await proxied({});
    expect(() => one.network.setPeers(new Map([[3, 'nowhere']]))).toThrow(/host:port/);
    expect(one.network.metrics().connectedPeers).toEqual([2]);
    expect(first.isConnected(2)).toBe(true);
  });
});
