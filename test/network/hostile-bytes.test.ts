import { type AddressInfo, createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { FRAME, FRAME_HEADER_BYTES, sealFrame } from '../../dist/network/frame.js';
import { type Channel, packHello } from '../../dist/network/handshake.js';
import {
  appendRequest,
  CountedEntries,
  heartbeat,
  Recorder,
  sharedBytes,
  until,
} from './support/recorder.js';
import {
  CLUSTER_ID,
  frame,
  incarnationOf,
  RawClient,
  type TestNode,
  tcpNode,
} from './support/tcp-nodes.js';

const SEED = 20_261_123;

/** Whatever a stranger or a broken node sends ends its own connection, and nothing else. */
describe('hostile bytes on the port', () => {
  const first = new Recorder();
  const second = new Recorder();
  let one: TestNode;
  let two: TestNode;
  let address: string;
  let round = 0;
  let sessions = 100;

  beforeAll(async () => {
    one = tcpNode(1);
    two = tcpNode(2, { handshakeTimeoutMs: 60_000 });
    const addressOne = await one.network.start(first);
    address = await two.network.start(second);
    one.network.setPeers(new Map([[2, address]]));
    two.network.setPeers(new Map([[1, addressOne]]));
    await until(() => first.isConnected(2) && second.isConnected(1), 'connected');
  });

  afterAll(async () => {
    await one.network.close();
    await two.network.close();
  });

  async function membersAreFine(): Promise<void> {
    round++;
    const { length } = second.appends;
    one.network.send(2, heartbeat(round));
    const entries = new CountedEntries(sharedBytes(10));
    expect(one.network.sendAppend(2, appendRequest({ session: round }), entries)).toBe(true);
    await until(() => second.appends.length === length + 1, 'append');
    await until(
      () => second.messages.some(({ message }) => 'round' in message && message.round === round),
      'heartbeat',
    );
    expect(first.events).toEqual(['connected 2']);
    expect(second.events).toEqual(['connected 1']);
  }

  async function closes(bytes: Uint8Array, what: string): Promise<RawClient> {
    const client = new RawClient(address);
    client.socket.write(bytes);
    await until(() => client.closed, what);
    return client;
  }

  /** A client that has shaken hands, under a node id of its own. */
  async function admitted(channel: Channel): Promise<{ client: RawClient; nodeId: number }> {
    const client = new RawClient(address);
    const nodeId = sessions++;
    const versions = { min: 1, max: 1 };
    const hello = packHello({
      identity: { clusterId: CLUSTER_ID, nodeId, incarnation: incarnationOf(nodeId) },
      versions: { wire: versions, format: versions, stateMachine: versions },
      channel,
      target: 2,
      advertise: undefined,
    });
    client.socket.write(frame(FRAME.hello, hello));
    await until(() => client.received.length > 0, 'welcome');
    expect(client.received[8]).toBe(FRAME.welcome);
    return { client, nodeId };
  }

  it('closes on random bytes', async () => {
    const random = new SeededRandom(SEED);
    for (let run = 0; run < 100; run++) {
      const bytes = random.fill(new Uint8Array(FRAME_HEADER_BYTES + random.integer(5_000)));
      await closes(bytes, `seed ${SEED}, run ${run}`);
    }
    await membersAreFine();
  });

  it('closes on an HTTP request', async () => {
    await closes(Buffer.from('GET / HTTP/1.1\r\nHost: example\r\n\r\n'), 'HTTP');
    await membersAreFine();
  });

  it('closes on any frame but hello before the handshake, whatever its length', async () => {
    for (const type of Object.values(FRAME)) {
      if (type === FRAME.hello) continue;
      await closes(frame(type, new Uint8Array(100)), `type ${type}`);
    }
    const large = new Uint8Array(FRAME_HEADER_BYTES);
    sealFrame(new DataView(large.buffer), 0, FRAME.hello, 0, 100_000);
    await closes(large, 'a large hello');
    await closes(frame(FRAME.hello, new SeededRandom(SEED).fill(new Uint8Array(60))), 'bad hello');
    await membersAreFine();
  });

  it('delivers what a member says before garbage, and closes then', async () => {
    const random = new SeededRandom(SEED);
    for (const channel of ['control', 'bulk'] as const) {
      for (let run = 0; run < 20; run++) {
        const { client, nodeId } = await admitted(channel);
        const good =
          channel === 'bulk'
            ? frame(FRAME.append, new Uint8Array(50), 48)
            : frame(FRAME.heartbeatResponse, new Uint8Array(16));
        const garbage = random.fill(new Uint8Array(100));
        client.socket.write(Buffer.concat([good, garbage]));
        await until(() => client.closed, `${channel}, seed ${SEED}, run ${run}`);
        const received = channel === 'bulk' ? second.appends : second.messages;
        expect(received.filter(({ from }) => from === nodeId).length).toBe(1);
      }
    }
    await membersAreFine();
  });

  it('closes on valid frames that have no place on their channel', async () => {
    const wrong = {
      control: [FRAME.append, FRAME.forwardRequest, FRAME.forwardResponse, FRAME.hello, 77],
      bulk: [FRAME.heartbeatRequest, FRAME.appendResponse, FRAME.voteRequest, FRAME.welcome, 255],
    } as const;
    for (const channel of ['control', 'bulk'] as const) {
      for (const type of wrong[channel]) {
        const { client } = await admitted(channel);
        client.socket.write(frame(type, new Uint8Array(64)));
        await until(() => client.closed, `type ${type} on ${channel}`);
      }
    }
    await membersAreFine();
  });

  it('closes on changed copies of valid frames, and never delivers one', async () => {
    const random = new SeededRandom(SEED);
    for (let run = 0; run < 40; run++) {
      const { client, nodeId } = await admitted('bulk');
      const bytes = frame(FRAME.append, random.fill(new Uint8Array(48)), 48);
      bytes[random.integer(bytes.length)]! ^= 1 << random.integer(8);
      client.socket.write(bytes);
      await until(() => client.closed, `seed ${SEED}, run ${run}`);
      expect(second.appends.some(({ from }) => from === nodeId)).toBe(false);
    }
    await membersAreFine();
  });

  it('closes on a frame beyond the limit before its body arrives', async () => {
    const { client } = await admitted('bulk');
    const head = new Uint8Array(FRAME_HEADER_BYTES + 48);
    sealFrame(new DataView(head.buffer), 0, FRAME.append, 48, 2 ** 31);
    client.socket.write(head);
    await until(() => client.closed, 'closed');
    await membersAreFine();
  });

  it('lives with frames that are cut off', async () => {
    for (const length of [1, 19, 20, 21, 67, 500]) {
      const { client, nodeId } = await admitted('bulk');
      client.socket.end(frame(FRAME.append, new Uint8Array(1_000), 48).subarray(0, length));
      await until(() => client.closed, `cut at ${length}`);
      expect(second.appends.some(({ from }) => from === nodeId)).toBe(false);
    }
    await membersAreFine();
  });

  it('closes a dialled connection when the answer is garbage, and dials again', async () => {
    const random = new SeededRandom(SEED);
    let answered = 0;
    const server = createServer((socket) => {
      answered++;
      socket.on('error', () => {});
      socket.resume();
      socket.write(random.fill(new Uint8Array(200)));
    });
    const port = await new Promise<number>((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
    });
    one.network.setPeers(
      new Map([
        [2, address],
        [3, `127.0.0.1:${port}`],
      ]),
    );
    await until(() => answered > 6, 'dialled again and again');
    await membersAreFine();
    one.network.setPeers(new Map([[2, address]]));
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
});
