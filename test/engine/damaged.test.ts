/** A node whose disk has lost entries or votes: it applies what it knows, and takes no part in anything. */
import { describe, expect, it } from 'vitest';
import type { Command } from '../../dist/engine/commands.js';
import { Engine } from '../../dist/engine/engine.js';
import type { ControlMessage, SnapshotRequest } from '../../dist/engine/messages.js';
import type { RecoveredLog } from '../../dist/engine/types.js';
import { membershipOf, TEST_CONFIG } from './support/cluster.js';

const PEERS = membershipOf(1, 2, 3);

const LOG: RecoveredLog = {
  vote: { term: 3, nodeId: 2, committed: true },
  purged: { term: 0, index: 0 },
  termRuns: [{ firstIndex: 1, term: 3 }],
  lastIndex: 6,
  committed: 4,
  memberships: [{ index: 1, membership: PEERS }],
  damaged: true,
};

const EMPTY: RecoveredLog = {
  vote: { term: 0, nodeId: 0, committed: false },
  purged: { term: 0, index: 0 },
  termRuns: [],
  lastIndex: 0,
  committed: 0,
  memberships: [],
  damaged: true,
};

function open(recovered: RecoveredLog): Engine {
  return new Engine({ ...TEST_CONFIG, keepEntries: 0, nodeId: 1 }, recovered, 0);
}

function drain(engine: Engine): Command['type'][] {
  const types: Command['type'][] = [];
  for (let next = engine.nextCommand(); next !== undefined; next = engine.nextCommand()) {
    types.push(next.type);
  }
  return types;
}

const lastLogId = { term: 9, index: 99 };
const MESSAGES: readonly ControlMessage[] = [3, 9].flatMap((term): ControlMessage[] => [
  { type: 'PreVoteRequest', term: term + 1, lastLogId },
  { type: 'PreVoteResponse', term, requestTerm: 4, granted: true },
  { type: 'VoteRequest', term, lastLogId },
  { type: 'VoteResponse', term, requestTerm: term, granted: true },
  { type: 'HeartbeatRequest', term, committed: 6, round: 1 },
  { type: 'HeartbeatResponse', term, round: 1 },
  { type: 'AppendResponse', term, session: 1, matchIndex: 6, conflict: undefined },
  { type: 'SnapshotResponse', term, session: 1, state: 'installed', offset: 0, matchIndex: 6 },
]);

describe('a node whose log is damaged', () => {
  it('applies what it knows to be committed', () => {
    const engine = open(LOG);
    expect(engine.role).toBe('damaged');
    expect(drain(engine)).toEqual(['LeadershipChanged', 'Apply']);
    engine.applied(4);
    expect([engine.appliedIndex, engine.committedIndex]).toEqual([4, 4]);
  });

  it.each(MESSAGES)('neither answers nor heeds a $type of term $term', (message) => {
    const engine = open(LOG);
    drain(engine);
    engine.receive(2, message);
    expect(drain(engine)).toEqual([]);
    expect([engine.term, engine.leader, engine.committedIndex]).toEqual([3, 0, 4]);
  });

  it.each([3, 9])('takes no entries and no snapshot of a leader of term %d', (term) => {
    const engine = open(LOG);
    drain(engine);
    const prevLogId = { term: 3, index: 6 };
    const request = { type: 'AppendRequest', term, session: 1, prevLogId } as const;
    const termRuns = [{ firstIndex: 7, term }];
    const entries = { termRuns, lastIndex: 8, memberships: [] };
    engine.handleAppend(2, { ...request, lastIndex: 8, committed: 8 }, entries);
    const offer: SnapshotRequest = {
      type: 'SnapshotRequest',
      term,
      session: 1,
      snapshotId: '00'.repeat(16),
      lastIncluded: { term, index: 50 },
      totalBytes: 1_000,
      offset: 0,
    };
    expect(engine.handleSnapshot(2, offer)).toBe(false);
    expect(drain(engine)).toEqual([]);
    expect(engine.lastLogId.index).toBe(6);
  });

  it.each([
    ['of three', PEERS],
    ['that is alone', membershipOf(1)],
  ])('never campaigns, as a voter %s', (_, membership) => {
    const engine = open({ ...LOG, memberships: [{ index: 1, membership }] });
    drain(engine);
    for (let nowMs = 0; nowMs < 60_000; nowMs += 200) engine.elapse(nowMs);
    engine.campaign();
    expect(drain(engine)).toEqual([]);
    expect([engine.role, engine.term]).toEqual(['damaged', 3]);
  });

  it('is not taken for a new one, though nothing is left of its log', () => {
    expect(open({ ...EMPTY, damaged: false }).isPristine).toBe(true);
    expect(open(EMPTY).isPristine).toBe(false);
  });

  it('takes no writes and no reads, builds no snapshot and purges nothing', () => {
    const snapshot = {
      lastIncluded: { term: 3, index: 3 },
      membership: { index: 1, membership: PEERS },
    };
    const engine = open({ ...LOG, applied: 3, snapshot });
    drain(engine);
    engine.applied(4);
    expect([engine.clientWrite(1), engine.requestRead()]).toEqual([0, 0]);
    expect(engine.snapshots.build()).toBe(false);
    engine.snapshots.kept(3);
    expect(drain(engine)).toEqual([]);
  });
});

it('a node whose log is whole again takes part', () => {
  const engine = open({ ...LOG, damaged: false });
  drain(engine);
  engine.receive(2, { type: 'HeartbeatRequest', term: 3, committed: 6, round: 1 });
  expect(drain(engine)).toContain('Send');
});
