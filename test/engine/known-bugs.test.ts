import { describe, expect, it } from 'vitest';
import { TestCluster } from './support/cluster.js';
import { Single } from './support/single.js';

/** Mistakes that shipped in other implementations of Raft; each is made impossible here. */

const DIRECT = { preVote: false };

describe('known bugs', () => {
  it('known bug 1: an entry of an earlier term is committed by counting replicas', () => {
    const single = new Single({ terms: [1, 2], config: DIRECT });
    single.lead();
    single.node.flush();
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 3 });
    single.acknowledge(2, 2);
    single.acknowledge(3, 2);
    expect(single.engine.matchIndex(2)).toBe(2);
    expect(single.engine.committedIndex).toBe(0);
    single.acknowledge(2, 3);
    expect(single.engine.committedIndex).toBe(3);
  });

  it('known bug 2: a follower commits beyond the prefix that it has verified', () => {
    const single = new Single({ terms: [1, 2, 2, 2] });
    single.append(2, { term: 3, prev: [1, 1], committed: 4 });
    expect(single.engine.committedIndex).toBe(1);
    single.append(2, { term: 3, prev: [2, 2], terms: [2], committed: 4 });
    expect(single.engine.committedIndex).toBe(3);
  });

  it('known bug 2: a heartbeat names a commit index that the follower has not verified', () => {
    const single = new Single({ config: DIRECT });
    single.lead();
    single.node.write(3);
    single.node.flush();
    single.acknowledge(2, 2);
    single.acknowledge(2, 5);
    expect(single.engine.committedIndex).toBe(5);
    single.clear();
    single.node.elapse(100);
    const heartbeats = single.sent.flatMap((packet) =>
      'message' in packet && packet.message.type === 'HeartbeatRequest'
        ? [[packet.to, packet.message.committed]]
        : [],
    );
    expect(heartbeats).toEqual([
      [2, 5],
      [3, 0],
    ]);
  });

  it('known bug 3: vote or term is not durable before the reply', () => {
    const single = new Single();
    const lastLogId = { term: 1, index: 1 };
    single.receive(2, { type: 'VoteRequest', term: 2, lastLogId });
    expect(single.sent).toEqual([]);
    single.node.flush();
    expect(single.messages('VoteResponse')).toMatchObject([{ term: 2, granted: true }]);
    expect(single.node.disk.vote).toEqual({ term: 2, nodeId: 2, committed: false });

    single.clear();
    single.receive(3, { type: 'VoteRequest', term: 5, lastLogId: { term: 0, index: 0 } });
    expect(single.sent).toEqual([]);
    single.node.flush();
    expect(single.messages('VoteResponse')).toMatchObject([{ term: 5, granted: false }]);

    single.clear();
    single.append(2, { term: 6, prev: [5, 9], terms: [6] });
    single.receive(2, { type: 'HeartbeatRequest', term: 6, committed: 0, round: 1 });
    expect(single.sent).toEqual([]);
    single.node.flush();
    expect(single.messages('AppendResponse')[0]!.conflict).toBeDefined();
    expect(single.messages('HeartbeatResponse')).toHaveLength(1);
  });

  it('known bug 4: the vote is erased when stepping down within the term', () => {
    const single = new Single({ config: DIRECT });
    single.lead();
    single.node.flush();
    single.node.tell((engine) => engine.stepDown());
    expect(single.engine.role).toBe('follower');
    expect(single.engine.vote).toEqual({ term: 2, nodeId: 1, committed: true });
    single.clear();
    const lastLogId = { term: 2, index: 9 };
    single.receive(3, { type: 'VoteRequest', term: 2, lastLogId });
    expect(single.messages('VoteResponse')).toMatchObject([{ term: 2, granted: false }]);
  });

  it('known bug 4: a candidate that yields to the elected leader votes for nobody else', () => {
    const single = new Single({ config: DIRECT });
    single.node.tell((engine) => engine.campaign());
    single.node.flush();
    single.append(2, { term: 2, prev: [1, 1] });
    expect(single.engine.vote).toEqual({ term: 2, nodeId: 2, committed: true });
    single.node.flush();
    single.clear();
    single.receive(3, { type: 'VoteRequest', term: 2, lastLogId: { term: 2, index: 9 } });
    expect(single.messages('VoteResponse')).toMatchObject([{ granted: false }]);
  });

  it('known bug 5: two votes in one term', () => {
    const single = new Single();
    const lastLogId = { term: 1, index: 1 };
    single.receive(2, { type: 'VoteRequest', term: 2, lastLogId });
    single.receive(3, { type: 'VoteRequest', term: 2, lastLogId });
    single.receive(2, { type: 'VoteRequest', term: 2, lastLogId });
    single.node.flush();
    expect(single.messages('VoteResponse').map((vote) => vote.granted)).toEqual([
      true,
      false,
      true,
    ]);
    single.node.restart(0);
    single.clear();
    single.receive(3, { type: 'VoteRequest', term: 2, lastLogId });
    expect(single.messages('VoteResponse')).toMatchObject([{ granted: false }]);
  });

  it('known bug 6: an empty or duplicate append is acknowledged before it is durable', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2, 2] });
    single.append(2, { term: 2, prev: [1, 1], terms: [2, 2] });
    single.append(2, { term: 2, prev: [2, 3] });
    expect(single.commands('AdvanceIo')).toHaveLength(2);
    expect(single.sent).toEqual([]);
    single.node.flush(2);
    expect(single.messages('AppendResponse').map((reply) => reply.matchIndex)).toEqual([3]);
    single.node.flush();
    expect(single.messages('AppendResponse').map((reply) => reply.matchIndex)).toEqual([3, 3, 3]);
  });

  it('known bug 6: an empty append under a new vote is acknowledged before the vote is durable', () => {
    const single = new Single({ terms: [1, 2] });
    single.append(3, { term: 4, prev: [2, 2] });
    expect(single.commands('AdvanceIo').at(-1)!.io.vote).toEqual({
      term: 4,
      nodeId: 3,
      committed: true,
    });
    expect(single.sent).toEqual([]);
    single.node.flush();
    expect(single.messages('AppendResponse')).toMatchObject([{ term: 4, matchIndex: 2 }]);
  });

  it('known bug 7: a stale completion counts for newer entries', () => {
    const single = new Single({ committed: 1 });
    single.append(2, { term: 2, prev: [1, 1], terms: [2, 2] });
    const first = single.node.pending.length;
    single.append(3, { term: 3, prev: [1, 1], terms: [3, 3], committed: 3 });
    // The same log ids come back under a third leader.
    single.append(2, { term: 4, prev: [1, 1], terms: [3], committed: 1 });
    single.append(2, { term: 4, prev: [1, 1], terms: [3, 3], committed: 1 });
    single.clear();
    single.node.flush(first);
    expect(single.engine.flushedIndex).toBe(1);
    expect(single.sent).toEqual([]);
    expect(single.commands('Apply')).toEqual([]);
    single.node.flush();
    expect(single.engine.flushedIndex).toBe(3);
    single.node.apply();
    expect(single.node.appliedContents).toHaveLength(3);
  });

  it('known bug 7: a stale completion acknowledges entries that were overwritten since', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2] });
    single.append(3, { term: 3, prev: [1, 1], terms: [3] });
    single.node.flush(2);
    expect(single.messages('AppendResponse')).toEqual([]);
    single.node.flush();
    expect(single.messages('AppendResponse')).toMatchObject([{ term: 3, matchIndex: 2 }]);
  });

  it('known bug 8: callbacks of an earlier role take effect', () => {
    const single = new Single({ config: DIRECT });
    single.lead();
    single.node.write(2);
    const session = single.sessionOf(2);
    const round = single.node.read();
    const { term } = single.engine;
    single.receive(3, { type: 'HeartbeatResponse', term: term + 1, round: 0 });
    expect(single.engine.role).toBe('follower');
    expect(single.node.readsFailed).toEqual([round]);
    single.clear();
    single.node.flush();
    const late = {
      type: 'AppendResponse',
      term,
      session,
      matchIndex: 4,
      conflict: undefined,
    } as const;
    single.receive(2, late);
    single.receive(2, { type: 'HeartbeatResponse', term, round });
    single.receive(3, { type: 'VoteResponse', term, requestTerm: term, granted: true });
    single.node.tell((engine) => engine.replicated(2, session, 4, 2));
    single.node.tell((engine) => engine.replicateFailed(3, session));
    expect(single.engine.committedIndex).toBe(0);
    expect(single.node.trace).toEqual([]);
  });

  it('known bug 8: an answer to an earlier session moves the present one', () => {
    const single = new Single({ config: DIRECT });
    single.lead();
    single.node.flush();
    const old = single.sessionOf(2);
    single.node.tell((engine) => engine.peerDisconnected(2));
    single.node.tell((engine) => engine.peerConnected(2));
    expect(single.sessionOf(2)).toBeGreaterThan(old);
    single.answer(2, 2, undefined, old);
    expect(single.engine.matchIndex(2)).toBe(0);
    expect(single.engine.committedIndex).toBe(0);
  });

  it('known bug 9: a duplicate append truncates entries that do not conflict', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2, 2, 2] });
    single.append(2, { term: 2, prev: [1, 1], terms: [2] });
    single.append(2, { term: 2, prev: [2, 2] });
    expect(single.commands('TruncateAfter')).toEqual([]);
    expect(single.engine.lastLogId).toEqual({ term: 2, index: 4 });
  });

  it('known bug 28: a read is served before the leader has committed in its term', () => {
    const single = new Single({ terms: [1, 2], committed: 1, config: DIRECT });
    single.lead();
    const round = single.node.read();
    expect(round).toBeGreaterThan(0);
    const { term } = single.engine;
    single.receive(2, { type: 'HeartbeatResponse', term, round });
    single.receive(3, { type: 'HeartbeatResponse', term, round });
    expect(single.node.readsReady).toEqual([]);
    single.node.flush();
    expect(single.node.readsReady).toEqual([]);
    single.acknowledge(2, 3);
    expect(single.node.readsReady).toEqual([{ round, index: 3 }]);
  });

  it('known bug 33: pre-vote lets nobody win when the better log has the lower term', () => {
    const cluster = new TestCluster();
    cluster.settle();
    cluster.elect(2).write(5);
    cluster.settle();
    const behind = cluster.node(1);
    behind.disk.vote = { term: 10, nodeId: 1, committed: false };
    behind.disk.entries.length = 2;
    behind.disk.committed = 0;
    behind.restart(cluster.nowMs);
    cluster.node(2).restart(cluster.nowMs);
    cluster.isolate(3);
    cluster.run(15_000);
    expect(cluster.node(2).engine.role).toBe('leader');
    expect(cluster.node(1).engine.leader).toBe(2);
    expect(cluster.node(1).engine.committedIndex).toBe(cluster.node(2).engine.committedIndex);
  });

  it('known bug 33: a node with a higher term than the live leader is shut out for ever', () => {
    const cluster = new TestCluster();
    cluster.elect(1);
    cluster.isolate(3);
    const apart = cluster.node(3);
    apart.disk.vote = { term: 20, nodeId: 3, committed: false };
    apart.restart(cluster.nowMs);
    cluster.run(3_000);
    cluster.heal();
    cluster.run(10_000);
    expect(cluster.leaders()).toHaveLength(1);
    const leader = cluster.leaders()[0]!;
    expect(leader.engine.term).toBeGreaterThanOrEqual(20);
    expect(apart.engine.term).toBe(leader.engine.term);
    expect(leader.write(1)).toBeGreaterThan(0);
    cluster.run(300);
    expect(apart.engine.committedIndex).toBe(leader.engine.lastLogId.index);
  });

  it('known bug 33: candidates of the same term refuse one another for ever', () => {
    const cluster = new TestCluster();
    cluster.settle();
    for (const id of [1, 2]) {
      cluster.node(id).disk.vote = { term: 7, nodeId: id, committed: false };
      cluster.node(id).restart(0);
    }
    cluster.isolate(3);
    cluster.run(15_000);
    expect(cluster.leaders()).toHaveLength(1);
  });

  it('known bug 34: nextIndex falls below matchIndex', () => {
    const single = new Single({ terms: [1, 1, 1, 1], config: DIRECT });
    single.lead();
    single.node.flush();
    single.acknowledge(2, 5);
    single.node.write(1);
    const session = single.sessionOf(2);
    const conflict = { rejectedIndex: 4, term: 1, firstIndex: 1, lastIndex: 2 };
    single.reject(2, conflict, session);
    single.node.tell((engine) => engine.peerDisconnected(2));
    single.node.tell((engine) => engine.peerConnected(2));
    single.reject(2, { ...conflict, rejectedIndex: 5 });
    single.node.elapse(100);
    single.receive(2, { type: 'HeartbeatResponse', term: single.engine.term, round: 1 });
    expect(single.engine.matchIndex(2)).toBe(5);
    expect(single.engine.regressions(2)).toBe(1);
    const afterMatch = single.appendsTo(2).slice(1);
    expect(afterMatch.length).toBeGreaterThan(2);
    for (const { append } of afterMatch) expect(append.prevLogId.index).toBeGreaterThanOrEqual(5);
  });

  it('known bug 35: a follower is never offered the conflicting index', () => {
    const cluster = new TestCluster({ maxAppendBytes: 1, maxInflightBytes: 1 });
    cluster.elect(1);
    // Entries of the old leader, each as large as a message may be, that nobody else has.
    cluster.isolate(1);
    cluster.node(1).write(8);
    cluster.node(1).flush();
    cluster.node(1).tell((engine) => engine.stepDown());
    cluster.node(1).restart(cluster.nowMs);
    cluster.run(5_000);
    const leader = cluster.leaders()[0]!;
    expect(leader.write(8)).toBeGreaterThan(0);
    cluster.run(200);
    expect(leader.engine.committedIndex).toBe(leader.engine.lastLogId.index);
    cluster.heal();
    cluster.run(5_000);
    for (const node of cluster.nodes.values()) {
      expect(node.log).toEqual(cluster.leaders()[0]!.log);
      expect(node.engine.committedIndex).toBe(node.log.length);
    }
  });

  it('known bug 37: a wiped voter votes again under its old id', () => {
    const wiped = new Single({ terms: [] });
    const lastLogId = { term: 3, index: 9 };
    wiped.receive(2, { type: 'PreVoteRequest', term: 4, lastLogId });
    wiped.receive(2, { type: 'VoteRequest', term: 4, lastLogId });
    wiped.node.flush();
    expect(wiped.messages('PreVoteResponse')).toMatchObject([{ granted: false }]);
    expect(wiped.messages('VoteResponse')).toMatchObject([{ granted: false }]);
    for (let nowMs = 100; nowMs <= 10_000; nowMs += 100) wiped.node.elapse(nowMs);
    wiped.node.tell((engine) => engine.campaign());
    expect(wiped.engine.role).toBe('learner');
    expect(wiped.engine.term).toBe(4);
    expect(wiped.messages('PreVoteRequest')).toEqual([]);
    expect(() => wiped.engine.bootstrap({ configs: [[1]], learners: [], addresses: {} })).toThrow(
      /pristine/,
    );
  });

  it('known bug 43: the log grows without bound while there is no quorum', () => {
    const cluster = new TestCluster({ maxUncommittedEntries: 10, checkQuorum: false });
    const leader = cluster.elect(1);
    cluster.isolate(1);
    const before = leader.engine.lastLogId.index;
    expect(leader.write(10)).toBe(before + 1);
    expect(leader.write(1)).toBe(0);
    cluster.run(5_000);
    expect(leader.write(1)).toBe(0);
    expect(leader.engine.lastLogId.index).toBe(before + 10);
    cluster.heal();
    cluster.run(3_000);
    const present = cluster.leaders().at(-1)!;
    expect(present.write(1)).toBeGreaterThan(0);
  });
});
