import fc from 'fast-check';
import { expect, test } from 'vitest';
import { unboxed } from '../../dist/base/unboxed.js';

test('a number stays what it is, whether it is small, large, broken or none', () => {
  const edges = [0, 1, -1, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 0.5, Number.NaN, Infinity];
  for (const value of edges) expect(unboxed(value)).toBe(value);
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => unboxed(value) === value),
    { seed: 5 },
  );
});
