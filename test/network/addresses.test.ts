import dns from 'node:dns';
import { afterEach, expect, it, vi } from 'vitest';
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

/** Where somebody has listened a moment ago. */
async function freeAddress(): Promise<string> {
  const { network, address } = await start(9);
  await network.close();
  return address;
}

it('a node that has moved is dialled where it says, and no more where the membership says', async () => {
  const oldPlace = await freeAddress();
  const newPlace = await freeAddress();
  // A second attempt at the old place would be the last one in the time of this test.
  const one = await start(1, { reconnectMinMs: 60_000, reconnectMaxMs: 60_000 });
  one.network.setPeers(new Map([[2, oldPlace]]));
  await until(() => one.logger.named('peer.unreachable').length === 2, 'both channels failed');
  const two = await start(2, {}, { listen: newPlace, advertise: newPlace });
  two.network.setPeers(new Map([[1, one.address]]));
  await until(() => one.recorder.isConnected(2) && two.recorder.isConnected(1), 'connected');
  const [line] = one.logger.named('peer.connected');
  expect(line?.fields).toMatchObject({ peer: 2, address: newPlace });
});

it('what a node has said of its place outlives a change of its address in the membership', async () => {
  const one = await start(1);
  const newPlace = await freeAddress();
  const two = await start(2, {}, { listen: newPlace, advertise: newPlace });
  one.network.setPeers(new Map([[2, await freeAddress()]]));
  two.network.setPeers(new Map([[1, one.address]]));
  await until(() => one.recorder.isConnected(2), 'connected');
  one.network.setPeers(new Map([[2, await freeAddress()]]));
  expect(one.network.metrics().connectedPeers).toEqual([]);
  await until(() => one.recorder.isConnected(2), 'connected again');
});

it.each(['where nobody is', 'where another node is'])(
  'a node that says it is %s is looked for where the membership says',
  async (where) => {
    const wrong = where === 'where nobody is' ? await freeAddress() : (await start(3)).address;
    const one = await start(1);
    const place = await freeAddress();
    const moved = { listen: place, advertise: wrong };
    const two = await start(2, {}, moved);
    one.network.setPeers(new Map([[2, place]]));
    two.network.setPeers(new Map([[1, one.address]]));
    await until(() => one.recorder.isConnected(2) && two.recorder.isConnected(1), 'connected');
    await two.network.close();
    const tried = () =>
      one.logger.lines.some(({ message }) => message.includes(`node 2 at ${wrong}`));
    await until(tried, 'the address that it has told is tried');
    await until(() => !one.recorder.isConnected(2), 'disconnected');
    await start(2, {}, moved);
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
