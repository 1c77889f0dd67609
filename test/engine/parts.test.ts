import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IoProgress } from '../../dist/engine/io-progress.js';
import { LogIds } from '../../dist/engine/log-ids.js';
import { Progress } from '../../dist/engine/progress.js';
import { Quorum } from '../../dist/engine/quorum.js';
import { ReplyQueue } from '../../dist/engine/reply-queue.js';
import type { TermRun, Vote } from '../../dist/engine/types.js';
import { mayReplaceVote } from '../../dist/engine/vote.js';
import { Single } from './support/single.js';

function runsOf(terms: readonly number[], firstIndex = 1): TermRun[] {
  return terms.flatMap((term, i) =>
    i > 0 && terms[i - 1] === term ? [] : [{ firstIndex: firstIndex + i, term }],
  );
}

const ascendingTerms = fc
  .array(fc.integer({ min: 1, max: 6 }), { maxLength: 24 })
  .map((terms) => terms.toSorted((left, right) => left - right));

describe('log ids', () => {
  it('answer like a plain array of terms', () => {
    fc.assert(
      fc.property(ascendingTerms, ascendingTerms, fc.nat(24), fc.nat(24), (own, other, cut, at) => {
        const log = new LogIds({ term: 0, index: 0 }, runsOf(own), own.length);
        const kept = own.slice(0, cut);
        if (cut < own.length) log.truncateAfter(cut);
        const termAt = (index: number): number => (index === 0 ? 0 : (kept[index - 1] ?? -1));
        for (let index = 0; index <= 26; index++) expect(log.termAt(index)).toBe(termAt(index));
        expect(log.lastIndex).toBe(kept.length);
        expect(log.lastTerm).toBe(kept.at(-1) ?? 0);
        if (at >= 1 && at <= kept.length) {
          expect(log.firstIndexOfRunAt(at)).toBe(kept.indexOf(kept[at - 1]!) + 1);
        }
        for (let term = 0; term <= 7; term++) {
          let last = Math.min(at, kept.length);
          while (last > 0 && kept[last - 1]! > term) last--;
          expect(log.lastIndexWithTermAtMost(at, term)).toBe(last);
        }
        const prev = Math.min(at, other.length);
        let missing = prev + 1;
        while (missing <= other.length && other[missing - 1] === kept[missing - 1]) missing++;
        const runs = runsOf(other.slice(prev), prev + 1);
        expect(log.firstMissing(prev, runs, other.length)).toBe(missing);
      }),
      { seed: 7, numRuns: 500 },
    );
  });

  it('know the purged entry and nothing before it', () => {
    const log = new LogIds({ term: 3, index: 10 }, [{ firstIndex: 11, term: 4 }], 12);
    expect([9, 10, 11, 12, 13].map((index) => log.termAt(index))).toEqual([-1, 3, 4, 4, -1]);
    expect(
      log.firstMissing(
        5,
        [
          { firstIndex: 6, term: 3 },
          { firstIndex: 11, term: 4 },
        ],
        13,
      ),
    ).toBe(13);
    expect(() => log.truncateAfter(9)).toThrow(/purged/);
  });

  it('refuse gaps and terms that decrease', () => {
    const log = new LogIds({ term: 0, index: 0 }, runsOf([1, 2]), 2);
    expect(() => log.append(4, 4, 2)).toThrow(/adjacent/);
    expect(() => log.append(3, 3, 1)).toThrow(/terms never decrease/);
  });
});

describe('quorum', () => {
  it('is the greatest value that a majority of each configuration has reached', () => {
    const voters = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 7 });
    const values = fc.array(fc.nat(20), { minLength: 10, maxLength: 10 });
    fc.assert(
      fc.property(voters, fc.option(voters), values, (first, second, given) => {
        const configs = second === null ? [first] : [first, second];
        const quorum = new Quorum({ configs, learners: [10], addresses: {} });
        const reached = (value: number): boolean =>
          configs.every((config) => {
            const count = config.filter((id) => given[id]! >= value).length;
            return count * 2 > config.length;
          });
        let expected = 20;
        while (!reached(expected)) expected--;
        const slots = quorum.ids.map((id) => given[id] ?? 99);
        expect(quorum.majority(slots)).toBe(expected);
      }),
      { seed: 11, numRuns: 500 },
    );
  });

  it('nobody is a majority of no voters', () => {
    expect(new Quorum(undefined).majority([])).toBe(0);
    expect(new Quorum(undefined).isOnlyVoter(1)).toBe(false);
  });
});

describe('vote order', () => {
  const nobody: Vote = { term: 2, nodeId: 0, committed: false };
  const granted: Vote = { term: 2, nodeId: 1, committed: false };
  const other: Vote = { term: 2, nodeId: 3, committed: false };
  const elected: Vote = { term: 2, nodeId: 3, committed: true };

  it('within a term is nobody, then granted, then elected', () => {
    expect(mayReplaceVote(nobody, granted)).toBe(true);
    expect(mayReplaceVote(granted, elected)).toBe(true);
    expect(mayReplaceVote(granted, nobody)).toBe(false);
    expect(mayReplaceVote(elected, granted)).toBe(false);
    expect(mayReplaceVote(elected, other)).toBe(false);
    expect(mayReplaceVote(elected, nobody)).toBe(false);
  });

  it('never lets the votes of two nodes replace one another', () => {
    expect(mayReplaceVote(granted, other)).toBe(false);
    expect(mayReplaceVote(elected, { ...granted, committed: true })).toBe(false);
  });

  it('between terms is the order of terms', () => {
    expect(mayReplaceVote(elected, { term: 3, nodeId: 0, committed: false })).toBe(true);
    expect(mayReplaceVote(elected, { term: 1, nodeId: 3, committed: true })).toBe(false);
  });
});

describe('I/O progress', () => {
  it('knows what is durable of the log as it stands now', () => {
    const io = new IoProgress(5);
    for (let last = 6; last <= 600; last++) io.accept(last);
    io.submitted = io.accepted;
    io.flush(10);
    expect(io.flushedIndex).toBe(15);
    io.truncatedAfter(12);
    io.accept(12);
    io.accept(14);
    io.submitted = io.accepted;
    expect(io.flushedIndex).toBe(12);
    io.flush(300);
    expect(io.flushedIndex).toBe(12);
    io.flush(io.accepted);
    expect(io.flushedIndex).toBe(14);
    expect(io.flush(300)).toBe(false);
  });

  it('takes no completion of what was never submitted', () => {
    const io = new IoProgress(0);
    io.accept(1);
    expect(() => io.flush(1)).toThrow(/flushed ≤ submitted/);
  });
});

describe('invariants', () => {
  it('the runtime cannot report more applied than it was given', () => {
    const single = new Single({ terms: [1, 2], committed: 1 });
    expect(() => single.engine.applied(2)).toThrow(/applied/);
  });

  it('a follower cannot acknowledge more than was ever there', () => {
    const single = new Single({ config: { preVote: false } });
    single.lead();
    expect(() => single.acknowledge(2, 9)).toThrow(/match ≤ last/);
  });

  it('recovery with an entry newer than the vote is refused', () => {
    const vote = { term: 1, nodeId: 0, committed: false };
    expect(() => new Single({ terms: [1, 2], vote })).toThrow(/newer than the vote/);
  });
});

describe('waiting replies', () => {
  it('leave in order, each when its I/O is durable', () => {
    const queue = new ReplyQueue();
    for (let sequence = 1; sequence <= 200; sequence++) {
      queue.push(sequence, sequence + 1_000, {
        type: 'HeartbeatResponse',
        term: 1,
        round: sequence,
      });
    }
    const left: number[] = [];
    for (const flushed of [0, 3, 90, 200]) {
      while (queue.isDue(flushed)) {
        expect(queue.target()).toBe(1_001 + left.length);
        left.push((queue.take() as { round: number }).round);
      }
      expect(left).toHaveLength(flushed);
    }
    expect(left).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
  });
});

describe('progress', () => {
  it('counts messages and bytes in flight, and forgets them when reset', () => {
    const progress = new Progress(1, 1, 3);
    progress.sent(5, 50);
    progress.sent(6, 10);
    progress.sent(9, 30);
    expect(progress.inflightIsFull).toBe(true);
    progress.acknowledged(6);
    expect([progress.inflightMessages, progress.inflightBytes]).toEqual([1, 30]);
    progress.sent(10, 1);
    progress.sent(11, 1);
    progress.acknowledged(10);
    expect([progress.inflightMessages, progress.inflightBytes]).toEqual([1, 1]);
    progress.reset(2, 7);
    expect([progress.inflightMessages, progress.inflightBytes, progress.state]).toEqual([
      0,
      0,
      'probe',
    ]);
  });
});
