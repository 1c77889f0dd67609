/** `npm run bench -- SUITE [options] [--json]`: finds the suite and runs it. */
interface Suite {
  run(argv: string[]): Promise<void>;
}

const SUITES: Readonly<Record<string, () => Promise<Suite>>> = {
  checksum: () => import('./checksum.js'),
  'cluster-memory': () => import('./cluster-memory.js'),
  'cluster-tcp': () => import('./cluster-tcp.js'),
  codec: () => import('./codec.js'),
  index: () => import('./index-scan.js'),
  log: () => import('./log.js'),
  recovery: () => import('./recovery.js'),
  scan: () => import('./scan.js'),
  snapshot: () => import('./snapshot.js'),
};

const [name = '', ...options] = process.argv.slice(2);
const load = Object.hasOwn(SUITES, name) ? SUITES[name] : undefined;
if (load === undefined) {
  usage(name === '' ? 'no suite given' : `no such suite: ${name}`);
} else {
  const suite = await load();
  try {
    await suite.run(options);
  } catch (error) {
    if (!isWrongOption(error)) throw error;
    usage(error.message);
  }
}

/** What `parseArgs` throws, and a suite for a value out of range. */
function isWrongOption(error: unknown): error is Error {
  if (error instanceof RangeError && error.message.startsWith('--')) return true;
  return error instanceof Error && 'code' in error && `${error.code}`.startsWith('ERR_PARSE_ARGS');
}

function usage(problem: string): void {
  console.error(problem);
  console.error('usage: npm run bench -- SUITE [options] [--json]');
  console.error(`suites: ${Object.keys(SUITES).join(', ')}`);
  process.exitCode = 2;
}
