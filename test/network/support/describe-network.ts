import { afterEach, describe, expect, it } from 'vitest';
import type { NodeId } from '../../../dist/engine/types.js';
import type { Network } from '../../../dist/network/network.js';
import {
  appendRequest,
  CountedEntries,
  heartbeat,
  Recorder,
  sharedBytes,
  snapshotRequest,
  until,
} from './recorder.js';

export interface NetworkFixture {
  create(nodeId: NodeId): Network;
  close(): Promise<void>;
}

/** The behaviour that every network has. `setUp` makes a fresh cluster for each test. */
export function describeNetwork(name: string, setUp: () => NetworkFixture): void {
  describe(name, () => {
    let fixture: NetworkFixture | undefined;
    afterEach(async () => {
      await fixture?.close();
      fixture = undefined;
    });

    async function connect(...nodeIds: NodeId[]): Promise<[Network, Recorder][]> {
      fixture = setUp();
      const nodes: [Network, Recorder][] = nodeIds.map((id) => [
        fixture!.create(id),
        new Recorder(),
      ]);
      const addresses = new Map<NodeId, string>();
      for (const [at, [network, recorder]] of nodes.entries()) {
        addresses.set(nodeIds[at]!, await network.start(recorder));
      }
      for (const [network] of nodes) network.setPeers(addresses);
      for (const [at, [, recorder]] of nodes.entries()) {
        for (const peer of nodeIds) {
          if (peer === nodeIds[at]) continue;
          await until(() => recorder.isConnected(peer), `${nodeIds[at]} connected to ${peer}`);
        }
      }
      return nodes;
    }

    it('does not start once it is closed', async () => {
      fixture = setUp();
      const network = fixture.create(1);
      await network.close();
      await expect(network.start(new Recorder())).rejects.toMatchObject({
        code: 'KEELSON_CLOSED',
        outcome: 'rejected',
      });
    });

    it('carries pieces of a snapshot unchanged, in order with appends', async () => {
      const [[one], [, two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      const bytes = Uint8Array.from(sharedBytes(100_000));
      const offer = snapshotRequest({ offset: 0 });
      expect(one.sendSnapshot(2, offer, new Uint8Array(0))).toBe(true);
      expect(one.sendSnapshot(2, snapshotRequest(), bytes)).toBe(true);
      expect(one.sendAppend(2, appendRequest(), new CountedEntries(sharedBytes(10)))).toBe(true);
      await until(() => two.appends.length === 1, 'the append behind the pieces');
      expect(two.pieces).toEqual([
        { from: 1, message: offer, bytes: new Uint8Array(0) },
        { from: 1, message: snapshotRequest(), bytes },
      ]);
    });

    it('refuses a piece of a snapshot for a peer that is not there', async () => {
      const [[one], [two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      await two.close();
      await until(() => one.metrics().connectedPeers.length === 0, 'node 2 gone');
      expect(one.sendSnapshot(2, snapshotRequest(), new Uint8Array(8))).toBe(false);
      expect(one.sendSnapshot(3, snapshotRequest(), new Uint8Array(8))).toBe(false);
    });

    it('carries every kind of control message unchanged, in order', async () => {
      const [[one], [, two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      const lastLogId = { term: 4, index: 2 ** 53 - 1 };
      const messages = [
        { type: 'PreVoteRequest', term: 6, lastLogId },
        { type: 'PreVoteResponse', term: 5, requestTerm: 6, granted: true },
        { type: 'VoteRequest', term: 6, lastLogId },
        { type: 'VoteResponse', term: 6, requestTerm: 6, granted: false },
        { type: 'AppendResponse', term: 6, session: 1, matchIndex: 77, conflict: undefined },
        {
          type: 'AppendResponse',
          term: 6,
          session: 1,
          matchIndex: 0,
          conflict: { rejectedIndex: 9, term: 2, firstIndex: 3, lastIndex: 8 },
        },
        { type: 'HeartbeatRequest', term: 6, committed: 2 ** 53 - 1, round: 4 },
        { type: 'HeartbeatResponse', term: 6, round: 4 },
        {
          type: 'SnapshotResponse',
          term: 6,
          session: 2,
          state: 'receiving',
          offset: 2 ** 40,
          matchIndex: 0,
        },
        {
          type: 'SnapshotResponse',
          term: 6,
          session: 2,
          state: 'installed',
          offset: 0,
          matchIndex: 9,
        },
      ] as const;
      for (const message of messages) one.send(2, message);
      await until(() => two.messages.length === messages.length, 'all messages');
      expect(two.messages).toEqual(messages.map((message) => ({ from: 1, message })));
    });

    it('carries the bytes of entries untouched and releases them exactly once', async () => {
      const [[one], [, two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      const large = new CountedEntries(sharedBytes(300_000), sharedBytes(17, 3));
      const empty = new CountedEntries();
      const small = new CountedEntries(sharedBytes(48, 9));
      const sent = [large, empty, small];
      for (const [at, entries] of sent.entries()) {
        expect(one.sendAppend(2, appendRequest({ session: at }), entries)).toBe(true);
      }
      await until(() => two.appends.length === 3, 'all appends');
      for (const [at, entries] of sent.entries()) {
        expect(two.appends[at]!.message).toEqual(appendRequest({ session: at }));
        expect(two.appends[at]!.from).toBe(1);
        expect(Buffer.compare(two.appends[at]!.bytes, Buffer.concat(entries.parts))).toBe(0);
      }
      await until(() => sent.every(({ releases }) => releases > 0), 'releases');
      expect(sent.map(({ releases }) => releases)).toEqual([1, 1, 1]);
    });

    it('keeps the order of appends under load, with back-pressure', async () => {
      const [[one, first], [, two]] = (await connect(1, 2)) as [
        [Network, Recorder],
        [Network, Recorder],
      ];
      const total = 400;
      const all: CountedEntries[] = [];
      let refusals = 0;
      while (all.length < total) {
        const entries = new CountedEntries(sharedBytes(100_000, all.length));
        if (one.sendAppend(2, appendRequest({ session: all.length }), entries)) {
          all.push(entries);
          continue;
        }
        refusals++;
        expect(entries.releases).toBe(0);
        const before = first.events.length;
        await until(() => first.events.indexOf('writable 2', before) >= 0, 'writable');
      }
      await until(() => two.appends.length === total, 'all appends');
      expect(refusals).toBeGreaterThan(0);
      expect(two.appends.map(({ message }) => message.session)).toEqual([...all.keys()]);
      await until(() => all.every(({ releases }) => releases > 0), 'releases');
      expect(all.every(({ releases }) => releases === 1)).toBe(true);
      expect(one.metrics().queuedBytes).toBe(0);
    });

    it('answers requests, each with its own response', async () => {
      const [[one], [, two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      const calls = Array.from({ length: 100 }, (_, at) =>
        one.request(2, { kind: 'write', payload: sharedBytes(at * 10, at), timeoutMs: 10_000 }),
      );
      const responses = await Promise.all(calls);
      for (const [at, response] of responses.entries()) {
        expect(Buffer.compare(response.payload, sharedBytes(at * 10, at))).toBe(0);
        expect(response).toMatchObject({ index: 7, term: 3 });
        expect(response.error).toBeUndefined();
      }
      expect(two.requests.length).toBe(100);
      expect(two.requests[0]!.request.kind).toBe('write');
    });

    it('carries an error of the other node as a record', async () => {
      const [[one], [, two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      const error = {
        code: 'KEELSON_NOT_LEADER',
        message: 'node 3 leads',
        outcome: 'rejected',
        leader: { nodeId: 3, address: 'three:7' },
      } as const;
      two.answer = () => Promise.resolve({ payload: new Uint8Array(0), index: 0, term: 4, error });
      const call = one.request(2, {
        kind: 'readIndex',
        payload: new Uint8Array(0),
        timeoutMs: 9_000,
      });
      expect((await call).error).toMatchObject(error);
      two.answer = () => Promise.reject(new Error('boom'));
      const failed = await one.request(2, {
        kind: 'write',
        payload: new Uint8Array(0),
        timeoutMs: 9_000,
      });
      expect(failed.error).toMatchObject({ message: 'boom' });
    });

    it('fails a request of which the time is up with an unknown outcome', async () => {
      const [[one], [, two]] = (await connect(1, 2)) as [[Network, Recorder], [Network, Recorder]];
      two.answer = () => new Promise(() => {});
      const call = one.request(2, { kind: 'write', payload: new Uint8Array(1), timeoutMs: 30 });
      await expect(call).rejects.toMatchObject({ code: 'KEELSON_TIMEOUT', outcome: 'unknown' });
    });

    it('fails a request with an unknown outcome when the other node goes away', async () => {
      const [[one, first], [other, two]] = (await connect(1, 2)) as [
        [Network, Recorder],
        [Network, Recorder],
      ];
      two.answer = () => new Promise(() => {});
      const call = one.request(2, { kind: 'write', payload: new Uint8Array(1), timeoutMs: 60_000 });
      const settled = expect(call).rejects.toMatchObject({
        code: 'KEELSON_NO_LEADER',
        outcome: 'unknown',
      });
      await until(() => two.requests.length === 1, 'request');
      await other.close();
      await settled;
      await until(() => !first.isConnected(2), 'disconnected');
      const never = one.request(2, { kind: 'write', payload: new Uint8Array(1), timeoutMs: 9_000 });
      await expect(never).rejects.toMatchObject({
        code: 'KEELSON_NO_LEADER',
        outcome: 'rejected',
      });
    });

    it('connects again to a node that was restarted', async () => {
      const [[one, first], [other]] = (await connect(1, 2)) as [
        [Network, Recorder],
        [Network, Recorder],
      ];
      await other.close();
      await until(() => !first.isConnected(2), 'disconnected');
      const entries = new CountedEntries(sharedBytes(10));
      expect(one.sendAppend(2, appendRequest(), entries)).toBe(false);
      expect(entries.releases).toBe(0);
      const again = fixture!.create(2);
      const recorder = new Recorder();
      const address = await again.start(recorder);
      one.setPeers(new Map([[2, address]]));
      await until(() => first.isConnected(2), 'connected again');
      one.send(2, heartbeat(1));
      await until(() => recorder.messages.length === 1, 'heartbeat');
    });

    it('closes: requests settle, entries are released, nothing more is delivered', async () => {
      const [[one, first], [, two]] = (await connect(1, 2)) as [
        [Network, Recorder],
        [Network, Recorder],
      ];
      two.answer = () => new Promise(() => {});
      const call = one.request(2, { kind: 'write', payload: new Uint8Array(1), timeoutMs: 60_000 });
      const settled = expect(call).rejects.toMatchObject({ code: 'KEELSON_CLOSED' });
      const entries = Array.from({ length: 8 }, () => new CountedEntries(sharedBytes(50_000)));
      const taken = entries.filter((each) => one.sendAppend(2, appendRequest(), each));
      expect(taken.length).toBeGreaterThan(0);
      await one.close();
      await settled;
      expect(taken.every(({ releases }) => releases === 1)).toBe(true);
      const before = first.messages.length;
      expect(one.sendAppend(2, appendRequest(), new CountedEntries())).toBe(false);
      one.send(2, heartbeat(1));
      await expect(
        one.request(2, { kind: 'write', payload: new Uint8Array(1), timeoutMs: 1_000 }),
      ).rejects.toMatchObject({ outcome: 'rejected' });
      expect(first.messages.length).toBe(before);
      await one.close();
    });

    it('delivers between three nodes, each pair on its own', async () => {
      const nodes = await connect(1, 2, 3);
      for (const [at, [network]] of nodes.entries()) {
        for (let peer = 1; peer <= 3; peer++) {
          if (peer !== at + 1) network.send(peer, heartbeat(10 * (at + 1) + peer));
        }
      }
      for (const [at, [, recorder]] of nodes.entries()) {
        await until(() => recorder.messages.length === 2, 'two heartbeats');
        for (const { from, message } of recorder.messages) {
          expect(message).toEqual(heartbeat(10 * from + at + 1));
        }
      }
    });
  });
}
