import { afterEach, describe, expect, it } from 'vitest';
import type { NodeId } from '../../dist/engine/types.js';
import { FRAME, FRAME_HEADER_BYTES } from '../../dist/network/frame.js';
import { packHello, unpackRefusal } from '../../dist/network/handshake.js';
import { heartbeat, Recorder, until } from './support/recorder.js';
import {
  CLUSTER_ID,
  frame,
  incarnationOf,
  MemoryRegistry,
  RawClient,
  type TestNode,
  tcpNode,
} from './support/tcp-nodes.js';

describe('handshake', () => {
  const made: TestNode[] = [];
  const clients: RawClient[] = [];
  afterEach(async () => {
    for (const client of clients.splice(0)) client.socket.destroy();
    for (const { network } of made.splice(0)) await network.close();
  });

  function node(...options: Parameters<typeof tcpNode>): TestNode {
    const each = tcpNode(...options);
    made.push(each);
    return each;
  }

  /** Node 1 dials node 2, which dials nobody. */
  async function meet(one: TestNode, two: TestNode, dialled: NodeId = 2) {
    const first = new Recorder();
    const second = new Recorder();
    await one.network.start(first);
    const address = await two.network.start(second);
    one.network.setPeers(new Map([[dialled, address]]));
    return { first, second, address };
  }

  /** Both sides name the reason, once, and keep saying no; nobody is connected. */
  async function refused(one: TestNode, two: TestNode, reason: string, text: RegExp, dialled = 2) {
    const { first, second } = await meet(one, two, dialled);
    await until(() => one.network.metrics().refusedHandshakes >= 6, 'six refusals at node 1');
    for (const [each, by] of [
      [one, 'peer'],
      [two, 'us'],
    ] as const) {
      const lines = each.logger.named('peer.refused');
      expect(lines.map(({ fields }) => fields.by)).toEqual([by]);
      expect(lines[0]!.fields.reason).toBe(reason);
      expect(lines[0]!.message).toMatch(text);
    }
    expect(two.network.metrics().refusedHandshakes).toBeGreaterThanOrEqual(6);
    expect(first.events).toEqual([]);
    expect(second.events).toEqual([]);
    expect(first.refusals.length).toBeGreaterThanOrEqual(6);
    expect(first.refusals[0]).toBe(`${dialled} ${reason}`);
  }

  it('refuses a node of another cluster', async () => {
    const other = { clusterId: 'ff'.repeat(16), nodeId: 1, incarnation: incarnationOf(1) };
    await refused(node(1, {}, { identity: other }), node(2), 'cluster', /of cluster ffff/);
  });

  it('refuses a node that looks for somebody else', async () => {
    await refused(node(1), node(2), 'node', /this is node 2, not node 3/, 3);
  });

  it('refuses a node that uses the same id', async () => {
    const twin = { clusterId: CLUSTER_ID, nodeId: 2, incarnation: incarnationOf(9) };
    const one = node(1, {}, { identity: twin });
    const { first } = await meet(one, node(2), 3);
    await until(() => one.network.metrics().refusedHandshakes >= 2, 'refusals');
    expect(first.events).toEqual([]);
  });

  it.each([
    ['wire-version', { wire: { min: 2, max: 3 } }],
    ['format-version', { format: { min: 2, max: 2 } }],
    ['state-machine-version', { stateMachine: { min: 5, max: 6 } }],
  ] as const)('refuses a node without a common %s', async (reason, range) => {
    const versions = { format: { min: 1, max: 1 }, stateMachine: { min: 1, max: 1 }, ...range };
    await refused(node(1, {}, { versions }), node(2), reason, /here, .* there/);
  });

  it('accepts ranges that have a version in common', async () => {
    const one = node(
      1,
      {},
      { versions: { format: { min: 1, max: 4 }, stateMachine: { min: 3, max: 9 } } },
    );
    const two = node(
      2,
      {},
      { versions: { format: { min: 4, max: 5 }, stateMachine: { min: 1, max: 3 } } },
    );
    const { first } = await meet(one, two);
    await until(() => first.isConnected(2), 'connected');
  });

  it('refuses another incarnation of a node that it knows', async () => {
    const two = node(2);
    two.registry.known.set(1, incarnationOf(99));
    await refused(node(1), two, 'incarnation', /another incarnation/);
    expect(two.registry.known.get(1)).toBe(incarnationOf(99));
  });

  it('refuses as the one who dials, too, and both sides say so', async () => {
    const one = node(1);
    one.registry.known.set(2, incarnationOf(99));
    const two = node(2);
    const { first, second } = await meet(one, two);
    await until(() => two.logger.named('peer.refused').length > 0, 'refusal at node 2');
    await until(() => one.network.metrics().refusedHandshakes >= 4, 'refusals');
    expect(one.logger.named('peer.refused').map(({ fields }) => fields.by)).toEqual(['us']);
    expect(two.logger.named('peer.refused')[0]!.fields).toMatchObject({
      by: 'peer',
      reason: 'incarnation',
    });
    expect(first.events).toEqual([]);
    expect(second.messages).toEqual([]);
  });

  it('remembers a new node on both sides, and waits until that is durable', async () => {
    let release: () => void = () => {};
    const durable = new Promise<void>((resolve) => {
      release = resolve;
    });
    class SlowRegistry extends MemoryRegistry {
      override async remember(nodeId: NodeId, incarnation: string): Promise<void> {
        await durable;
        this.known.set(nodeId, incarnation);
      }
    }
    const registry = new SlowRegistry();
    const one = node(1);
    const two = node(2, {}, { registry });
    const { first, address } = await meet(one, two);
    const client = new RawClient(address);
    clients.push(client);
    client.socket.write(frame(FRAME.hello, helloOf(3)));
    await until(() => client.socket.bytesWritten > 0, 'hello');
    await turns(20);
    expect(first.events).toEqual([]);
    expect(client.received.length).toBe(0);
    release();
    await until(() => first.isConnected(2), 'connected');
    await until(() => client.received.length > 0, 'welcome');
    expect(one.registry.known.get(2)).toBe(incarnationOf(2));
    expect(registry.known.get(1)).toBe(incarnationOf(1));
  });

  it('turns a node away that cannot be remembered', async () => {
    class FailingRegistry extends MemoryRegistry {
      override remember(): Promise<void> {
        return Promise.reject(new Error('disk full'));
      }
    }
    const two = node(2, {}, { registry: new FailingRegistry() });
    await refused(node(1), two, 'registry', /disk full/);
  });

  it('connects once the reason is gone, and logs a changed reason again', async () => {
    const two = node(2);
    two.registry.known.set(1, incarnationOf(99));
    const one = node(1);
    const { first } = await meet(one, two);
    await until(() => one.network.metrics().refusedHandshakes >= 2, 'refusals');
    two.registry.known.delete(1);
    await until(() => first.isConnected(2), 'connected');
    expect(one.logger.named('peer.refused').length).toBe(1);
  });

  it('answers a stranger with a frame that names the reason, and hangs up', async () => {
    const two = node(2);
    const { address } = await meet(node(1), two);
    const client = new RawClient(address);
    clients.push(client);
    client.socket.write(frame(FRAME.hello, helloOf(3, 'ee'.repeat(16))));
    await until(() => client.closed, 'closed');
    const refusal = unpackRefusal(client.received.subarray(FRAME_HEADER_BYTES));
    expect(refusal.reason).toBe('cluster');
    expect(two.registry.known.has(3)).toBe(false);
  });

  it('gives up on a stranger that says nothing', async () => {
    const two = node(2, { handshakeTimeoutMs: 30 });
    const { address } = await meet(node(1), two);
    const client = new RawClient(address);
    clients.push(client);
    await until(() => client.closed, 'closed');
  });

  it('bounds the strangers: the oldest goes, members stay', async () => {
    const two = node(2, { handshakeTimeoutMs: 60_000 });
    const one = node(1);
    const { first, second, address } = await meet(one, two);
    await until(() => first.isConnected(2), 'connected');
    for (let count = 0; count < 70; count++) clients.push(new RawClient(address));
    await until(() => clients.filter(({ closed }) => closed).length === 6, 'six were closed');
    one.network.send(2, heartbeat(1));
    await until(() => second.messages.length === 1, 'heartbeat');
    await turns(20);
    expect(clients.filter(({ closed }) => closed).length).toBe(6);
  });

  it('lets a newer connection of a node replace the older one', async () => {
    const two = node(2);
    const { address } = await meet(node(1), two);
    const older = new RawClient(address);
    clients.push(older);
    older.socket.write(frame(FRAME.hello, helloOf(3)));
    await until(() => older.received.length > 0, 'welcome');
    const newer = new RawClient(address);
    clients.push(newer);
    newer.socket.write(frame(FRAME.hello, helloOf(3)));
    await until(() => older.closed, 'the older one is closed');
    expect(newer.closed).toBe(false);
  });
});

function helloOf(nodeId: NodeId, clusterId: string = CLUSTER_ID): Uint8Array {
  return packHello({
    identity: { clusterId, nodeId, incarnation: incarnationOf(nodeId) },
    versions: {
      wire: { min: 1, max: 1 },
      format: { min: 1, max: 1 },
      stateMachine: { min: 1, max: 1 },
    },
    channel: 'bulk',
    target: 2,
    advertise: undefined,
  });
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}
