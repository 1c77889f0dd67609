/**
 * Runs micro-benchmarks with benchmark.js, and guards against its three traps: a body without effect
 * is optimised away, a deferred that rejects never ends, a body that throws reports 0.
 */
import { parseArgs } from 'node:util';
import Benchmark from 'benchmark';
import { environment, printEnvironment } from './environment.js';

export interface MicroCase {
  readonly name: string;
  /** Synchronous. Returns a number that depends on all of the work. */
  readonly body: () => number;
  /** How many units (bytes, entries) one call deals with. */
  readonly units: number;
}

export interface MicroResult {
  readonly name: string;
  /** Mean; so are all figures but the next. */
  readonly nanosecondsPerCall: number;
  /** The fastest sample: on a machine with other work to do, the nearest to the truth. */
  readonly fastestNanosecondsPerCall: number;
  readonly nanosecondsPerUnit: number;
  readonly unitsPerSecond: number;
  /** Relative margin of error, in percent. */
  readonly margin: number;
  readonly samples: number;
}

export interface MicroOptions {
  readonly json: boolean;
  /** Time for each case. */
  readonly seconds: number;
}

const DEFAULT_SECONDS = 0.5;
/** No body here can be that fast: it was optimised away. */
const LEAST_NANOSECONDS = 0.5;

/** Everything that bodies return ends here, so that no compiler may leave their work out. */
let sink = 0;

/** Reads `--json` and `--seconds`, prints machine and settings. */
export function startSuite(suite: string, argv: readonly string[]): MicroOptions {
  const { values } = parseArgs({
    args: [...argv],
    options: { json: { type: 'boolean' }, seconds: { type: 'string' } },
  });
  const seconds = Number(values.seconds ?? DEFAULT_SECONDS);
  if (!(seconds > 0 && seconds <= 60)) throw new RangeError('--seconds must be in (0, 60]');
  printEnvironment(environment());
  console.log(`${suite}: ${JSON.stringify({ seconds })} for each case`);
  return { json: values.json === true, seconds };
}

/** With `--json`, prints the result of a suite as the last line. */
export function finishSuite(suite: string, options: MicroOptions, results: object): void {
  if (!Number.isFinite(sink)) throw new Error('a case returned something that is no number');
  if (options.json) console.log(JSON.stringify({ suite, ...environment(), ...results }));
}

export function measure(micro: MicroCase, options: MicroOptions): MicroResult {
  const { name, body, units } = micro;
  // Throws here what would become a report of 0, and refuses what only looks finished.
  const probe: unknown = body();
  if (typeof probe !== 'number') throw new TypeError(`${name}: a body returns a number`);
  process.stderr.write(process.stderr.isTTY ? `\r\x1b[Kmeasuring ${name}` : `measuring ${name}\n`);
  const benchmark = new Benchmark(
    name,
    () => {
      sink += body();
    },
    { maxTime: options.seconds, minSamples: 5 },
  );
  benchmark.run({ async: false });
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  if (benchmark.error !== undefined) {
    throw new Error(`${name} failed: ${benchmark.error}`, { cause: benchmark.error });
  }
  const nanosecondsPerCall = benchmark.stats.mean * 1e9;
  if (!(nanosecondsPerCall >= LEAST_NANOSECONDS)) {
    throw new Error(`${name} took ${nanosecondsPerCall} ns: it was optimised away`);
  }
  return {
    name,
    nanosecondsPerCall,
    fastestNanosecondsPerCall: Math.min(...benchmark.stats.sample) * 1e9,
    nanosecondsPerUnit: nanosecondsPerCall / units,
    unitsPerSecond: (units / nanosecondsPerCall) * 1e9,
    margin: benchmark.stats.rme,
    samples: benchmark.stats.sample.length,
  };
}
