/**
 * A process that writes to the log is killed with SIGKILL at random moments, again and again on the
 * same directory.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';
import { CRASH_OPTIONS, crashPayload } from './wal-crash-payload.mjs';
import { openLog } from './wal-support.js';

const CHILD = fileURLToPath(new URL('./wal-crash-child.mjs', import.meta.url));
const KILLS = 50;
const KILLS_PER_CHECK = 5;
const DIRECTORIES = 2;

interface Life {
  opened: number;
  acknowledged: number;
  submitted: number;
}

/** Starts the writer and kills it once its report is `reportBytes` long. */
async function lifeOfAWriter(directory: string, seed: number, reportBytes: number): Promise<Life> {
  const writers = seed % 3 === 0 ? 1 : 256;
  // A file takes every report at once and keeps it when the process dies; a pipe may refuse.
  const reportFile = join(directory, 'report');
  const report = openSync(reportFile, 'w');
  const child = spawn(process.execPath, [CHILD, directory, String(writers), String(seed)], {
    stdio: ['ignore', report, 'inherit'],
  });
  const closed = once(child, 'close');
  while (fstatSync(report).size < reportBytes && child.exitCode === null) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  child.kill('SIGKILL');
  const [code, signal] = await closed;
  closeSync(report);
  expect({ code, signal }, `seed ${seed}`).toEqual({ code: null, signal: 'SIGKILL' });
  const life: Life = { opened: -1, acknowledged: 0, submitted: 0 };
  for (const line of readFileSync(reportFile, 'latin1').split('\n').slice(0, -1)) {
    const [what, index] = line.split(' ');
    life[what as keyof Life] = Number(index);
  }
  return life;
}

/** Opens the directory in this process and compares every entry. Returns the last index. */
async function checkEveryEntry(directory: string, context: string): Promise<number> {
  const log = await openLog(new MemoryDisk(), {
    directory,
    ...CRASH_OPTIONS,
    executor: (heap, scheduler) => new InlineExecutor(heap, new NodeDisk(), scheduler),
  });
  const contents = await log.contents(0, 1, 512 * 1024);
  const expected = contents.map((_, at) => new TextDecoder().decode(crashPayload(at + 1)));
  expect(contents.length, context).toBe(log.lastIndex);
  expect(
    contents.findIndex((text, at) => text !== expected[at]),
    context,
  ).toBe(-1);
  await log.store.close();
  return log.lastIndex;
}

async function killAgainAndAgain(directory: string, firstSeed: number): Promise<number> {
  let previous: Life = { opened: 0, acknowledged: 0, submitted: 0 };
  const kills = KILLS / DIRECTORIES;
  for (let kill = 0; kill < kills; kill++) {
    const seed = firstSeed + kill;
    const random = new SeededRandom(seed);
    const life = await lifeOfAWriter(directory, seed, random.integer(8_000));
    const context = `seed ${seed}`;
    if (life.opened < 0) continue;
    expect(life.opened, `${context}: acknowledged before`).toBeGreaterThanOrEqual(
      previous.acknowledged,
    );
    expect(life.opened, `${context}: submitted before`).toBeLessThanOrEqual(previous.submitted);
    previous = {
      opened: life.opened,
      acknowledged: Math.max(life.opened, life.acknowledged),
      submitted: Math.max(life.opened, life.submitted),
    };
    if (kill % KILLS_PER_CHECK === KILLS_PER_CHECK - 1) {
      const last = await checkEveryEntry(directory, context);
      expect(last, context).toBeGreaterThanOrEqual(previous.acknowledged);
      expect(last, context).toBeLessThanOrEqual(previous.submitted);
    }
  }
  return previous.acknowledged;
}

it(`keeps what it acknowledged through ${KILLS} kills with SIGKILL`, async () => {
  const directories = Array.from({ length: DIRECTORIES }, () =>
    mkdtempSync(join(tmpdir(), 'keelson-kill-')),
  );
  try {
    const acknowledged = await Promise.all(
      directories.map((directory, at) => killAgainAndAgain(directory, 1 + at * KILLS)),
    );
    for (const entries of acknowledged) expect(entries).toBeGreaterThan(100);
  } finally {
    for (const directory of directories) rmSync(directory, { recursive: true });
  }
}, 180_000);
