/** What a suite is to reach, printed beside what it has reached. */
export interface Target {
  readonly what: string;
  readonly value: number;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** Prints each target with its verdict; the figures stand in the result of the suite. */
export function printTargets(targets: readonly Target[]): void {
  for (const { what, value, atLeast, atMost } of targets) {
    const reached = value >= (atLeast ?? value) && value <= (atMost ?? value);
    const wanted =
      atLeast === undefined
        ? `at most ${atMost?.toLocaleString('en')}`
        : `at least ${atLeast.toLocaleString('en')}`;
    const verdict = reached ? 'reached' : 'MISSED';
    console.log(`${what}: ${value.toLocaleString('en')} (${wanted} wanted: ${verdict})`);
  }
}
