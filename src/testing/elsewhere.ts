/**
 * Runs a call as if on another node: another time of day, other random numbers. Synchronous, so that nobody
 * else sees them.
 */
const SHIFT_MS = 1_000_000_007;

const RealDate = globalThis.Date;

class LaterDate extends RealDate {
  constructor(...args: [] | [number | string]) {
    if (args.length === 0) super(LaterDate.now());
    else super(args[0]);
  }

  static override now(): number {
    return RealDate.now() + SHIFT_MS;
  }
}

export function elsewhere<T>(call: () => T): T {
  const chance: unknown = Reflect.get(Math, 'random');
  let drawn = 0;
  Reflect.set(globalThis, 'Date', LaterDate);
  // Never what was drawn here: a real generator gives these numbers with no likelihood.
  Reflect.set(Math, 'random', () => (++drawn % 1000) / 1000);
  try {
    return call();
  } finally {
    Reflect.set(globalThis, 'Date', RealDate);
    Reflect.set(Math, 'random', chance);
  }
}
