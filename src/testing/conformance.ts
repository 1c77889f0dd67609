/**
 * A suite that checks anybody's implementation, as a list of named cases: whatever runs tests can run them.
 *
 * ```ts
 * for (const { name, run } of stateMachineCases(fixture)) test(name, run);
 * ```
 *
 * A case fails by rejecting, mostly with an `AssertionError`. It makes what it needs and disposes of it.
 */
import assert from 'node:assert/strict';
import { KeelsonError } from '../base/errors.js';
import { systemScheduler } from '../base/system-scheduler.js';

export interface ConformanceCase {
  /** A statement of behaviour. */
  readonly name: string;
  run(): Promise<void>;
}

/** Fails where two values differ, and says what they were a part of. */
export function same(actual: unknown, expected: unknown, what: string): void {
  try {
    assert.deepEqual(actual, expected);
  } catch (error) {
    const { message, operator } = error as assert.AssertionError;
    throw new assert.AssertionError({ message: `${what}: ${message}`, actual, expected, operator });
  }
}

/** Fails unless the call throws a KeelsonError with that code. */
export function refuses(code: string, call: () => unknown, what: string): void {
  assert.throws(
    call,
    (error) => error instanceof KeelsonError && error.code === code,
    `${what}: it is refused with ${code}`,
  );
}

const WAIT_MS = 20_000;

/** Waits for a condition; fails when it does not come true. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = systemScheduler.now() + WAIT_MS;
  while (!condition()) {
    if (systemScheduler.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise<void>((resolve) => systemScheduler.enqueueLate(resolve));
  }
}

/** One payload of each length. */
export function payloadsOf(...lengths: number[]): Uint8Array[] {
  return lengths.map((length, place) => new Uint8Array(length).fill(place + length));
}
