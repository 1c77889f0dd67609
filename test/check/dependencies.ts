/**
 * Checks in which direction the folders of src/ import one another, and that nothing calls the
 * platform's clock, timers or random numbers past the scheduler. Prints what is wrong and ends with
 * exit code 1 when something is.
 *
 * Run by `npm run check:dependencies`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));

/**
 * What the files of a folder may import besides their own folder: `folder/` for all of a folder, a
 * path without extension for one file.
 */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  base: [],
  engine: [],
  wasm: ['base/'],
  config: ['base/'],
  storage: ['base/', 'config/types', 'wasm/', 'engine/types'],
  'state-machine': ['base/', 'config/types', 'wasm/', 'engine/types', 'storage/log-store'],
  network: ['base/', 'config/types', 'wasm/', 'engine/types', 'engine/messages'],
  runtime: [
    'base/',
    'config/types',
    'engine/',
    'api',
    'wasm/layout',
    'storage/disk',
    'storage/log-store',
    'storage/snapshot-format',
    'storage/snapshot-store',
    'network/network',
    'state-machine/machine-host',
    'state-machine/state-machine',
  ],
  api: ['base/', 'engine/types', 'state-machine/state-machine'],
  http: [
    'base/',
    'config/',
    'api',
    'engine/types',
    'state-machine/key-value',
    'state-machine/state-machine',
  ],
};

/** They put the parts together and may import everything; `root` is src/*.ts without api.ts. */
const ASSEMBLERS: readonly string[] = ['cli', 'testing', 'root'];

/** Built-in modules that the engine, which is pure, must not use either. */
const PURE: readonly string[] = ['engine'];

const CLOCK_FREE_EXCEPTIONS: readonly string[] = ['base/system-scheduler.ts', 'cli/'];
const BANNED =
  /\b(setTimeout|setInterval|setImmediate|Date\.now|performance|Math\.random|process\.hrtime|new Date\(\))(?!\w)/g;
const IMPORT = /(?:\bfrom|\bimport|\bimport\()\s*['"]([^'"]+)['"]/g;

const problems: string[] = [];
const edges = new Map<string, Map<string, string>>();

for (const path of sourceFiles(SOURCE)) checkFile(path);
checkCycles();

if (problems.length > 0) {
  for (const problem of problems) console.error(problem);
  console.error(`${problems.length} problems with the dependencies of src/`);
  process.exitCode = 1;
} else {
  console.log(
    'src/: folders import one way, without cycles; no clock, timer or random number ' +
      `past the scheduler (allowed in ${CLOCK_FREE_EXCEPTIONS.join(', ')})`,
  );
}

function sourceFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => name.split(sep).join('/'))
    .sort();
}

function checkFile(path: string): void {
  const code = withoutComments(readFileSync(join(SOURCE, path), 'utf8'));
  const own = partOf(path);
  for (const [, specifier] of code.matchAll(IMPORT)) checkImport(path, own, specifier!);
  if (CLOCK_FREE_EXCEPTIONS.some((allowed) => path.startsWith(allowed))) return;
  // Text is not code: messages may speak of performance.
  const lines = code.split('\n');
  for (const [number, line] of lines.entries()) {
    for (const [name] of withoutStrings(line).matchAll(BANNED)) {
      problems.push(`src/${path}:${number + 1}: ${name} is called past the Scheduler`);
    }
  }
}

function checkImport(path: string, own: string, specifier: string): void {
  if (!specifier.startsWith('.')) {
    if (PURE.includes(own)) problems.push(`src/${path}: ${own} imports ${specifier}, it is pure`);
    return;
  }
  const target = posix.join(dirname(path).split(sep).join('/'), specifier).replace(/\.js$/, '');
  const targetPart = partOf(target);
  if (targetPart === own) return;
  const known = edges.get(own) ?? new Map<string, string>();
  known.set(targetPart, `src/${path} imports ${target}`);
  edges.set(own, known);
  if (ASSEMBLERS.includes(own)) return;
  const allowed = ALLOWED[own];
  if (allowed === undefined) {
    problems.push(`src/${path}: nothing is said of what ${own} may import`);
  } else if (!allowed.some((entry) => entry === target || entry === `${targetPart}/`)) {
    problems.push(`src/${path}: ${own} must not import ${target}`);
  }
}

/** The folder of a file; of the files directly in src/, the API's types stand for themselves. */
function partOf(path: string): string {
  const [first, ...rest] = path.split('/');
  if (rest.length > 0) return first!;
  return first!.replace(/\.ts$/, '') === 'api' ? 'api' : 'root';
}

function checkCycles(): void {
  const done = new Set<string>();
  const visit = (part: string, trail: readonly string[]): void => {
    const start = trail.indexOf(part);
    if (start >= 0) {
      const cycle = [...trail.slice(start), part];
      const links = cycle.slice(1).map((to, place) => edges.get(cycle[place]!)?.get(to));
      problems.push(`cycle ${cycle.join(' -> ')}: ${links.join('; ')}`);
      return;
    }
    if (done.has(part)) return;
    for (const target of edges.get(part)?.keys() ?? []) visit(target, [...trail, part]);
    done.add(part);
  };
  for (const part of edges.keys()) visit(part, []);
}

function withoutComments(code: string): string {
  // Line breaks stay, so that line numbers are true.
  return code
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ''))
    .replace(/(^|\s)\/\/.*$/gm, '$1');
}

function withoutStrings(line: string): string {
  return line.replace(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`$]*`/g, "''");
}
