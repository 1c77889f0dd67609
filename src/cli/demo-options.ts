import { type Flag, readFlags, wholeNumberFlag } from './flags.js';

type DemoFlag = 'seconds' | 'json' | 'concurrency' | 'value-size' | 'keep';

export const DEMO_FLAGS: Readonly<Record<DemoFlag, Flag>> = {
  seconds: {
    value: 'N',
    about:
      'How long to write, 1 to 300; longer only if the cluster is not back after the kill. Default: 10.',
  },
  json: { about: 'Ends with one line of JSON that tells the result.' },
  concurrency: {
    value: 'N',
    about:
      'Clients that write at the same time, each one write after the other, 1 to 1024. Default: 64.',
  },
  'value-size': { value: 'BYTES', about: 'Size of each value, 1 to 65536 bytes. Default: 128.' },
  keep: { about: 'Keeps the data directories and logs of the nodes, and says where they are.' },
};

export interface DemoOptions {
  readonly seconds: number;
  readonly json: boolean;
  readonly concurrency: number;
  readonly valueBytes: number;
  readonly keep: boolean;
}

export function readDemoOptions(
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): DemoOptions {
  const flags = readFlags(DEMO_FLAGS, args, environment);
  return {
    seconds: wholeNumberFlag('seconds', flags.seconds ?? '10', 1, 300),
    json: flags.json !== undefined,
    concurrency: wholeNumberFlag('concurrency', flags.concurrency ?? '64', 1, 1_024),
    valueBytes: wholeNumberFlag('value-size', flags['value-size'] ?? '128', 1, 65_536),
    keep: flags.keep !== undefined,
  };
}
