import { describe, expect, it } from 'vitest';
import { Engine } from '../../dist/engine/engine.js';
import { membershipOf, TEST_CONFIG, TestCluster } from './support/cluster.js';
import { Single } from './support/single.js';

const DIRECT = { preVote: false };
const UP_TO_DATE = { term: 1, index: 1 };

describe('election', () => {
  it('elects one leader, which all know', () => {
    const cluster = new TestCluster();
    cluster.run(3_000);
    expect(cluster.leaders()).toHaveLength(1);
    const leader = cluster.leaders()[0]!;
    expect(leader.engine.isReadyToLead).toBe(true);
    for (const node of cluster.nodes.values()) {
      expect(node.engine.leader).toBe(leader.id);
      expect(node.engine.vote).toEqual({ term: 2, nodeId: leader.id, committed: true });
    }
  });

  it.each([1, 2, 3, 4, 5, 6, 7])('a fresh cluster of %i voters elects a leader', (size) => {
    const voters = Array.from({ length: size }, (_, i) => i + 1);
    const cluster = new TestCluster({ voters });
    cluster.run(8_000);
    expect(cluster.leaders()).toHaveLength(1);
    expect(cluster.leaders()[0]!.write(1)).toBeGreaterThan(0);
    cluster.run(200);
    for (const node of cluster.nodes.values()) {
      expect(node.appliedContents).toEqual(cluster.leaders()[0]!.appliedContents);
    }
  });

  it('asks for votes only once its own is durable, and counts it only then', () => {
    const single = new Single({ config: DIRECT });
    single.node.tell((engine) => engine.campaign());
    expect(single.sent).toEqual([]);
    single.receive(2, { type: 'VoteResponse', term: 2, requestTerm: 2, granted: true });
    expect(single.engine.role).toBe('candidate');
    single.node.flush();
    expect(single.engine.role).toBe('leader');
    expect(single.messages('VoteRequest')).toHaveLength(2);
  });

  it('a single voter elects itself as soon as its vote is durable', () => {
    const single = new Single({ membership: membershipOf(1) });
    single.node.tell((engine) => engine.campaign());
    expect(single.engine.role).toBe('candidate');
    single.node.flush();
    expect(single.engine.role).toBe('leader');
    single.node.flush();
    expect(single.engine.committedIndex).toBe(2);
  });

  it('a vote is refused to a log that is behind, and its term is taken over', () => {
    const single = new Single({ terms: [1, 2, 2] });
    single.receive(2, { type: 'VoteRequest', term: 5, lastLogId: { term: 2, index: 2 } });
    single.receive(3, { type: 'VoteRequest', term: 5, lastLogId: { term: 1, index: 9 } });
    single.receive(2, { type: 'VoteRequest', term: 5, lastLogId: { term: 2, index: 3 } });
    single.node.flush();
    expect(single.messages('VoteResponse').map((vote) => vote.granted)).toEqual([
      false,
      false,
      true,
    ]);
    expect(single.engine.term).toBe(5);
  });

  it('a candidate of an earlier term is told the present one', () => {
    const single = new Single({ vote: { term: 4, nodeId: 0, committed: false } });
    single.receive(2, { type: 'VoteRequest', term: 3, lastLogId: UP_TO_DATE });
    expect(single.messages('VoteResponse')).toMatchObject([
      { term: 4, requestTerm: 3, granted: false },
    ]);
    expect(single.engine.vote.nodeId).toBe(0);
  });

  it('votes of outsiders and of other terms do not count', () => {
    const single = new Single({ config: DIRECT, membership: membershipOf(1, 2, 3, 4, 5) });
    single.node.tell((engine) => engine.campaign());
    single.node.flush();
    const vote = { type: 'VoteResponse', term: 2, requestTerm: 2, granted: true } as const;
    single.receive(2, vote);
    single.receive(2, vote);
    single.receive(9, vote);
    single.receive(3, { ...vote, requestTerm: 1 });
    single.receive(3, { ...vote, granted: false });
    single.receive(4, { type: 'PreVoteResponse', term: 2, requestTerm: 2, granted: true });
    expect(single.engine.role).toBe('candidate');
    single.receive(5, vote);
    expect(single.engine.role).toBe('leader');
  });

  it('a joint configuration elects only with a majority of each', () => {
    const membership = {
      ...membershipOf(),
      configs: [
        [1, 2, 3],
        [1, 4, 5],
      ],
    };
    const single = new Single({ config: DIRECT, membership });
    single.node.tell((engine) => engine.campaign());
    single.node.flush();
    const vote = { type: 'VoteResponse', term: 2, requestTerm: 2, granted: true } as const;
    single.receive(2, vote);
    single.receive(3, vote);
    expect(single.engine.role).toBe('candidate');
    single.receive(4, vote);
    expect(single.engine.role).toBe('leader');
  });

  it('learners and outsiders never campaign', () => {
    const learner = new Single({ membership: { ...membershipOf(2, 3), learners: [1] } });
    const outsider = new Single({ membership: membershipOf(2, 3) });
    for (const single of [learner, outsider]) {
      for (let nowMs = 100; nowMs <= 5_000; nowMs += 100) single.node.elapse(nowMs);
      single.node.tell((engine) => engine.campaign());
      expect(single.engine.role).toBe('learner');
      expect(single.sent).toEqual([]);
      // It still votes: it may have been promoted without knowing it yet.
      single.receive(2, { type: 'VoteRequest', term: 2, lastLogId: UP_TO_DATE });
      single.node.flush();
      expect(single.messages('VoteResponse')).toMatchObject([{ granted: true }]);
    }
  });

  it('a learner forgets a leader that it does not hear any more', () => {
    const single = new Single({ membership: { ...membershipOf(2, 3), learners: [1] } });
    single.receive(2, { type: 'HeartbeatRequest', term: 2, committed: 0, round: 1 });
    expect(single.engine.leader).toBe(2);
    for (let nowMs = 100; nowMs <= 2_000; nowMs += 100) single.node.elapse(nowMs);
    expect(single.engine.leader).toBe(0);
    expect(single.commands('LeadershipChanged').at(-1)).toMatchObject({
      role: 'learner',
      leader: 0,
    });
    single.receive(2, { type: 'HeartbeatRequest', term: 2, committed: 0, round: 2 });
    expect(single.engine.leader).toBe(2);
  });

  it('a restarted leader is a follower and leads again only in a higher term', () => {
    const cluster = new TestCluster();
    const leader = cluster.elect(1);
    leader.restart(cluster.nowMs);
    expect(leader.engine.role).toBe('follower');
    expect(leader.engine.leader).toBe(0);
    expect(leader.write(1)).toBe(0);
    cluster.run(4_000);
    expect(cluster.leaders()[0]!.engine.term).toBeGreaterThan(2);
  });

  it('bootstrap writes one fixed entry, and only on a pristine node', () => {
    const single = new Single({ terms: [] });
    expect(single.engine.isPristine).toBe(true);
    single.node.bootstrap(membershipOf(1, 2, 3));
    expect(single.engine.lastLogId).toEqual({ term: 1, index: 1 });
    expect(single.engine.vote).toEqual({ term: 1, nodeId: 0, committed: false });
    expect(single.commands('AppendEntries')).toMatchObject([{ source: 'bootstrap', lastIndex: 1 }]);
    expect(single.commands('MembershipChanged')).toMatchObject([{ index: 1 }]);
    expect(() => single.engine.bootstrap(membershipOf(1, 2, 3))).toThrow(/pristine/);
  });

  it('bootstrap goes on where a crash kept its vote but not its entry', () => {
    const single = new Single({ terms: [] });
    single.node.bootstrap(membershipOf(1, 2, 3));
    single.node.flush(1);
    single.node.restart(0);
    expect(single.engine.vote.term).toBe(1);
    single.node.bootstrap(membershipOf(1, 2, 3));
    expect(single.engine.lastLogId).toEqual({ term: 1, index: 1 });
  });
});

describe('pre-vote', () => {
  it('raises no term before a majority would vote', () => {
    const single = new Single();
    for (let nowMs = 100; nowMs <= 9_000; nowMs += 100) single.node.elapse(nowMs);
    expect(single.engine.role).toBe('pre-candidate');
    expect(single.engine.term).toBe(1);
    expect(single.messages('PreVoteRequest')[0]).toMatchObject({ term: 2 });
    single.receive(2, { type: 'PreVoteResponse', term: 1, requestTerm: 2, granted: true });
    expect(single.engine.role).toBe('candidate');
    expect(single.engine.term).toBe(2);
  });

  it('is refused while a leader is alive, and the node that was away disturbs nobody', () => {
    const cluster = new TestCluster();
    cluster.elect(1);
    cluster.isolate(3);
    cluster.run(5_000);
    expect(cluster.node(3).engine.role).toBe('pre-candidate');
    cluster.heal();
    cluster.run(3_000);
    expect(cluster.node(1).engine.role).toBe('leader');
    expect(cluster.node(1).engine.term).toBe(2);
    expect(cluster.node(3).engine.leader).toBe(1);
  });

  it('is granted only for a term to come, to a log not behind, and while no leader is heard', () => {
    const single = new Single({ terms: [1, 3] });
    const lastLogId = { term: 3, index: 2 };
    const ask = (term: number, log = lastLogId): boolean => {
      single.clear();
      single.receive(3, { type: 'PreVoteRequest', term, lastLogId: log });
      return single.messages('PreVoteResponse')[0]!.granted;
    };
    expect(ask(4)).toBe(true);
    expect(ask(3)).toBe(false);
    expect(ask(4, { term: 3, index: 1 })).toBe(false);
    single.receive(2, { type: 'HeartbeatRequest', term: 3, committed: 0, round: 1 });
    single.node.flush();
    expect(ask(4)).toBe(false);
    for (let nowMs = 250; nowMs <= 1_000; nowMs += 250) single.node.elapse(nowMs);
    expect(ask(4)).toBe(true);
    expect(single.engine.term).toBe(3);
  });

  it('adopts the higher term of a refusal', () => {
    const single = new Single();
    single.node.tell((engine) => engine.campaign());
    single.receive(2, { type: 'PreVoteResponse', term: 8, requestTerm: 2, granted: false });
    expect(single.engine.term).toBe(8);
    expect(single.engine.role).toBe('follower');
  });
});

describe('check-quorum', () => {
  it('a leader that hears no majority steps down within two election timeouts', () => {
    const cluster = new TestCluster();
    cluster.elect(1);
    cluster.isolate(1);
    cluster.run(1_500);
    expect(cluster.node(1).engine.role).not.toBe('leader');
    expect(cluster.node(1).engine.vote).toEqual({ term: 2, nodeId: 1, committed: true });
  });

  it('a leader that hears a majority stays', () => {
    const cluster = new TestCluster();
    cluster.elect(1);
    cluster.isolate(3);
    cluster.run(10_000);
    expect(cluster.node(1).engine.role).toBe('leader');
  });

  it('a leader ignores candidates as long as it hears a majority', () => {
    const single = new Single({ config: DIRECT });
    single.lead();
    single.clear();
    single.receive(3, { type: 'VoteRequest', term: 9, lastLogId: { term: 8, index: 9 } });
    single.receive(3, { type: 'PreVoteRequest', term: 9, lastLogId: { term: 8, index: 9 } });
    single.node.flush();
    expect(single.engine.role).toBe('leader');
    expect(single.messages('VoteResponse')).toEqual([]);
    expect(single.messages('PreVoteResponse')).toMatchObject([{ granted: false }]);
  });

  it('candidates are ignored, their term included, while the leader is alive', () => {
    const single = new Single();
    single.receive(2, { type: 'HeartbeatRequest', term: 2, committed: 0, round: 1 });
    single.node.flush();
    single.clear();
    single.receive(3, { type: 'VoteRequest', term: 3, lastLogId: { term: 2, index: 5 } });
    expect(single.node.trace).toEqual([]);
    for (let nowMs = 250; nowMs <= 1_000; nowMs += 250) single.node.elapse(nowMs);
    single.receive(3, { type: 'VoteRequest', term: 3, lastLogId: { term: 2, index: 5 } });
    single.node.flush();
    expect(single.messages('VoteResponse')).toMatchObject([{ granted: true }]);
  });
});

describe('time', () => {
  const pauseMs = TEST_CONFIG.electionTimeoutMs * 5;

  it('timeouts start anew after a pause of the process, instead of firing', () => {
    const single = new Single();
    single.node.elapse(pauseMs);
    expect(single.engine.role).toBe('follower');
    expect(single.sent).toEqual([]);
    for (let passed = 0; passed <= 2_000; passed += 100) single.node.elapse(pauseMs + passed);
    expect(single.engine.role).toBe('pre-candidate');
  });

  it('a pause voids what a node promised to a live leader', () => {
    const single = new Single();
    single.receive(2, { type: 'HeartbeatRequest', term: 2, committed: 0, round: 1 });
    single.node.flush();
    single.node.elapse(600);
    single.clear();
    single.receive(3, { type: 'VoteRequest', term: 3, lastLogId: { term: 2, index: 5 } });
    single.node.flush();
    expect(single.messages('VoteResponse')).toMatchObject([{ granted: true }]);
  });

  it('a leader that was paused asks the others before it gives up', () => {
    const single = new Single({ config: DIRECT });
    single.lead();
    single.clear();
    single.node.elapse(pauseMs);
    expect(single.engine.role).toBe('leader');
    expect(single.messages('HeartbeatRequest')).toHaveLength(2);
    for (let passed = 0; passed <= 1_100; passed += 100) single.node.elapse(pauseMs + passed);
    expect(single.engine.role).toBe('follower');
  });

  it('the next deadline is near enough to tell a pause from idleness', () => {
    const single = new Single();
    for (let calls = 0; single.engine.role === 'follower'; calls++) {
      const deadlineMs = single.engine.nextDeadline();
      expect(deadlineMs).toBeGreaterThan(0);
      single.node.elapse(deadlineMs);
      expect(calls).toBeLessThan(20);
    }
    expect(single.engine.role).toBe('pre-candidate');
  });

  it('timeouts differ between nodes with one seed, and are the same for the same node', () => {
    const timeoutOf = (nodeId: number): number => {
      const single = new Single({ config: { nodeId }, membership: membershipOf(1, 2, 3, 4, 5) });
      let nowMs = 0;
      while (single.engine.role === 'follower') single.node.elapse(++nowMs);
      return nowMs;
    };
    const timeouts = [1, 2, 3, 4, 5].map(timeoutOf);
    expect(new Set(timeouts).size).toBe(5);
    expect([1, 2, 3, 4, 5].map(timeoutOf)).toEqual(timeouts);
    for (const timeoutMs of timeouts) {
      expect(timeoutMs).toBeGreaterThanOrEqual(1_000);
      expect(timeoutMs).toBeLessThan(2_000);
    }
  });

  it('known bug 49: a node whose disk fails is elected again: one whose disk stands still does not campaign', () => {
    const single = new Single();
    single.append(2, { term: 2, prev: [1, 1], terms: [2] });
    for (let nowMs = 100; nowMs <= 8_000; nowMs += 100) single.node.elapse(nowMs);
    expect(single.engine.role).toBe('follower');
    single.node.flush();
    for (let nowMs = 8_100; nowMs <= 11_000; nowMs += 100) single.node.elapse(nowMs);
    expect(single.engine.role).toBe('pre-candidate');
  });

  it('refuses a configuration that cannot work', () => {
    const recovered = new Single({ terms: [] }).node.disk.recover();
    const config = { ...TEST_CONFIG, nodeId: 1, heartbeatIntervalMs: 800 };
    expect(() => new Engine(config, recovered, 0)).toThrow(/heartbeat/);
  });
});
