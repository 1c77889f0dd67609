import { describe, expect, it } from 'vitest';
import type { SnapshotRequest } from '../../dist/engine/messages.js';
import type { SnapshotMeta } from '../../dist/engine/types.js';
import { membershipOf, TestCluster } from './support/cluster.js';
import type { TestEntry, TestNode, TestSnapshot } from './support/node.js';
import { Single } from './support/single.js';

const DIRECT = { preVote: false };
const MEMBERSHIP = membershipOf(1, 2, 3);

/** A snapshot of entries with these terms; its membership stands in the first of them. */
function snapshotOf(terms: readonly number[], membership = MEMBERSHIP): TestSnapshot {
  const entries: TestEntry[] = terms.map((term, i) => ({
    term,
    content: `entry ${i + 1} of term ${term}`,
    membership: i === 0 ? membership : undefined,
  }));
  const meta: SnapshotMeta = {
    lastIncluded: { term: terms.at(-1)!, index: terms.length },
    membership: { index: 1, membership },
  };
  return { ...meta, entries };
}

function offer(single: Single, term: number, snapshot: TestSnapshot, session = 7): void {
  single.node.receive({
    from: 2,
    to: 1,
    offer: {
      type: 'SnapshotRequest',
      term,
      session,
      snapshotId: 'a',
      lastIncluded: snapshot.lastIncluded,
      totalBytes: 1,
      offset: 0,
    },
    snapshot,
  });
}

function requestFor({ lastIncluded }: TestSnapshot, term: number): SnapshotRequest {
  const place = { snapshotId: 'a', totalBytes: 100, offset: 0 };
  return { type: 'SnapshotRequest', term, session: 7, lastIncluded, ...place };
}

/** A leader of three that has purged its log up to a snapshot, and node 3, which was away. */
function leftBehind(): { cluster: TestCluster; leader: TestNode; away: TestNode } {
  const cluster = new TestCluster();
  const leader = cluster.elect(1);
  cluster.isolate(3);
  leader.write(10);
  cluster.settle();
  snapshotTwice(cluster, leader);
  expect(leader.engine.purgedIndex).toBeGreaterThan(5);
  return { cluster, leader, away: cluster.node(3) };
}

/** Two are kept, and the log behind the older one. */
function snapshotTwice(cluster: TestCluster, node: TestNode): void {
  for (let round = 0; round < 2; round++) {
    node.buildSnapshot();
    cluster.settle();
    node.write(1);
    cluster.settle();
  }
  node.buildSnapshot();
  cluster.settle();
}

describe('building', () => {
  it('is asked for only when something was applied since the last one', () => {
    const cluster = new TestCluster({ voters: [1] });
    const leader = cluster.elect(1);
    expect(leader.engine.snapshots.build()).toBe(true);
    leader.tell(() => {});
    cluster.settle();
    expect(leader.engine.snapshots.build()).toBe(false);
    leader.write(1);
    cluster.settle();
    expect(leader.engine.snapshots.build()).toBe(true);
  });

  it('purges what the oldest kept snapshot includes, and no more', () => {
    const cluster = new TestCluster();
    const leader = cluster.elect(1);
    leader.write(3);
    cluster.settle();
    leader.buildSnapshot();
    cluster.settle();
    const first = leader.engine.snapshots.newest.index;
    leader.write(3);
    cluster.settle();
    leader.buildSnapshot();
    cluster.settle();
    expect(leader.engine.snapshots.newest.index).toBe(first + 3);
    expect(leader.engine.purgedIndex).toBe(first);
  });

  it('keeps as many entries more as it is told', () => {
    const cluster = new TestCluster({ keepEntries: 4 });
    const leader = cluster.elect(1);
    leader.write(10);
    cluster.settle();
    leader.buildSnapshot();
    cluster.settle();
    expect(leader.engine.purgedIndex).toBe(leader.engine.snapshots.newest.index - 4);
  });

  it('known bug 16: a snapshot holds what was applied before it was persisted', () => {
    const cluster = new TestCluster();
    const leader = cluster.elect(1);
    leader.write(5);
    cluster.deliverWhere(() => true);
    // Committed by the others; the leader's own disk has not written it.
    cluster.node(2).flush();
    cluster.node(3).flush();
    cluster.deliverWhere(() => true);
    expect(leader.engine.committedIndex).toBe(leader.engine.lastLogId.index);
    leader.apply();
    leader.buildSnapshot();
    const { index } = leader.building!.lastIncluded;
    expect(index).toBeLessThanOrEqual(leader.disk.entries.length);
    expect(() => leader.engine.snapshots.describe(index + 5)).toThrow(/snapshot ≤ applied/);
  });
});

describe('what a snapshot says', () => {
  it('is the term and the membership of its own last entry, whatever came later', () => {
    const single = new Single({ terms: [1, 1], membership: MEMBERSHIP });
    const members = membershipOf(1, 2, 4);
    single.append(2, { term: 2, prev: [1, 2], terms: [2, 2], membership: members, committed: 4 });
    single.node.flush();
    single.node.apply();
    const { snapshots } = single.engine;
    expect(snapshots.describe(2)).toEqual({
      lastIncluded: { term: 1, index: 2 },
      membership: { index: 1, membership: MEMBERSHIP },
    });
    expect(snapshots.describe(3)).toEqual({
      lastIncluded: { term: 2, index: 3 },
      membership: { index: 3, membership: members },
    });
  });
});

describe('installing', () => {
  it('brings a follower up that needs purged entries, and goes on by the log', () => {
    const { cluster, leader, away } = leftBehind();
    cluster.heal();
    cluster.run(3_000);
    expect(away.trace.map(({ type }) => type)).toContain('InstallSnapshot');
    const index = leader.write(2) + 1;
    cluster.run(500);
    expect(away.engine.appliedIndex).toBe(index);
    expect(away.appliedContents).toEqual(leader.appliedContents);
  });

  it('is acknowledged only when the log behind it is durable', () => {
    const single = new Single({ terms: [1] });
    offer(single, 3, snapshotOf([1, 2, 3]));
    single.node.flush();
    single.node.completeArrived();
    expect(single.messages('SnapshotResponse')).toEqual([]);
    single.node.flush();
    expect(single.messages('SnapshotResponse')).toMatchObject([
      { state: 'installed', session: 7, matchIndex: 3 },
    ]);
    expect(single.node.disk.entries).toHaveLength(3);
  });

  it('leaves a log that leads to the snapshot as it is', () => {
    const single = new Single({ terms: [1, 1, 2, 2] });
    offer(single, 3, snapshotOf([1, 1, 2]));
    single.node.flush();
    expect(single.node.arrived).toEqual([]);
    expect(single.messages('SnapshotResponse')).toMatchObject([
      { state: 'installed', matchIndex: 3 },
    ]);
    expect(single.engine.committedIndex).toBe(3);
    expect(single.engine.lastLogId.index).toBe(4);
    expect(single.commands('ResetLog')).toEqual([]);
  });

  it('of the same snapshot again changes nothing', () => {
    const single = new Single({ terms: [1] });
    const snapshot = snapshotOf([1, 2, 3]);
    offer(single, 3, snapshot);
    offer(single, 3, snapshot);
    single.node.completeArrived();
    single.append(2, { term: 3, prev: [3, 3], terms: [3] });
    single.node.completeArrived();
    expect(single.commands('ResetLog')).toHaveLength(1);
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 4 });
  });

  it('of one whose last entry is purged here is not needed', () => {
    const single = new Single({ terms: [1] });
    offer(single, 3, snapshotOf([1, 2, 3]));
    single.node.completeArrived();
    single.node.flush();
    single.clear();
    offer(single, 3, snapshotOf([1, 2]));
    single.node.flush();
    expect(single.node.arrived).toEqual([]);
    expect(single.messages('SnapshotResponse')).toMatchObject([
      { state: 'installed', matchIndex: 2 },
    ]);
  });

  it('of a leader that was deposed is refused, and tells it the term', () => {
    const single = new Single({ vote: { term: 5, nodeId: 3, committed: true } });
    offer(single, 4, snapshotOf([1, 2, 3]));
    expect(single.node.arrived).toEqual([]);
    expect(single.messages('SnapshotResponse')).toMatchObject([{ state: 'failed', term: 5 }]);
  });

  it('tells how far it has come when the vote for the leader is durable, and not before', () => {
    const single = new Single({ terms: [1] });
    const request = requestFor(snapshotOf([1, 2, 3]), 3);
    single.node.tell((engine) => {
      expect(engine.handleSnapshot(2, request)).toBe(true);
      engine.snapshotProgressed(2, request, 40);
    });
    expect(single.messages('SnapshotResponse')).toEqual([]);
    single.node.flush();
    expect(single.messages('SnapshotResponse')).toMatchObject([
      { state: 'receiving', offset: 40, session: 7, term: 3 },
    ]);
  });

  it('tells a leader that was deposed meanwhile neither how far it has come nor that it failed', () => {
    const single = new Single({ terms: [1] });
    const request = requestFor(snapshotOf([1, 2, 3]), 3);
    single.node.tell((engine) => engine.handleSnapshot(2, request));
    single.append(3, { term: 4, prev: [1, 1], terms: [4] });
    single.node.flush();
    single.clear();
    single.node.tell((engine) => {
      engine.snapshotProgressed(2, request, 40);
      engine.snapshotRefused(2, request);
    });
    expect(single.messages('SnapshotResponse')).toEqual([]);
  });

  it('goes on after the leader that sent it was deposed, but answers nobody', () => {
    const single = new Single({ terms: [1] });
    offer(single, 3, snapshotOf([1, 2, 3]));
    single.append(3, { term: 4, prev: [4, 9], terms: [4] });
    single.node.flush();
    single.clear();
    single.node.completeArrived();
    single.node.flush();
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 3 });
    expect(single.messages('SnapshotResponse')).toEqual([]);
  });

  it('known bug 10: an append whose previous entry is purged deletes the log', () => {
    const single = new Single({ terms: [1] });
    offer(single, 3, snapshotOf([1, 2, 3]));
    single.node.completeArrived();
    single.append(2, { term: 3, prev: [3, 3], terms: [3, 3] });
    single.node.flush();
    single.clear();
    single.append(2, { term: 3, prev: [1, 1], terms: [2, 3, 3] });
    single.node.flush();
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 5 });
    expect(single.commands('TruncateAfter')).toEqual([]);
    expect(single.messages('AppendResponse')).toMatchObject([
      { matchIndex: 4, conflict: undefined },
    ]);
  });

  it('known bug 17: a snapshot meets a conflicting entry at its index, for ever', () => {
    const single = new Single({ terms: [1, 2, 2, 2, 2] });
    offer(single, 4, snapshotOf([1, 3, 3]));
    single.node.completeArrived();
    single.node.flush();
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 3 });
    expect(single.messages('SnapshotResponse')).toMatchObject([{ matchIndex: 3 }]);
    single.append(2, { term: 4, prev: [3, 3], terms: [4] });
    single.node.flush();
    single.node.apply();
    expect(single.messages('AppendResponse')).toMatchObject([{ matchIndex: 4 }]);
    expect(single.node.disk.entries.map(({ term }) => term)).toEqual([1, 3, 3, 4]);
  });

  it('known bug 18: an older snapshot drops a newer suffix of the log', () => {
    const single = new Single({ terms: [1, 1, 1, 1], committed: 3 });
    const old = snapshotOf([1, 1]);
    offer(single, 2, old);
    single.node.flush();
    expect(single.node.arrived).toEqual([]);
    single.node.arrived.push({
      from: 2,
      to: 1,
      offer: {
        type: 'SnapshotRequest',
        term: 2,
        session: 1,
        snapshotId: 'a',
        lastIncluded: old.lastIncluded,
        totalBytes: 1,
        offset: 0,
      },
      snapshot: old,
    });
    single.node.completeArrived();
    expect(single.commands('ResetLog')).toEqual([]);
    expect(single.engine.lastLogId).toEqual({ term: 1, index: 4 });
    expect(single.engine.committedIndex).toBe(3);
  });

  it('known bug 19: an installed snapshot leaves a stale membership in force', () => {
    const single = new Single({ terms: [1, 1], membership: membershipOf(1, 2, 3) });
    const members = membershipOf(1, 2, 4, 5);
    offer(single, 4, snapshotOf([1, 3, 3], members));
    single.node.completeArrived();
    single.node.flush();
    expect(single.engine.membership).toEqual(members);
    single.node.restart(0);
    expect(single.engine.membership).toEqual(members);
    single.append(2, { term: 4, prev: [3, 3], terms: [4], membership: membershipOf(1, 2) });
    expect(single.engine.membership).toEqual(membershipOf(1, 2));
    single.append(2, { term: 5, prev: [3, 3], terms: [5] });
    expect(single.engine.membership).toEqual(members);
  });

  it('holds back what is applied until the machine is restored', () => {
    const single = new Single({ terms: [1] });
    offer(single, 3, snapshotOf([1, 2, 3]));
    single.node.completeArrived();
    single.append(2, { term: 3, prev: [3, 3], terms: [3], committed: 4 });
    single.node.flush();
    expect(single.engine.appliedIndex).toBe(0);
    expect(single.commands('Apply').at(-1)).toMatchObject({ firstIndex: 4, lastIndex: 4 });
    single.node.apply();
    expect(single.engine.appliedIndex).toBe(4);
    expect(single.node.appliedContents).toHaveLength(4);
  });
});

describe('a restart', () => {
  it('begins from the newest snapshot and the log behind it', () => {
    const { leader, cluster } = leftBehind();
    leader.flush();
    leader.restart(cluster.nowMs);
    expect(leader.engine.appliedIndex).toBe(leader.engine.snapshots.newest.index);
    expect(leader.appliedContents).toHaveLength(leader.engine.appliedIndex);
    cluster.heal();
    cluster.run(5_000);
    expect(cluster.leaders()).toHaveLength(1);
  });

  it('known bug 38: a restart right after a purge loses the log', () => {
    const { leader, cluster } = leftBehind();
    const { purgedIndex, lastLogId } = leader.engine;
    leader.flush();
    leader.restart(cluster.nowMs);
    expect(leader.engine.lastLogId).toEqual(lastLogId);
    expect(leader.engine.purgedIndex).toBeLessThanOrEqual(purgedIndex);
    for (let index = leader.engine.purgedIndex + 1; index <= lastLogId.index; index++) {
      expect(leader.engine.termAt(index), `index ${index}`).toBeGreaterThan(0);
    }
  });

  it.each([
    ['ends before it', [1, 2]],
    ['holds another entry at its index', [1, 2, 2, 2]],
    ['is empty', []],
  ])('known bug 14: the power fails between a snapshot and the log, which %s', (_, terms) => {
    const single = new Single({ terms, vote: { term: 2, nodeId: 3, committed: true } });
    single.node.disk.keep(snapshotOf([1, 3, 3]));
    single.node.restart(0);
    single.node.flush();
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 3 });
    expect(single.engine.committedIndex).toBe(3);
    expect(single.node.disk.vote.term).toBe(3);
    expect(single.node.disk.entries).toHaveLength(3);
    single.append(2, { term: 4, prev: [3, 3], terms: [4] });
    single.node.flush();
    expect(single.messages('AppendResponse').at(-1)).toMatchObject({ matchIndex: 4 });
  });

  it('known bug 11: a tail that was overwritten comes back behind a snapshot', () => {
    const single = new Single({ terms: [1, 2, 2, 2, 2, 2] });
    offer(single, 4, snapshotOf([1, 3, 3]));
    single.node.completeArrived();
    single.node.flush();
    single.node.restart(0);
    expect(single.engine.lastLogId).toEqual({ term: 3, index: 3 });
    expect(single.engine.termAt(4)).toBe(-1);
  });

  it('keeps a log that leads to the snapshot', () => {
    const single = new Single({ terms: [1, 1, 1, 1] });
    single.node.disk.keep(snapshotOf([1, 1]));
    single.node.restart(0);
    expect(single.commands('ResetLog')).toEqual([]);
    expect(single.engine.lastLogId.index).toBe(4);
    expect(single.engine.appliedIndex).toBe(2);
  });
});

describe('sending', () => {
  it('begins when the follower rejects the first kept entry, and not before', () => {
    const { cluster, leader } = leftBehind();
    leader.tell((engine) => engine.peerDisconnected(3));
    cluster.heal();
    leader.tell((engine) => engine.peerConnected(3));
    expect(leader.sending.size).toBe(0);
    cluster.deliverWhere(() => true);
    cluster.deliverWhere(() => true);
    expect(leader.sending.get(3)?.lastIncluded).toBe(leader.engine.snapshots.newest);
  });

  it('never stops the heartbeats, and no append goes to that follower meanwhile', () => {
    const { cluster, leader, away } = leftBehind();
    cluster.carries = (packet) => !('offer' in packet);
    cluster.run(3_000);
    expect(leader.sending.size).toBe(1);
    leader.trace.length = 0;
    leader.write(1);
    cluster.run(500);
    const types = leader.trace.filter((command) => 'target' in command && command.target === 3);
    expect(new Set(types.map(({ type }) => type))).toEqual(new Set(['Send']));
    expect(away.engine.leader).toBe(1);
  });

  it('known bug 36: a follower that crashes in the middle is stranded', () => {
    const { cluster, leader, away } = leftBehind();
    cluster.heal();
    while (away.arrived.length === 0) {
      cluster.tick(50);
      cluster.deliverWhere(() => true);
      cluster.flushAll();
    }
    leader.tell((engine) => engine.peerDisconnected(3));
    away.restart(cluster.nowMs);
    leader.tell((engine) => engine.peerConnected(3));
    cluster.run(3_000);
    expect(away.engine.appliedIndex).toBe(leader.engine.appliedIndex);
  });

  it('begins anew when it failed, at the next sign of life', () => {
    const { cluster, leader, away } = leftBehind();
    cluster.carries = (packet) => !('offer' in packet);
    cluster.run(3_000);
    const { session } = leader.sending.get(3)!;
    cluster.heal();
    leader.tell((engine) => engine.snapshots.sendFailed(3, session));
    expect(leader.engine.snapshots.sends(3, session)).toBe(false);
    cluster.run(2_000);
    expect(away.engine.appliedIndex).toBe(leader.engine.appliedIndex);
  });

  it('known bug 47: the leader purges the log that a running transfer needs', () => {
    const { cluster, leader, away } = leftBehind();
    cluster.carries = (packet) => !('offer' in packet);
    cluster.run(3_000);
    const sent = leader.sending.get(3)!.lastIncluded.index;
    leader.write(5);
    cluster.run(500);
    snapshotTwice(cluster, leader);
    snapshotTwice(cluster, leader);
    expect(leader.disk.snapshots[0]!.lastIncluded.index).toBeGreaterThan(sent);
    expect(leader.engine.purgedIndex).toBeLessThanOrEqual(sent);
    away.trace.length = 0;
    const { session, term, lastIncluded } = leader.sending.get(3)!;
    leader.tell((engine) =>
      engine.receive(3, {
        type: 'SnapshotResponse',
        term,
        session,
        state: 'installed',
        offset: 0,
        matchIndex: lastIncluded.index,
      }),
    );
    const next = leader.trace.findLast(({ type }) => type === 'Replicate');
    expect(next).toMatchObject({ target: 3, prevLogId: lastIncluded });
    // Nor does it purge what the follower has yet to be sent behind the snapshot.
    expect(leader.engine.purgedIndex).toBeLessThanOrEqual(sent);
    leader.tell((engine) => {
      engine.receive(3, {
        type: 'AppendResponse',
        term,
        session,
        matchIndex: engine.lastLogId.index,
        conflict: undefined,
      });
    });
    expect(leader.engine.purgedIndex).toBeGreaterThan(sent);
  });

  it('gives the log free that it had kept, when it is over', () => {
    const { cluster, leader } = leftBehind();
    cluster.carries = (packet) => !('offer' in packet);
    cluster.run(3_000);
    const pinned = leader.sending.get(3)!.lastIncluded.index;
    leader.write(5);
    cluster.run(500);
    snapshotTwice(cluster, leader);
    expect(leader.engine.purgedIndex).toBeLessThanOrEqual(pinned);
    cluster.heal();
    cluster.run(3_000);
    const kept = leader.disk.snapshots.map(({ lastIncluded }) => lastIncluded.index);
    expect(Math.min(...kept)).toBeGreaterThan(pinned);
    expect(leader.engine.purgedIndex).toBe(Math.min(...kept));
  });

  it('gives the log free that it had kept, when it came to nothing', () => {
    const { cluster, leader } = leftBehind();
    cluster.carries = (packet) => !('offer' in packet);
    cluster.run(3_000);
    const { session, lastIncluded } = leader.sending.get(3)!;
    leader.write(5);
    cluster.run(500);
    snapshotTwice(cluster, leader);
    expect(leader.engine.purgedIndex).toBeLessThanOrEqual(lastIncluded.index);
    leader.tell(({ snapshots }) => snapshots.sendFailed(3, session));
    const kept = leader.disk.snapshots.map(({ lastIncluded: { index } }) => index);
    expect(leader.engine.purgedIndex).toBe(Math.min(...kept));
    expect(leader.engine.purgedIndex).toBeGreaterThan(lastIncluded.index);
  });

  it('of an older one than it was asked for keeps the log behind that one', () => {
    const { cluster, leader, away } = leftBehind();
    cluster.carries = (packet) => !('offer' in packet);
    cluster.run(3_000);
    const { session, lastIncluded } = leader.sending.get(3)!;
    const { purgedIndex } = leader.engine;
    expect(purgedIndex).toBeLessThan(lastIncluded.index);
    leader.tell(({ snapshots }) => {
      expect(snapshots.sendsInstead(3, session, purgedIndex - 1)).toBe(false);
      expect(snapshots.sendsInstead(3, session, purgedIndex)).toBe(true);
      expect(snapshots.sends(3, session)).toBe(true);
    });
    snapshotTwice(cluster, leader);
    snapshotTwice(cluster, leader);
    expect(leader.engine.purgedIndex).toBe(purgedIndex);
    expect(away.engine.purgedIndex).toBe(0);
  });

  it('of a term that is over counts for nothing', () => {
    const single = new Single({ terms: [1, 1], config: DIRECT });
    single.lead();
    single.node.flush();
    const { term } = single.engine;
    const response = { type: 'SnapshotResponse', term, state: 'installed', offset: 0 } as const;
    single.receive(3, { ...response, session: single.sessionOf(3), matchIndex: 2 });
    expect(single.engine.matchIndex(3)).toBe(0);
  });
});
