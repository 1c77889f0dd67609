import dns from 'node:dns';
import { afterEach, expect, it, vi } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { parseAddress } from '../../dist/network/address.js';
import { Recorder, until } from './support/recorder.js';
import { type TestNode, tcpNode } from './support/tcp-nodes.js';

const open: TestNode[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  for (const { network } of open.splice(0)) await network.close();
});

async function start(...options: Parameters<typeof tcpNode>) {
  const node = tcpNode(...options);
  const recorder = new Recorder();
  open.push(node);
  const address = await node.network.start(recorder);
  return { ...node, recorder, address };
}

/** Ports below 1024 are given to nobody who does not ask for them. */
const NOBODY = ['127.0.0.1:1', '127.0.0.1:2'] as const;

/**
 * Starts a node that says where it is. Another program may take the port between its choice and its
 * use: then another is chosen.
 */
async function startWhereItSays(nodeId: number) {
  for (;;) {
    const { network, address } = await start(nodeId);
    await network.close();
    try {
      return await start(nodeId, {}, { listen: address, advertise: address });
    } catch (error) {
      const taken = error instanceof KeelsonError && error.details.systemCode === 'EADDRINUSE';
      if (!taken) throw error;
    }
  }
}

it('a node that has moved is dialled where it says, and no more where the membership says', async () => {
  // A second attempt at the old place would be the last one in the time of this test.
  const one = await start(1, { reconnectMinMs: 60_000, reconnectMaxMs: 60_000 });
  one.network.setPeers(new Map([[2, NOBODY[0]]]));
  await until(() => one.logger.named('peer.unreachable').length === 2, 'both channels failed');
  const two = await startWhereItSays(2);
  two.network.setPeers(new Map([[1, one.address]]));
  await until(() => one.recorder.isConnected(2) && two.recorder.isConnected(1), 'connected');
  const [line] = one.logger.named('peer.connected');
  expect(line?.fields).toMatchObject({ peer: 2, address: two.address });
});

it('what a node has said of its place outlives a change of its address in the membership', async () => {
  const one = await start(1);
  const two = await startWhereItSays(2);
  one.network.setPeers(new Map([[2, NOBODY[0]]]));
  two.network.setPeers(new Map([[1, one.address]]));
  await until(() => one.recorder.isConnected(2), 'connected');
  one.network.setPeers(new Map([[2, NOBODY[1]]]));
  expect(one.network.metrics().connectedPeers).toEqual([]);
  await until(() => one.recorder.isConnected(2), 'connected again');
});

it.each(['where nobody is', 'where another node is'])(
  'a node that says it is %s is looked for where the membership says',
  async (where) => {
    const wrong = where === 'where nobody is' ? NOBODY[0] : (await start(3)).address;
    const one = await start(1);
    const two = await start(2, {}, { advertise: wrong });
    const place = two.address;
    one.network.setPeers(new Map([[2, place]]));
    two.network.setPeers(new Map([[1, one.address]]));
    await until(() => one.recorder.isConnected(2) && two.recorder.isConnected(1), 'connected');
    await two.network.close();
    const tried = () =>
      one.logger.lines.some(({ message }) => message.includes(`node 2 at ${wrong}`));
    await until(tried, 'the address that it has told is tried');
    await until(() => !one.recorder.isConnected(2), 'disconnected');
    await start(2, {}, { listen: place, advertise: wrong });
    await until(() => one.recorder.isConnected(2), 'connected again');
  },
);

it('resolves a name on every connect', async () => {
  const two = await start(2);
  const { port } = parseAddress(two.address);
  const name = 'keelson-two.test';
  const lookUp = dns.lookup as (...given: unknown[]) => void;
  let place: string | undefined;
  let asked = 0;
  vi.spyOn(dns, 'lookup').mockImplementation(((...given: unknown[]) => {
    if (given[0] !== name) return lookUp(...given);
    asked++;
    const answer = given.at(-1) as (error: Error | null, found?: dns.LookupAddress[]) => void;
    if (place === undefined) setImmediate(answer, new Error('no such name'));
    else setImmediate(answer, null, [{ address: place, family: 4 }]);
  }) as never);
  const one = await start(1);
  one.network.setPeers(new Map([[2, `${name}:${port}`]]));
  await until(() => one.logger.named('peer.unreachable').length > 4, 'a name that is not there');
  place = '127.0.0.1';
  await until(() => one.recorder.isConnected(2), 'connected');

  const before = asked;
  await two.network.close();
  await start(2, {}, { listen: two.address });
  const times = () => one.recorder.events.filter((event) => event === 'connected 2').length;
  await until(() => times() === 2, 'connected again');
  expect(asked).toBeGreaterThanOrEqual(before + 2);
});
