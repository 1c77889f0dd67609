/** What an engine starts from where the log has lost something and the machine holds a part of it. */
import { expect, it } from 'vitest';
import type { Command } from '../../dist/engine/commands.js';
import { Engine } from '../../dist/engine/engine.js';
import type { LostRange, RecoveredLog } from '../../dist/engine/types.js';
import { readableLog } from '../../dist/readable-log.js';
import { membershipOf, TEST_CONFIG } from '../engine/support/cluster.js';

const stored = (index: number, ...voters: number[]) => ({
  index,
  membership: membershipOf(...voters),
});

/** Ten entries of the first two terms, committed up to the seventh. */
const LOG: RecoveredLog = {
  vote: { term: 2, nodeId: 2, committed: true },
  purged: { term: 0, index: 0 },
  termRuns: [
    { firstIndex: 1, term: 1 },
    { firstIndex: 6, term: 2 },
  ],
  lastIndex: 10,
  committed: 7,
  memberships: [stored(1, 1, 2), stored(9, 1, 2, 3)],
};

const snapshotAt = (index: number, term: number) => ({
  lastIncluded: { term, index },
  membership: stored(1, 1, 2),
});

const lost = (firstIndex: number, lastIndex: number | undefined): LostRange => ({
  firstIndex,
  lastIndex,
});

function start(log: RecoveredLog, ranges: readonly LostRange[], applied: number) {
  const loss = { group: 0, ranges, voteInDoubt: false };
  const engine = new Engine({ ...TEST_CONFIG, nodeId: 1 }, readableLog(log, loss, applied), 0);
  const commands: Command[] = [];
  for (let next = engine.nextCommand(); next !== undefined; next = engine.nextCommand()) {
    commands.push(next);
  }
  const { purgedIndex, appliedIndex, lastLogId, term } = engine;
  const types = commands.map(({ type }) => type);
  return { engine, types, purgedIndex, appliedIndex, last: lastLogId.index, term };
}

it('ends before the first entry that is lost, and so do its memberships', () => {
  const found = start(LOG, [lost(5, 6), lost(9, undefined)], 0);
  expect(found).toMatchObject({ purgedIndex: 0, appliedIndex: 0, last: 4 });
  expect(found.engine.committedIndex).toBe(4);
  expect(found.engine.membership).toEqual(membershipOf(1, 2));
});

it('goes on behind a snapshot that holds what is lost, as far as it is committed', () => {
  const found = start({ ...LOG, snapshot: snapshotAt(5, 1) }, [lost(2, 3)], 5);
  expect(found).toMatchObject({ purgedIndex: 5, appliedIndex: 5, last: 7 });
  expect(found.types).toEqual(['LeadershipChanged', 'Apply']);
});

it('is empty behind a snapshot at whose index the log has another entry', () => {
  const log = { ...LOG, committed: 3, snapshot: snapshotAt(5, 2) };
  const found = start(log, [], 5);
  expect(found).toMatchObject({ purgedIndex: 5, appliedIndex: 5, last: 5, term: 2 });
  expect(found.types).toEqual(['LeadershipChanged']);
});

it('has nothing behind a snapshot that was not known to be committed', () => {
  const log = { ...LOG, committed: 3, snapshot: snapshotAt(5, 3) };
  const found = start(log, [lost(2, 3)], 5);
  expect(found).toMatchObject({ purgedIndex: 5, last: 5, term: 3 });
});

it('begins behind what a machine that is durable itself has applied, though the log has lost it', () => {
  const found = start({ ...LOG, snapshot: snapshotAt(4, 1) }, [lost(8, undefined)], 20);
  expect(found).toMatchObject({ purgedIndex: 20, appliedIndex: 20, last: 20 });
});
