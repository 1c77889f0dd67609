import { spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { cliEnvironment, MAIN } from '../cli/run-cli.js';
import { fences, page } from '../docs/support/pages.js';

/** Linux answers on all of 127.0.0.0/8, so the ports of the page are free at an address of our own. */
const address = `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`;
const canRun = process.platform === 'linux' && spawnSync('curl', ['--version']).status === 0;

it.skipIf(!canRun)(
  'the recipe for three nodes on one machine works when it is pasted',
  async () => {
    const blocks = fences(page('docs/command-line.md')).filter(({ language }) => language === 'sh');
    const script = blocks
      .map(({ code }) => code)
      .join('')
      .replaceAll('dist/cli/main.js', MAIN)
      .replaceAll('127.0.0.1', address);
    const directory = mkdtempSync(join(tmpdir(), 'keelson-recipe-'));
    try {
      const shell = spawn('bash', ['-c', script], {
        cwd: directory,
        env: cliEnvironment({}),
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let output = '';
      shell.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString();
      });
      await once(shell, 'close');
      expect(output).toMatch(/^\{"version":\d+,"logIndex":\d+,"term":\d+\}\nhello$/);
      for (const nodeId of [1, 2, 3]) {
        const log = readFileSync(join(directory, 'data', `node-${nodeId}.log`), 'utf8');
        expect(log.trimEnd().split('\n').at(-1)).toContain('"event":"server.stopped"');
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
