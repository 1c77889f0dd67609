import { describe, expect, it } from 'vitest';
import { membershipOf } from './support/cluster.js';
import { Simulation, type SimulationOptions } from './support/simulation.js';

const RUNS = 60;

/** Runs many seeds; the seed of the one that fails is in the message. */
function runSeeds(firstSeed: number, options: Omit<SimulationOptions, 'seed'>): void {
  let committed = 0;
  let reads = 0;
  let installed = 0;
  for (let seed = firstSeed; seed < firstSeed + RUNS; seed++) {
    try {
      const simulation = new Simulation({ ...options, seed });
      simulation.run();
      committed += simulation.committedEntries;
      simulation.recover();
      reads += simulation.readsAnswered;
      installed += simulation.snapshotsInstalled;
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  // A simulation in which nothing happens proves nothing.
  expect(committed).toBeGreaterThan(RUNS);
  expect(reads).toBeGreaterThan(0);
  if (options.snapshots) expect(installed).toBeGreaterThan(RUNS);
}

describe('simulation', () => {
  it('three nodes with losses, repetitions, reordering, partitions and crashes are safe', () => {
    runSeeds(1, { steps: 1_200 });
  });

  it('five nodes are safe', () => {
    runSeeds(10_001, { steps: 1_200, voters: [1, 2, 3, 4, 5] });
  });

  it('nodes without pre-vote and check-quorum are safe', () => {
    runSeeds(20_001, { steps: 1_000, preVote: false, checkQuorum: false, crashEvery: 60 });
  });

  it('a joint configuration with a learner is safe', () => {
    const membership = {
      ...membershipOf(1, 2, 3),
      configs: [
        [1, 2, 3],
        [3, 4],
      ],
      learners: [5],
    };
    runSeeds(30_001, { steps: 1_000, membership });
  });

  it('nodes that build, send and install snapshots are safe', () => {
    runSeeds(40_001, { steps: 2_000, snapshots: true });
  });

  it('known bug 44: snapshot, purge and apply race, and the data is unusable', () => {
    runSeeds(50_001, { steps: 2_000, snapshots: true, crashEvery: 40 });
  });

  it('the same events give the same commands, bit for bit', () => {
    const trace = (seed: number): string => {
      const simulation = new Simulation({ seed, steps: 800 });
      simulation.run();
      const commands = [...simulation.cluster.nodes.values()].map((node) => node.trace);
      return JSON.stringify(commands);
    };
    for (let seed = 1; seed <= 10; seed++) expect(trace(seed), `seed ${seed}`).toBe(trace(seed));
    expect(trace(1)).not.toBe(trace(2));
  });
});
