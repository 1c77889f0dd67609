import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { InProcessHub } from '../../dist/network/in-process-hub.js';
import { InProcessNetwork } from '../../dist/network/in-process-network.js';
import { describeNetwork } from './support/describe-network.js';
import {
  appendRequest,
  CountedEntries,
  heartbeat,
  Recorder,
  sharedBytes,
} from './support/recorder.js';

describeNetwork('in-process network', () => {
  const hub = new InProcessHub(new SystemScheduler());
  const made: InProcessNetwork[] = [];
  return {
    create(nodeId) {
      const network = new InProcessNetwork(hub, { nodeId, maxQueuedBytes: 1_000_000 });
      made.push(network);
      return network;
    },
    async close() {
      for (const network of made) await network.close();
    },
  };
});

function cluster(size: number) {
  const scheduler = new ManualScheduler();
  const hub = new InProcessHub(scheduler);
  const peers = new Map(Array.from({ length: size }, (_, at) => [at + 1, '']));
  const nodes = [...peers.keys()].map((nodeId) => {
    const network = new InProcessNetwork(hub, { nodeId, maxQueuedMessages: 128 });
    const recorder = new Recorder();
    network.start(recorder);
    network.setPeers(peers);
    return { network, recorder };
  });
  scheduler.runJobs();
  return { scheduler, hub, nodes };
}

describe('in-process network under faults', () => {
  it('delivers nothing from within send', () => {
    const { scheduler, nodes } = cluster(2);
    nodes[0]!.network.send(2, heartbeat(1));
    expect(nodes[1]!.recorder.messages).toEqual([]);
    scheduler.runJobs();
    expect(nodes[1]!.recorder.messages.length).toBe(1);
  });

  it('releases entries only after the receiver has returned', () => {
    const { scheduler, nodes } = cluster(2);
    const entries = new CountedEntries(sharedBytes(10));
    const seen: number[] = [];
    nodes[1]!.recorder.onAppend = () => seen.push(entries.releases);
    nodes[0]!.network.sendAppend(2, appendRequest(), entries);
    scheduler.runJobs();
    expect(seen).toEqual([0]);
    expect(entries.releases).toBe(1);
  });

  it('loses what is on its way when a link is cut, and says so', () => {
    const { scheduler, hub, nodes } = cluster(3);
    const entries = new CountedEntries(sharedBytes(10));
    nodes[0]!.network.sendAppend(2, appendRequest(), entries);
    nodes[0]!.network.send(2, heartbeat(1));
    nodes[0]!.network.send(3, heartbeat(2));
    hub.partition([[1, 3], [2]]);
    scheduler.runJobs();
    expect(entries.releases).toBe(1);
    expect(nodes[1]!.recorder.appends).toEqual([]);
    expect(nodes[1]!.recorder.messages).toEqual([]);
    expect(nodes[2]!.recorder.messages.length).toBe(1);
    expect(nodes[0]!.recorder.events.at(-1)).toBe('disconnected 2');
    expect(nodes[1]!.recorder.events.slice(-2)).toEqual(['disconnected 1', 'disconnected 3']);
    hub.heal();
    scheduler.runJobs();
    expect(nodes[0]!.recorder.events.at(-1)).toBe('connected 2');
  });

  it('reports a link that was down for a moment, because what it carried is lost', () => {
    const { scheduler, hub, nodes } = cluster(2);
    hub.disconnect(2);
    hub.heal();
    scheduler.runJobs();
    expect(nodes[0]!.recorder.events).toEqual(['connected 2', 'disconnected 2', 'connected 2']);
  });

  it('cuts one direction only', () => {
    const { scheduler, hub, nodes } = cluster(2);
    hub.cut(1, 2);
    nodes[0]!.network.send(2, heartbeat(1));
    nodes[1]!.network.send(1, heartbeat(2));
    scheduler.runJobs();
    expect(nodes[1]!.recorder.messages).toEqual([]);
    expect(nodes[0]!.recorder.messages.length).toBe(1);
  });

  it('settles requests that a cut interrupts: unknown if delivered, rejected if not', async () => {
    const { scheduler, hub, nodes } = cluster(2);
    nodes[1]!.recorder.answer = () => new Promise(() => {});
    const request = { kind: 'write', payload: new Uint8Array(1), timeoutMs: 1_000 } as const;
    const delivered = nodes[0]!.network.request(2, request);
    scheduler.runJobs();
    const waiting = nodes[0]!.network.request(2, request);
    hub.disconnect(1);
    await expect(delivered).rejects.toMatchObject({ outcome: 'unknown' });
    await expect(waiting).rejects.toMatchObject({ outcome: 'rejected' });
    expect(scheduler.nextTimerAt()).toBeUndefined();
  });

  it('delivers no request that it has settled: what was rejected may be sent again', async () => {
    const { scheduler, hub, nodes } = cluster(2);
    const delivered: number[] = [];
    nodes[1]!.recorder.answer = ({ payload }) => {
      delivered.push(payload[0]!);
      return Promise.resolve({ payload, index: 1, term: 1 });
    };
    const send = (id: number, timeoutMs: number) =>
      nodes[0]!.network.request(2, { kind: 'write', payload: Uint8Array.of(id), timeoutMs });
    const interrupted = send(1, 1_000);
    hub.disconnect(1);
    hub.heal();
    await expect(interrupted).rejects.toMatchObject({ outcome: 'rejected' });
    const repeated = send(2, 1_000);
    scheduler.runJobs();
    await Promise.resolve();
    scheduler.runJobs();
    expect((await repeated).payload).toEqual(Uint8Array.of(2));
    expect(delivered).toEqual([2]);
  });

  it('bounds its inbox: control is dropped, appends are refused until there is room', () => {
    const { scheduler, nodes } = cluster(2);
    for (let round = 0; round < 200; round++) nodes[0]!.network.send(2, heartbeat(round));
    expect(nodes[0]!.network.metrics().droppedMessages).toBe(72);
    const entries = new CountedEntries(sharedBytes(10));
    expect(nodes[0]!.network.sendAppend(2, appendRequest(), entries)).toBe(false);
    scheduler.runJobs();
    expect(nodes[1]!.recorder.messages.length).toBe(128);
    expect(nodes[0]!.recorder.events.at(-1)).toBe('writable 2');
    expect(nodes[0]!.network.sendAppend(2, appendRequest(), entries)).toBe(true);
  });

  it('goes on delivering after a handler that throws', () => {
    const { scheduler, nodes } = cluster(2);
    const entries = new CountedEntries(sharedBytes(10));
    nodes[1]!.recorder.onAppend = () => {
      throw new Error('handler');
    };
    nodes[0]!.network.sendAppend(2, appendRequest(), entries);
    nodes[0]!.network.send(2, heartbeat(1));
    expect(() => scheduler.runJobs()).toThrow('handler');
    scheduler.runJobs();
    expect(entries.releases).toBe(1);
    expect(nodes[1]!.recorder.messages.length).toBe(1);
  });

  it('keeps the order of each link and kind under any delays, and releases exactly once', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ fate: fc.integer({ min: -1, max: 50 }), append: fc.boolean() }), {
          maxLength: 60,
        }),
        fc.option(fc.nat(60)),
        (steps, cutAt) => {
          const { scheduler, hub, nodes } = cluster(2);
          let fate = 0;
          hub.fate = () => fate;
          const sent: CountedEntries[] = [];
          for (const [at, step] of steps.entries()) {
            if (at === cutAt) {
              hub.disconnect(1);
              hub.heal();
            }
            fate = step.fate;
            if (step.append) {
              const entries = new CountedEntries(sharedBytes(at));
              if (nodes[0]!.network.sendAppend(2, appendRequest({ session: at }), entries)) {
                sent.push(entries);
              }
            } else nodes[0]!.network.send(2, heartbeat(at));
            if (at % 3 === 0) scheduler.advance(7);
          }
          hub.fate = undefined;
          nodes[0]!.network.send(2, heartbeat(1_000));
          scheduler.advance(1_000);
          const rounds = nodes[1]!.recorder.messages.map(({ message }) =>
            message.type === 'HeartbeatRequest' ? message.round : -1,
          );
          const sessions = nodes[1]!.recorder.appends.map(({ message }) => message.session);
          expect(rounds).toEqual([...rounds].sort((a, b) => a - b));
          expect(rounds.at(-1)).toBe(1_000);
          expect(sessions).toEqual([...sessions].sort((a, b) => a - b));
          expect(sent.every(({ releases }) => releases === 1)).toBe(true);
          expect(nodes[0]!.network.metrics().queuedBytes).toBe(0);
          expect(scheduler.nextTimerAt()).toBeUndefined();
        },
      ),
      { seed: 20_261_123, numRuns: 200 },
    );
  });
});
