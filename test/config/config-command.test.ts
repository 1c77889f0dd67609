import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { runConfigCommand } from '../../dist/cli/config-command.js';
import { resolveConfig } from '../../dist/config/resolve.js';
import { describeConfig } from '../../dist/config/schema.js';

const directory = mkdtempSync(join(tmpdir(), 'keelson-config-'));
afterAll(() => rmSync(directory, { recursive: true }));

async function run(args: readonly string[], environment: Record<string, string> = {}) {
  let out = '';
  let error = '';
  const code = await runConfigCommand(args, {
    environment,
    out: (text) => {
      out += text;
    },
    error: (text) => {
      error += text;
    },
  });
  return { code, out, error };
}

test('--print writes JSON that --config reads back', async () => {
  const first = await run(['--print', '--raft-election-timeout-ms', '2000']);
  expect(first.code).toBe(0);
  expect(JSON.parse(first.out)).toEqual(resolveConfig({ raft: { electionTimeoutMs: 2000 } }));
  const file = join(directory, 'printed.json');
  writeFileSync(file, first.out);
  expect(await run(['--print', '--config', file])).toEqual(first);
  expect(await run(['--print'], { KEELSON_CONFIG: file })).toEqual(first);
});

test('--check succeeds on a valid configuration', async () => {
  expect(await run(['--check'])).toMatchObject({ code: 0, error: '' });
});

test('--check fails with every violation', async () => {
  const environment = { KEELSON_RAFT_ELECTION_TIMEOUT_MS: '1', KEELSON_STORAGE_LANES: 'many' };
  const { code, out, error } = await run(['--check'], environment);
  expect(code).toBe(1);
  expect(out).toBe('');
  expect(error).toContain('raft.electionTimeoutMs');
  expect(error).toContain('storage.lanes');
});

test('a configuration file that is missing fails', async () => {
  const { code, error } = await run(['--check', '--config', join(directory, 'none.json')]);
  expect(code).toBe(1);
  expect(error).toContain('none.json');
});

test('--explain tells every field and the total of bounded memory', async () => {
  const { code, out } = await run(['--explain']);
  expect(code).toBe(0);
  for (const { field, about } of describeConfig()) {
    expect(out).toContain(`${field} = `);
    expect(out).toContain(about);
  }
  expect(out).toMatch(/\d+ MiB {2}in total/);
});

test('--help tells the options', async () => {
  const { code, out } = await run(['--help']);
  expect(code).toBe(0);
  for (const option of ['--print', '--check', '--explain', '--config'])
    expect(out).toContain(option);
});

test.each([[[]], [['--print', '--check']], [['--what']], [['print']], [['--print', '--config']]])(
  'a wrong call is usage: %j',
  async (args) => {
    const { code, out, error } = await run(args);
    expect(code).toBe(2);
    expect(out).toBe('');
    expect(error).toContain('keelson config --help');
  },
);
