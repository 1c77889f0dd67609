import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { lockDirectory } from '../../dist/storage/directory-lock.js';

const made: string[] = [];
const children: ChildProcess[] = [];

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'keelson-lock-'));
  made.push(directory);
  return directory;
}

async function startHolder(directory: string, wrapper: string[] = []): Promise<ChildProcess> {
  const script = fileURLToPath(new URL('lock-holder.mjs', import.meta.url));
  const [command, ...commandArguments] = [...wrapper, process.execPath, script, directory];
  const child = spawn(command!, commandArguments, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let complaint = '';
  child.stderr!.on('data', (data) => {
    complaint += data;
  });
  await Promise.race([
    once(child.stdout!, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error(`no lock: ${complaint}`))),
  ]);
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  for (const directory of made) rmSync(directory, { recursive: true, force: true });
});

const lockedError = (directory: string): object =>
  expect.objectContaining({
    code: 'KEELSON_STORAGE_LOCKED',
    message: expect.stringContaining(directory),
  });

describe('lockDirectory', () => {
  test('a second owner in the same process is refused until release', async () => {
    const directory = temporaryDirectory();
    const lock = await lockDirectory(directory);
    await expect(lockDirectory(directory)).rejects.toEqual(lockedError(directory));
    await lock.release();
    expect(readdirSync(directory)).toEqual([]);
    const again = await lockDirectory(directory);
    await again.release();
    await again.release();
  });

  test('a directory of a live process is refused, after SIGKILL it is free at once', async () => {
    const directory = temporaryDirectory();
    for (let round = 0; round < 3; round++) {
      const holder = await startHolder(directory);
      await expect(lockDirectory(directory)).rejects.toEqual(lockedError(directory));
      await kill(holder);
      const lock = await lockDirectory(directory);
      await lock.release();
      expect(readdirSync(directory)).toEqual([]);
    }
  });

  test('a stopped process still owns its directory', async () => {
    const directory = temporaryDirectory();
    const holder = await startHolder(directory);
    holder.kill('SIGSTOP');
    await expect(lockDirectory(directory)).rejects.toEqual(lockedError(directory));
    await kill(holder);
  });

  test('an owner that only its socket in the directory shows is found', async () => {
    // As a process in another network namespace looks from here.
    const directory = temporaryDirectory();
    const name = `lock-${'ab'.repeat(12)}.sock`;
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(join(directory, name), resolve));
    await expect(lockDirectory(directory)).rejects.toEqual(lockedError(directory));
    expect(readdirSync(directory)).toEqual([name]);
    await new Promise((resolve) => server.close(resolve));
    const lock = await lockDirectory(directory);
    await lock.release();
  });

  test('an owner in another network namespace is found', async (context) => {
    const directory = temporaryDirectory();
    const wrapper = ['unshare', '--net', '--map-root-user'];
    const holder = await startHolder(directory, wrapper).catch(() => undefined);
    if (holder === undefined) return context.skip('network namespaces are not allowed here');
    await expect(lockDirectory(directory)).rejects.toEqual(lockedError(directory));
    await kill(holder);
    const lock = await lockDirectory(directory);
    await lock.release();
  });

  test('workers of node:cluster are owners of their own, and free it when they die', () => {
    const directory = temporaryDirectory();
    const script = fileURLToPath(new URL('lock-in-cluster.mjs', import.meta.url));
    const result = spawnSync(process.execPath, [script, directory], { encoding: 'utf8' });
    expect(result.stderr).toBe('');
    const [first, second, third] = JSON.parse(result.stdout) as string[];
    expect(first).toBe('locked');
    expect(second).toContain('in use by another live process');
    if (process.platform === 'linux') expect(second).toContain('on this machine');
    expect(third).toBe('locked');
  });

  test('many at once: at most one owner, and free afterwards', async () => {
    const directory = temporaryDirectory();
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, () => lockDirectory(directory)),
    );
    const owners = results.filter((result) => result.status === 'fulfilled');
    expect(owners.length).toBe(1);
    for (const owner of owners) await owner.value.release();
    await (await lockDirectory(directory)).release();
  });

  test('other files are left alone, and a path too long for a socket works', async (context) => {
    if (process.platform !== 'linux') context.skip();
    const directory = join(temporaryDirectory(), 'long'.repeat(25), 'longer'.repeat(20));
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'lock-mine.sock'), 'x');
    const holder = await startHolder(directory);
    await expect(lockDirectory(directory)).rejects.toEqual(lockedError(directory));
    await kill(holder);
    const lock = await lockDirectory(directory);
    await lock.release();
    expect(readdirSync(directory)).toEqual(['lock-mine.sock']);
  });

  test('a directory that is not there is an error of the system', async () => {
    await expect(lockDirectory(join(temporaryDirectory(), 'none'))).rejects.toMatchObject({
      code: 'ENOENT',
    });
  });
});
