import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { DEMO_FLAGS } from '../../dist/cli/demo-options.js';
import { SERVE_FLAGS } from '../../dist/cli/serve-options.js';
import { runCli } from './run-cli.js';

const directory = mkdtempSync(join(tmpdir(), 'keelson-cli-'));
afterAll(() => rmSync(directory, { recursive: true }));

const SERVE = [
  ...['serve', '--node-id', '1', '--data-dir', join(directory, 'data')],
  ...['--listen', '127.0.0.1:0', '--http', '127.0.0.1:0', '--initial-cluster', '1=127.0.0.1:7000'],
];

describe('keelson', () => {
  it('--version tells the version of the package', async () => {
    const { version } = JSON.parse(
      readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
    );
    expect(await runCli(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  it.each([[['help']], [['--help']], [['-h']]])('%j shows every command', async (args) => {
    const { code, stdout } = await runCli(args);
    expect(code).toBe(0);
    for (const command of ['serve', 'demo', 'config', 'inspect', 'verify', 'help'])
      expect(stdout).toContain(command);
  });

  it.each([
    ['serve', Object.keys(SERVE_FLAGS), Object.values(SERVE_FLAGS)],
    ['demo', Object.keys(DEMO_FLAGS), Object.values(DEMO_FLAGS)],
  ])('%s --help names every flag and variable, as help %s does', async (command, names, flags) => {
    const { code, stdout, stderr } = await runCli([command, '--help']);
    expect([code, stderr]).toEqual([0, '']);
    for (const name of names) expect(stdout).toMatch(new RegExp(`^ +--${name}\\b`, 'm'));
    for (const { environment } of flags) expect(stdout).toContain(environment ?? '');
    expect((await runCli(['help', command])).stdout).toBe(stdout);
  });
});

describe('called wrongly', () => {
  it.each([
    ['without a command', [], /Usage: keelson COMMAND/],
    ['with an unknown command', ['fly'], /there is no command "fly"/],
    ['serve without flags', ['serve'], /missing --node-id N, --data-dir DIR, --listen HOST:PORT/],
    ['serve with an unknown flag', [...SERVE, '--fast'], /'--fast'/],
    ['serve with a word too many', [...SERVE, 'now'], /'now'/],
    ['serve with a bad level', [...SERVE, '--log-level', 'x'], /--log-level must be one of/],
    ['demo with no time', ['demo', '--seconds', '0'], /--seconds must be a whole number from 1/],
    ['demo with a flag of serve', ['demo', '--node-id', '1'], /'--node-id'/],
  ])('%s: exit code 2, a hint on stderr, nothing on stdout', async (_, args, message) => {
    const { code, stdout, stderr } = await runCli(args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
    expect(readdirSync(directory)).toEqual([]);
  });
});
