import { expect } from 'vitest';
import type { ConformanceCase } from '../../dist/testing/index.js';

/** Why the case with that name fails; undefined when it passes. */
export async function failureOf(cases: readonly ConformanceCase[], name: string): Promise<unknown> {
  const found = cases.find((each) => each.name.includes(name));
  expect(found, `a case "${name}"`).toBeDefined();
  try {
    await found!.run();
    return undefined;
  } catch (error) {
    return error;
  }
}
