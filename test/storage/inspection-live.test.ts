/**
 * Looking at a directory that a node is using: the log grows, comes to its next segment, and gives old ones
 * up while they are being read. None of that is damage; what is damage is found all the same.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';
import { PiscinaExecutor } from '../../dist/storage/piscina-executor.js';
import { makeIdentity, surveyOf } from './directory-support.js';
import { PassingDisk, RecordingDisk } from './passing-disk.js';
import { openLog, type TestLog, texts } from './wal-support.js';

const KIB = 1024;
const CHILD = fileURLToPath(new URL('./verify-child.mjs', import.meta.url));
const SMALL = { segmentBytes: 64 * KIB, maxBatchBytes: 16 * KIB };

/** Appends to two groups and purges one of them, until the log has come to so many segments. */
async function write(log: TestLog, random: SeededRandom, until: () => boolean): Promise<void> {
  while (!until()) {
    const name = 'x'.repeat(random.integer(4000));
    const io = log.append(texts(1 + random.integer(4), name));
    if (random.chance(0.3))
      log.saveVote({ term: 1 + random.integer(50), nodeId: 2, committed: false }, 7);
    if (random.chance(0.7)) await log.durable(io);
    if (random.chance(0.5)) log.store.recordCommitted(0, log.purged.index);
    const kept = log.lastIndex - log.purged.index;
    if (kept > 20) log.purge(log.lastIndex - random.integer(12));
  }
}

describe('a directory that is being written', () => {
  it('shows no problem at any moment, however the reading falls', async () => {
    const seed = 31;
    const disk = new MemoryDisk();
    makeIdentity(disk, SMALL.segmentBytes);
    const recording = new RecordingDisk(disk);
    const log = await openLog(disk, {
      ...SMALL,
      executor: (heap, scheduler) => new InlineExecutor(heap, recording, scheduler),
    });
    const random = new SeededRandom(seed);
    await write(log, random, () => disk.exists('/data/wal/lane-0-0000000012.wal'));
    await log.store.close();
    const { moments } = recording;
    let notes = 0;
    for (let round = 0; round < 200; round++) {
      const haste = 1 + random.integer(4);
      const survey = await surveyOf(new PassingDisk(moments, random, haste));
      expect(survey.problems, `seed ${seed} round ${round}`).toEqual([]);
      notes += survey.notes.length;
    }
    expect(notes).toBe(0);
    expect(log.store.metrics().retiredSegments).toBeGreaterThan(5);
  });

  it('shows no problem to another process, until a bit of proven data is flipped', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'keelson-verify-'));
    makeIdentity(new NodeDisk(), SMALL.segmentBytes, directory);
    const log = await openLog(new MemoryDisk(), {
      ...SMALL,
      directory,
      executor: (heap, scheduler) => new PiscinaExecutor(heap, scheduler),
    });
    try {
      const child = spawn(process.execPath, [CHILD, directory, '40'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let output = '';
      child.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString();
      });
      let ended = false;
      const end = once(child, 'close').finally(() => {
        ended = true;
      });
      await write(log, new SeededRandom(5), () => ended);
      expect(await end).toEqual([0, null]);
      const rounds = output
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(rounds.length).toBeGreaterThan(20);
      expect(rounds.flatMap(({ problems }) => problems)).toEqual([]);
      // The log went on all the while, through segments that were read.
      expect(log.store.metrics().retiredSegments).toBeGreaterThan(20);

      const io = log.append(texts(2, 'to be lost'));
      await log.durable(io);
      await log.durable(log.append(texts(1, 'its proof')));
      const before = await surveyOf(new NodeDisk(), directory);
      expect(before.problems).toEqual([]);
      // Its proof may be in a later segment; old ones may be given up this moment.
      const files = before.lanes[0]!.segments.map(({ file }) => file);
      const file = files.findLast((file) => readFileSync(file).includes('to be lost-1'))!;
      const bytes = readFileSync(file);
      bytes[bytes.indexOf('to be lost-1')]! ^= 1;
      writeFileSync(file, bytes);
      const { problems } = await surveyOf(new NodeDisk(), directory);
      expect(problems[0]).toMatchObject({ file, group: 0, index: io.logId.index - 1 });
    } finally {
      await log.store.close();
      rmSync(directory, { recursive: true });
    }
  });
});
