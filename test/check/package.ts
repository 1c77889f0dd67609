/**
 * Checks the package as its users get it: packed, with publint and attw, and then installed into an
 * empty project, where it is imported, required and compiled against. Needs a build and no network:
 * dependencies are linked from this project's node_modules.
 *
 * Run by `npm run check:package`.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  name: string;
  exports: Record<string, unknown>;
  dependencies: Record<string, string>;
};
const TYPE_PACKAGES = ['@types/node', 'undici-types'];

const work = mkdtempSync(join(tmpdir(), 'keelson-package-'));
try {
  const tarball = pack();
  run('publint', join(ROOT, 'node_modules/.bin/publint'), ['run', tarball, '--strict'], ROOT);
  run(
    'attw',
    join(ROOT, 'node_modules/.bin/attw'),
    [tarball, '--profile', 'esm-only', '--no-emoji', '--format', 'ascii'],
    ROOT,
  );
  install(tarball);
  useInstalled();
} finally {
  rmSync(work, { recursive: true, force: true });
}
if (process.exitCode === undefined) console.log('package: all checks passed');

function pack(): string {
  const output = execFileSync(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', work],
    { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const [packed] = JSON.parse(output) as { filename: string; files: { path: string }[] }[];
  const paths = packed!.files.map(({ path }) => path);
  for (const needed of ['dist/index.js', 'dist/index.d.ts', 'dist/wasm/keelson.wasm', 'LICENSE']) {
    if (!paths.includes(needed)) fail('npm pack', `the tarball lacks ${needed}`);
  }
  return join(work, packed!.filename);
}

function install(tarball: string): void {
  const modules = join(work, 'node_modules');
  const target = join(modules, manifest.name);
  mkdirSync(target, { recursive: true });
  execFileSync('tar', ['-xzf', tarball, '-C', target, '--strip-components=1']);
  for (const name of [...Object.keys(manifest.dependencies), ...TYPE_PACKAGES]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  }
}

/** Every entry point that is code, as a user names it. */
function entryPoints(): string[] {
  return Object.keys(manifest.exports)
    .filter((path) => !path.endsWith('.json'))
    .map((path) => path.replace('.', manifest.name));
}

function useInstalled(): void {
  writeFileSync(join(work, 'package.json'), '{ "name": "empty", "private": true }\n');
  const names = JSON.stringify(entryPoints());
  const check = `if (Object.keys(found).length === 0) throw new Error(name + ' exports nothing');`;
  writeFileSync(
    join(work, 'imported.mjs'),
    `for (const name of ${names}) { const found = await import(name); ${check} }\n`,
  );
  writeFileSync(
    join(work, 'required.cjs'),
    `for (const name of ${names}) { const found = require(name); ${check} }\n`,
  );
  run('import', process.execPath, ['imported.mjs'], work);
  run('require', process.execPath, ['required.cjs'], work);

  const lines = entryPoints().map((name, place) => `import * as entry${place} from '${name}';`);
  const uses = entryPoints().map((_, place) => `entry${place}`);
  writeFileSync(join(work, 'typed.mts'), `${lines.join('\n')}\nconsole.log(${uses.join(', ')});\n`);
  const compilerOptions = {
    target: 'es2023',
    lib: ['es2023', 'esnext.disposable'],
    module: 'nodenext',
    strict: true,
    noEmit: true,
    types: ['node'],
  };
  writeFileSync(
    join(work, 'tsconfig.json'),
    JSON.stringify({ compilerOptions, files: ['typed.mts'] }),
  );
  run('types', join(ROOT, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.json'], work);
}

function run(what: string, command: string, commandArguments: string[], directory: string): void {
  try {
    execFileSync(command, commandArguments, { cwd: directory, encoding: 'utf8', stdio: 'pipe' });
    console.log(`package: ${what} passed`);
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    fail(what, `${stdout ?? ''}${stderr ?? ''}` || String(error));
  }
}

function fail(what: string, message: string): void {
  console.error(`package: ${what} failed\n${message}`);
  process.exitCode = 1;
}
