import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { smallConfig } from './support.js';

/**
 * Opens node 1 alone, without a file, and when that has failed once more with it, in the same process.
 * Nothing in it ends the process: it ends of itself when nothing is left running.
 */
const PROGRAM = `
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
const [root, file, machine] = process.argv.slice(1);
const { Raft, KeyValueMachine } = await import(join(root, 'dist/index.js'));
const open = () => Raft.open({
  nodeId: 1,
  clusterName: 'files',
  dataDir: join(root, 'data'),
  listen: '127.0.0.1:0',
  bootstrap: { voters: { 1: '127.0.0.1:1' } },
  stateMachine: machine === undefined ? new KeyValueMachine() : pathToFileURL(join(root, machine)),
  config: ${JSON.stringify(smallConfig)},
});
const told = {};
const before = performance.now();
try {
  await open();
} catch ({ name, code, outcome, message, details }) {
  told.error = { name, code, outcome, message, details };
}
told.ms = performance.now() - before;
renameSync(join(root, file + '.gone'), join(root, file));
const raft = await open();
told.state = raft.status().state;
await raft.close();
console.log(JSON.stringify(told));
`;

interface Told {
  readonly error: { readonly message: string };
  readonly ms: number;
  /** Of the node that was opened with the file in its place. */
  readonly state: string;
}

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'keelson-files-'));
  const project = fileURLToPath(new URL('../../', import.meta.url));
  cpSync(join(project, 'dist'), join(root, 'dist'), { recursive: true });
  cpSync(join(project, 'package.json'), join(root, 'package.json'));
  symlinkSync(join(project, 'node_modules'), join(root, 'node_modules'));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

/** What the program told, once its process has ended. */
function run(file: string, machine: readonly string[]): Promise<Told> {
  const args = ['--input-type=module', '--eval', PROGRAM, root, file, ...machine];
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 30_000,
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(JSON.parse(output) as Told);
      else reject(new Error(`the process ended with ${code ?? signal}: ${output}`));
    });
  });
}

const keyValueModule = 'dist/state-machine/key-value-module.js';

describe('Raft.open without a file that it needs fails within 5 s, names path and remedy, and leaves nothing running or locked', () => {
  it.each([
    ['the worker of the storage', 'dist/storage/storage-worker.js', []],
    ['the worker of the state machine', 'dist/state-machine/machine-worker.js', [keyValueModule]],
    ['the module of the state machine', keyValueModule, [keyValueModule]],
    ['the WebAssembly module', 'dist/wasm/keelson.wasm', []],
  ])('%s', async (_what, file, machine) => {
    const path = join(root, file);
    renameSync(path, `${path}.gone`);
    const { error, ms, state } = await run(file, machine);
    expect(error).toMatchObject({
      name: 'KeelsonError',
      code: 'KEELSON_MISSING_FILE',
      outcome: 'rejected',
      details: { file: path },
    });
    expect(error.message).toContain(path);
    expect(error.message).toMatch(/bundle/);
    expect(error.message).toMatch(/external/);
    expect(ms).toBeLessThan(5_000);
    expect(state).not.toBe('stopped');
  });
});
