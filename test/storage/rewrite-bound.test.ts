import { describe, expect, it } from 'vitest';
import { loadOf, runLoad } from './random-load.js';

/** Some of thousands; in each of these the files were too many at some time. */
const SEEDS = [41, 75, 107, 120, 141, 172, 181, 201, 263, 266, 291, 299];

describe('files of a lane take up at most twice its live data and four segments', () => {
  it.each(SEEDS)('at each roll of a random load: seed %i', async (seed) => {
    const load = loadOf(seed);
    const { excesses, rolls } = await runLoad(load);
    expect(rolls).toBeGreaterThanOrEqual(60);
    expect(excesses, JSON.stringify(load)).toEqual([]);
  });
});
