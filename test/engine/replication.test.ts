import { describe, expect, it } from 'vitest';
import { Engine } from '../../dist/engine/engine.js';
import { membershipOf, TestCluster } from './support/cluster.js';
import { Single, type SingleOptions } from './support/single.js';

/** A leader whose follower 2 is known to match; everything before is forgotten. */
function leading(options: SingleOptions = {}): Single {
  const single = new Single({ ...options, config: { preVote: false, ...options.config } });
  single.lead();
  single.node.flush();
  single.acknowledge(2, single.engine.lastLogId.index);
  single.clear();
  return single;
}

describe('leader', () => {
  it('commits and applies a write on every node', () => {
    const cluster = new TestCluster();
    const leader = cluster.elect(1);
    expect(leader.write(3)).toBe(3);
    cluster.run(200);
    for (const node of cluster.nodes.values()) {
      expect(node.engine.committedIndex).toBe(5);
      expect(node.engine.appliedIndex).toBe(5);
      expect(node.appliedContents).toEqual(leader.appliedContents);
    }
  });

  it('starts its term with a blank entry', () => {
    const single = new Single({ terms: [1, 1], config: { preVote: false } });
    single.lead();
    expect(single.commands('AppendEntries')).toMatchObject([
      { source: 'blank', firstIndex: 3, lastIndex: 3, term: 2, io: { vote: { committed: true } } },
    ]);
    expect(single.engine.isReadyToLead).toBe(false);
    single.node.flush();
    single.acknowledge(3, 3);
    expect(single.engine.isReadyToLead).toBe(true);
  });

  it('counts itself only for what is durable, and others commit without it', () => {
    const single = leading();
    single.node.write(1);
    single.acknowledge(2, 3);
    expect(single.engine.committedIndex).toBe(2);
    single.acknowledge(3, 3);
    expect(single.engine.committedIndex).toBe(3);
    expect(single.commands('Apply')).toEqual([]);
    single.node.flush();
    expect(single.commands('Apply')).toMatchObject([{ firstIndex: 3, lastIndex: 3 }]);
  });

  it('counts itself for the durable part of what it has written', () => {
    const single = leading();
    single.node.write(1);
    single.node.write(1);
    single.acknowledge(2, 4);
    single.node.flush(1);
    expect(single.engine.committedIndex).toBe(3);
    single.node.flush();
    expect(single.engine.committedIndex).toBe(4);
  });

  it('acknowledgements of learners do not count', () => {
    const membership = { ...membershipOf(1, 2, 3), learners: [4] };
    const single = leading({ membership });
    single.node.write(1);
    single.node.flush();
    single.acknowledge(4, 3);
    expect(single.engine.committedIndex).toBe(2);
    single.acknowledge(3, 3);
    expect(single.engine.committedIndex).toBe(3);
  });

  it('probes with one message, and repeats it when a heartbeat is answered', () => {
    const single = new Single({ config: { preVote: false } });
    single.lead();
    expect(single.appendsTo(3)).toHaveLength(1);
    single.node.write(1);
    single.node.write(1);
    expect(single.appendsTo(3)).toHaveLength(1);
    single.receive(3, { type: 'HeartbeatResponse', term: 2, round: 1 });
    expect(single.appendsTo(3), 'too early to take it for lost').toHaveLength(1);
    single.node.elapse(100);
    single.receive(3, { type: 'HeartbeatResponse', term: 2, round: 2 });
    expect(single.appendsTo(3)).toHaveLength(2);
    expect(single.appendsTo(3)[1]!.append).toMatchObject({ prevLogId: { index: 1 }, lastIndex: 4 });
  });

  it('pipelines up to the limit in messages', () => {
    const single = leading({ config: { maxInflightMessages: 3 } });
    for (let i = 0; i < 5; i++) single.node.write(1);
    expect(single.appendsTo(2).map((packet) => packet.append.lastIndex)).toEqual([3, 4, 5]);
    single.acknowledge(2, 3);
    expect(single.appendsTo(2).at(-1)!.append.lastIndex).toBe(7);
    expect(single.appendsTo(2)).toHaveLength(4);
  });

  it('pipelines up to the limit in bytes, and no message is larger than allowed', () => {
    const single = leading({ config: { maxInflightBytes: 10, maxAppendBytes: 4 } });
    single.node.write(20);
    const sizes = single.appendsTo(2).map((packet) => packet.entries.length);
    expect(sizes).toEqual([4, 4, 2]);
    single.acknowledge(2, 6);
    expect(single.appendsTo(2).at(-1)!.entries).toHaveLength(4);
  });

  it('asks for no second Replicate before the first is answered', () => {
    const single = leading();
    single.node.heldReplicates = [];
    single.node.write(1);
    single.node.write(1);
    expect(single.commands('Replicate').filter((command) => command.target === 2)).toHaveLength(1);
    single.node.answerHeld(single.node.heldReplicates[0]!);
    expect(single.commands('Replicate').filter((command) => command.target === 2)).toHaveLength(2);
  });

  it('takes an answer that comes before the runtime has told that it sent', () => {
    const single = leading();
    single.node.heldReplicates = [];
    single.node.write(2);
    const command = single.node.heldReplicates.find((held) => held.target === 2)!;
    single.answer(2, 4, undefined, command.session);
    single.node.tell((engine) => engine.replicated(2, command.session, 4, 2));
    single.node.write(1);
    const next = single.commands('Replicate').filter((held) => held.target === 2);
    expect(next.at(-1)!.prevLogId.index).toBe(4);
  });

  it('probes anew when a rejection comes before the runtime has told that it sent', () => {
    const single = new Single({ terms: [1, 2, 3, 3], config: { preVote: false } });
    single.node.heldReplicates = [];
    single.lead();
    const command = single.node.heldReplicates.find((held) => held.target === 3)!;
    const conflict = { rejectedIndex: 4, term: 2, firstIndex: 2, lastIndex: 2 };
    single.answer(3, 0, conflict, command.session);
    single.node.tell((engine) => engine.replicated(3, command.session, 5, 1));
    const next = single.commands('Replicate').filter((held) => held.target === 3);
    expect(next).toHaveLength(2);
    expect(next[1]!.prevLogId).toEqual({ term: 2, index: 2 });
  });

  it('never asks below what was acknowledged, whatever a late rejection says', () => {
    const single = leading();
    single.node.write(1);
    single.node.write(1);
    single.acknowledge(2, 3);
    single.reject(2, { rejectedIndex: 4, term: 1, firstIndex: 1, lastIndex: 1 });
    expect(single.appendsTo(2).at(-1)!.append.prevLogId.index).toBe(3);
  });

  it('waits after a failed send until there is a sign of life', () => {
    const single = leading();
    single.node.connected = (peer) => peer !== 2;
    single.node.write(1);
    single.node.write(1);
    expect(single.commands('Replicate').filter((command) => command.target === 2)).toHaveLength(1);
    single.node.connected = () => true;
    single.node.tell((engine) => engine.peerConnected(2));
    expect(single.appendsTo(2).map((packet) => packet.append.lastIndex)).toEqual([4]);
  });

  it('forgets what was in flight when a peer disconnects, and probes in a new session', () => {
    const single = leading();
    single.node.write(1);
    single.node.write(1);
    const session = single.sessionOf(2);
    single.node.tell((engine) => engine.peerDisconnected(2));
    single.node.write(1);
    expect(single.appendsTo(2)).toHaveLength(2);
    single.node.tell((engine) => engine.peerConnected(2));
    const probe = single.appendsTo(2).at(-1)!.append;
    expect(probe).toMatchObject({ prevLogId: { index: 2 }, lastIndex: 5 });
    expect(probe.session).toBeGreaterThan(session);
  });

  it('sends again when the answers to pipelined appends are lost', () => {
    const single = leading();
    single.node.write(1);
    for (let nowMs = 100; nowMs <= 1_000; nowMs += 100) {
      single.node.elapse(nowMs);
      single.receive(2, { type: 'HeartbeatResponse', term: 2, round: 1 });
    }
    expect(single.appendsTo(2)).toHaveLength(2);
    expect(single.appendsTo(2)[1]!.append.prevLogId.index).toBe(2);
  });

  it('sends an empty probe when it does not know where an idle follower stands', () => {
    const single = leading();
    single.node.tell((engine) => engine.peerDisconnected(2));
    single.node.tell((engine) => engine.peerConnected(2));
    expect(single.appendsTo(2)[0]).toMatchObject({
      append: { prevLogId: { term: 2, index: 2 }, lastIndex: 2 },
      entries: [],
    });
  });

  it('steps down when an answer has a higher term', () => {
    for (const type of ['AppendResponse', 'HeartbeatResponse'] as const) {
      const single = leading();
      const message =
        type === 'AppendResponse'
          ? ({ type, term: 9, session: 1, matchIndex: 0, conflict: undefined } as const)
          : ({ type, term: 9, round: 1 } as const);
      single.receive(3, message);
      expect(single.engine.role).toBe('follower');
      expect(single.engine.vote).toEqual({ term: 9, nodeId: 0, committed: false });
    }
  });
});

describe('conflict', () => {
  it('is told with the term at the rejected place and its first index', () => {
    const single = new Single({ terms: [1, 2, 2, 3, 3, 3] });
    single.append(2, { term: 5, prev: [4, 5] });
    single.append(2, { term: 5, prev: [4, 9] });
    single.append(2, { term: 5, prev: [4, 3] });
    single.node.flush();
    expect(single.messages('AppendResponse').map((reply) => reply.conflict)).toEqual([
      { rejectedIndex: 5, term: 3, firstIndex: 4, lastIndex: 6 },
      { rejectedIndex: 9, term: 3, firstIndex: 4, lastIndex: 6 },
      { rejectedIndex: 3, term: 2, firstIndex: 2, lastIndex: 6 },
    ]);
  });

  it('is overcome in two round trips, whatever the number of terms and entries', () => {
    const long = (term: number, count: number): number[] => new Array<number>(count).fill(term);
    const terms = [1, ...long(2, 50), ...long(5, 50), ...long(6, 50)];
    const single = new Single({ terms, config: { preVote: false } });
    single.lead();
    const follower = new Single({
      terms: [1, ...long(2, 50), ...long(3, 60), ...long(4, 80)],
      config: { nodeId: 2 },
    });
    let trips = 0;
    for (let delivered = 0; single.engine.matchIndex(2) === 0; ) {
      const packet = single.appendsTo(2)[delivered++]!;
      follower.node.receive({ ...packet, from: 1 });
      follower.node.flush();
      const reply = follower.messages('AppendResponse').at(-1)!;
      single.receive(2, reply);
      trips++;
      expect(trips).toBeLessThan(10);
    }
    expect(trips).toBe(2);
    expect(follower.commands('TruncateAfter')).toMatchObject([{ index: 51 }]);
  });

  it('agrees at the last entry of a term that both hold', () => {
    const single = new Single({ terms: [1, 2, 2, 2, 4, 4], config: { preVote: false } });
    single.lead();
    single.reject(3, { rejectedIndex: 6, term: 2, firstIndex: 2, lastIndex: 5 });
    expect(single.appendsTo(3).at(-1)!.append.prevLogId).toEqual({ term: 2, index: 4 });
  });

  it('an empty follower is sent everything', () => {
    const single = new Single({ terms: [1, 2, 2], config: { preVote: false } });
    single.lead();
    single.reject(3, { rejectedIndex: 3, term: 0, firstIndex: 0, lastIndex: 0 });
    expect(single.appendsTo(3).at(-1)!.append.prevLogId).toEqual({ term: 0, index: 0 });
  });

  it('that was rejected twice moves the leader once', () => {
    const single = new Single({ terms: [1, 2, 3, 3, 3], config: { preVote: false } });
    single.lead();
    const session = single.sessionOf(3);
    const conflict = { rejectedIndex: 5, term: 2, firstIndex: 2, lastIndex: 3 };
    single.reject(3, conflict, session);
    single.reject(3, conflict, session);
    expect(single.appendsTo(3)).toHaveLength(2);
  });
});

describe('follower', () => {
  it('truncates only from the first entry that differs', () => {
    const single = new Single({ terms: [1, 2, 2, 2] });
    single.append(3, { term: 4, prev: [1, 1], terms: [2, 2, 4, 4] });
    expect(single.commands('TruncateAfter')).toMatchObject([{ index: 3 }]);
    expect(single.commands('AppendEntries')).toMatchObject([{ firstIndex: 4, lastIndex: 5 }]);
    expect([1, 2, 3, 4, 5, 6].map((index) => single.engine.termAt(index))).toEqual([
      1, 2, 2, 4, 4, -1,
    ]);
  });

  it('never truncates what is committed', () => {
    const single = new Single({ terms: [1, 2, 2], committed: 3 });
    expect(() => single.append(3, { term: 4, prev: [1, 1], terms: [4] })).toThrow(/committed/);
  });

  it('applies what is committed only once it is durable', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2, 2], committed: 3 });
    expect(single.engine.committedIndex).toBe(3);
    expect(single.commands('Apply')).toMatchObject([{ firstIndex: 1, lastIndex: 1 }]);
    single.node.flush();
    expect(single.commands('Apply').at(-1)).toMatchObject({ firstIndex: 2, lastIndex: 3 });
  });

  it('drops replies of an earlier term', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2] });
    single.receive(3, { type: 'VoteRequest', term: 1, lastLogId: { term: 1, index: 1 } });
    single.append(3, { term: 3, prev: [1, 1], terms: [3] });
    single.node.flush();
    expect(single.sent).toHaveLength(1);
    expect(single.messages('AppendResponse')).toMatchObject([{ term: 3, matchIndex: 2 }]);
  });

  it('a reply that needs only the vote does not wait behind one that needs entries', () => {
    const single = new Single();
    single.receive(2, { type: 'HeartbeatRequest', term: 2, committed: 0, round: 1 });
    single.append(2, { term: 2, prev: [1, 1], terms: [2] });
    single.receive(2, { type: 'HeartbeatRequest', term: 2, committed: 0, round: 2 });
    single.node.flush(1);
    expect(single.messages('HeartbeatResponse').map((reply) => reply.round)).toEqual([1, 2]);
    expect(single.messages('AppendResponse')).toEqual([]);
  });

  it('tells a deposed leader the present term', () => {
    const single = new Single({ vote: { term: 7, nodeId: 3, committed: true } });
    single.append(2, { term: 6, prev: [1, 1], terms: [6] });
    single.receive(2, { type: 'HeartbeatRequest', term: 6, committed: 1, round: 1 });
    expect(single.messages('AppendResponse')).toMatchObject([{ term: 7, matchIndex: 0 }]);
    expect(single.messages('HeartbeatResponse')).toMatchObject([{ term: 7 }]);
    expect(single.engine.committedIndex).toBe(0);
    expect(single.engine.lastLogId.index).toBe(1);
  });

  it('a membership is in force when appended, and the one before it when truncated', () => {
    const single = new Single();
    const changed = membershipOf(1, 2, 3, 4, 5);
    single.append(2, { term: 2, prev: [1, 1], terms: [2, 2], membership: changed });
    expect(single.engine.membership).toEqual(changed);
    single.append(3, { term: 3, prev: [1, 1], terms: [3] });
    expect(single.engine.membership).toEqual(membershipOf(1, 2, 3));
    expect(single.commands('MembershipChanged').map((command) => command.index)).toEqual([2, 1]);
  });

  it('a membership without it makes a learner of a voter', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2], membership: membershipOf(2, 3) });
    expect(single.engine.role).toBe('learner');
    expect(single.commands('LeadershipChanged').at(-1)).toMatchObject({
      role: 'learner',
      leader: 2,
    });
  });

  it('two leaders in one term are a broken invariant', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1] });
    expect(() => single.append(3, { term: 2, prev: [1, 1] })).toThrow(/one leader in a term/);
  });
});

describe('recovery', () => {
  it('applies again what was recorded as committed', () => {
    const single = new Single({ terms: [1, 2, 2], committed: 2 });
    single.node.apply();
    expect(single.engine.committedIndex).toBe(2);
    expect(single.engine.appliedIndex).toBe(2);
  });

  it('takes an append that begins before what was purged', () => {
    const { config } = new Single().node;
    const vote = { term: 4, nodeId: 2, committed: true };
    const purged = { term: 1, index: 5 };
    const recovered = { vote, purged, termRuns: [], lastIndex: 5, committed: 5, memberships: [] };
    const engine = new Engine(config, recovered, 0);
    engine.handleAppend(
      2,
      {
        type: 'AppendRequest',
        term: 4,
        session: 1,
        prevLogId: { term: 1, index: 3 },
        lastIndex: 7,
        committed: 6,
      },
      {
        termRuns: [
          { firstIndex: 4, term: 1 },
          { firstIndex: 6, term: 4 },
        ],
        lastIndex: 7,
        memberships: [],
      },
    );
    expect(engine.lastLogId).toEqual({ term: 4, index: 7 });
    expect(engine.committedIndex).toBe(6);
    let append = engine.nextCommand();
    while (append !== undefined && append.type !== 'AppendEntries') append = engine.nextCommand();
    expect(append).toMatchObject({ firstIndex: 6, lastIndex: 7 });
  });

  it('begins behind what a durable state machine holds', () => {
    const { disk, config } = new Single({ terms: [1, 2, 2], committed: 1 }).node;
    const engine = new Engine(config, { ...disk.recover(), applied: 2 }, 0);
    expect(engine.committedIndex).toBe(2);
    expect(engine.appliedIndex).toBe(2);
    expect(engine.nextCommand()).toBeUndefined();
  });
});
