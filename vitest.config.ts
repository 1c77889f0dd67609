import { defineConfig } from 'vitest/config';

// Tests import what ships: the compiled modules under dist/. `npm test` builds them first.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    maxWorkers: 2,
  },
});
