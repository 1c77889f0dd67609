import { describe, expect, it } from 'vitest';
import { membershipOf } from './support/cluster.js';
import { Single } from './support/single.js';

function leading(): Single {
  const single = new Single({ config: { preVote: false } });
  single.lead();
  single.node.flush();
  single.acknowledge(2, 2);
  single.clear();
  return single;
}

function answer(single: Single, from: number, round: number): void {
  single.receive(from, { type: 'HeartbeatResponse', term: single.engine.term, round });
}

describe('linearizable reads', () => {
  it('are answered by a round of heartbeats that began after them', () => {
    const single = leading();
    const before = single.node.engine.committedIndex;
    const round = single.node.read();
    expect(single.messages('HeartbeatRequest').map((message) => message.round)).toEqual([
      round,
      round,
    ]);
    answer(single, 2, round - 1);
    expect(single.node.readsReady).toEqual([]);
    answer(single, 2, round);
    expect(single.node.readsReady).toEqual([{ round, index: before }]);
    answer(single, 3, round);
    expect(single.node.readsReady).toHaveLength(1);
  });

  it('that arrive during a round wait together for the next', () => {
    const single = leading();
    const first = single.node.read();
    const second = single.node.read();
    expect(second).toBe(first + 1);
    expect(single.node.read()).toBe(second);
    expect(single.messages('HeartbeatRequest')).toHaveLength(2);
    answer(single, 3, first);
    expect(single.node.readsReady.map((read) => read.round)).toEqual([first]);
    expect(
      single
        .messages('HeartbeatRequest')
        .map((message) => message.round)
        .slice(2),
    ).toEqual([second, second]);
    answer(single, 2, second);
    expect(single.node.readsReady.map((read) => read.round)).toEqual([first, second]);
  });

  it('that wait join a regular heartbeat, which makes up for a lost round', () => {
    const single = leading();
    single.node.read();
    const waiting = single.node.read();
    single.node.elapse(100);
    answer(single, 2, waiting);
    expect(single.node.readsReady.at(-1)!.round).toBe(waiting);
  });

  it('are not confirmed by one answer repeated, nor by strangers', () => {
    const single = new Single({
      config: { preVote: false },
      membership: { ...membershipOf(1, 2, 3, 4, 5), learners: [6] },
    });
    single.node.tell((engine) => engine.campaign());
    single.node.flush();
    for (const from of [2, 3]) {
      single.receive(from, { type: 'VoteResponse', term: 2, requestTerm: 2, granted: true });
    }
    single.node.flush();
    single.acknowledge(2, 2);
    single.acknowledge(3, 2);
    const round = single.node.read();
    for (const from of [2, 2, 6, 9]) answer(single, from, round);
    expect(single.node.readsReady).toEqual([]);
    answer(single, 4, round);
    expect(single.node.readsReady).toHaveLength(1);
  });

  it('fail when the leader is deposed, and their numbers are not used again', () => {
    const single = leading();
    single.node.read();
    const waiting = single.node.read();
    single.append(3, { term: 9, prev: [1, 1] });
    expect(single.node.readsFailed).toEqual([waiting]);
    expect(single.node.read()).toBe(0);
    single.node.flush();
    single.node.tell((engine) => engine.stepDown());
    single.clear();
    single.lead();
    expect(single.messages('HeartbeatRequest')[0]!.round).toBeGreaterThan(waiting);
  });

  it('of a single voter are answered at once', () => {
    const single = new Single({ membership: membershipOf(1), config: { preVote: false } });
    single.node.tell((engine) => engine.campaign());
    single.node.flush();
    const early = single.node.read();
    expect(single.node.readsReady).toEqual([]);
    single.node.flush();
    expect(single.node.readsReady).toEqual([{ round: early, index: 2 }]);
    const round = single.node.read();
    expect(single.node.readsReady.at(-1)).toEqual({ round, index: 2 });
    expect(single.messages('HeartbeatRequest')).toEqual([]);
  });

  it('are refused by a follower', () => {
    expect(new Single().node.read()).toBe(0);
  });
});
