/** `keelson inspect` and `keelson verify` on a real directory. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';
import { makeIdentity } from '../storage/directory-support.js';
import { MIB, openLog, texts, vote } from '../storage/wal-support.js';
import { runCli } from './run-cli.js';

const directory = mkdtempSync(join(tmpdir(), 'keelson-tools-'));
const empty = mkdtempSync(join(tmpdir(), 'keelson-tools-'));
const segment = join(directory, 'wal', 'lane-0-0000000001.wal');

beforeAll(async () => {
  makeIdentity(new NodeDisk(), MIB, directory);
  const log = await openLog(new MemoryDisk(), {
    directory,
    executor: (heap, scheduler) => new InlineExecutor(heap, new NodeDisk(), scheduler),
  });
  await log.durable(log.append(texts(5)));
  await log.durable(log.saveVote(vote(4, 3, false), 9), 9);
  await log.durable(log.append(texts(2), 2));
  await log.store.close();
});

afterAll(() => {
  for (const each of [directory, empty]) rmSync(each, { recursive: true });
});

const files = (): [string, string][] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => [name, readFileSync(join(parentPath, name), 'base64')]);

describe('keelson inspect', () => {
  it('tells what the directory holds, and changes nothing', async () => {
    const before = files();
    const { code, stdout, stderr } = await runCli(['inspect', directory]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('node 1 of cluster "tested"');
    expect(stdout).toMatch(/^group 0: entries 1 to 7 of terms 1 to 2, committed 0, term 2, .*$/m);
    expect(stdout).toMatch(/^group 9: no entries behind 0, committed 0, term 4, vote for node 3$/m);
    expect(stdout).toMatch(
      /^.*lane-0-0000000001\.wal: \d+ KiB of 1 MiB used, batches 4, entries 7$/m,
    );
    expect(stdout).toMatch(
      /^space: segments 1 MiB, spares 0 B, snapshots 0 B, temporary 0 B, identity \d+ B$/m,
    );
    expect(files()).toEqual(before);
  });

  it('tells the same to a program', async () => {
    const { code, stdout } = await runCli(['inspect', directory, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      directory,
      identity: { clusterName: 'tested', nodeId: 1, laneCount: 1, segmentBytes: MIB },
      peers: [[2, 'ab'.repeat(16)]],
      lanes: [
        {
          lane: 0,
          segments: [{ sequence: 1, file: segment, fileBytes: MIB, entries: 7 }],
          groups: [
            { group: 0, firstIndex: 1, lastIndex: 7, firstTerm: 1, lastTerm: 2 },
            { group: 9, vote: { term: 4, nodeId: 3, committed: false }, lastIndex: 0 },
          ],
        },
      ],
      space: { segments: MIB, spares: 0, temporary: 0 },
      problems: [],
      notes: [],
    });
  });
});

it('keelson inspect tells the lane of each group where there are several', async () => {
  const several = mkdtempSync(join(tmpdir(), 'keelson-tools-'));
  try {
    makeIdentity(new NodeDisk(), MIB, several, 2);
    const log = await openLog(new MemoryDisk(), {
      directory: several,
      lanes: 2,
      executor: (heap, scheduler) => new InlineExecutor(heap, new NodeDisk(), scheduler),
    });
    for (const group of [0, 1]) await log.write(texts(2 + group), 1, group, 1);
    await log.store.close();
    const { stdout } = await runCli(['inspect', several]);
    expect(stdout).toMatch(/^lanes 2, segments of 1 MiB$/m);
    expect(stdout).toMatch(/^group 0 \(lane 0\): entries 1 to 2 /m);
    expect(stdout).toMatch(/^group 1 \(lane 1\): entries 1 to 3 /m);
    expect(stdout).toMatch(/lane-1-0000000001\.wal: \d+ KiB of 1 MiB used, batches 2, entries 3$/m);
    const verified = await runCli(['verify', several]);
    expect(verified.stdout).toContain('read: segments 2, spares 0, snapshots 0, groups 2,');
  } finally {
    rmSync(several, { recursive: true });
  }
});

describe('keelson verify', () => {
  it('ends with 0 where nothing is wrong', async () => {
    const before = files();
    const { code, stdout, stderr } = await runCli(['verify', directory]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toBe(
      `${directory}: sound; problems 0, notes 0; read: segments 1, spares 0, snapshots 0, groups 2, batches 4, entries 7\n`,
    );
    expect(files()).toEqual(before);
  });

  it('ends with 1 for a bit that has changed, and tells where and what it means', async () => {
    const whole = readFileSync(segment);
    const damaged = Buffer.from(whole);
    damaged[damaged.indexOf('entry-3')]! ^= 4;
    writeFileSync(segment, damaged);
    try {
      const { code, stdout } = await runCli(['verify', directory]);
      expect(code).toBe(1);
      expect(stdout).toMatch(
        /^problem: KEELSON_STORAGE_CORRUPT, file .*\.wal, offset \d+, group 0, index 1, lastIndex 5\n {2}The entries 1 to 5 of group 0 do not verify\./m,
      );
      expect(stdout).toContain(': DAMAGED; problems 2, notes 0;');
      const json = await runCli(['verify', '--json', directory]);
      expect(json.code).toBe(1);
      expect(JSON.parse(json.stdout)).toMatchObject({
        ok: false,
        problems: [
          { code: 'KEELSON_STORAGE_CORRUPT', file: segment, group: 0, index: 1, lastIndex: 5 },
          { code: 'KEELSON_STORAGE_CORRUPT', group: 0, index: 1, lastIndex: 5 },
        ],
        checked: { segments: 1, groups: 2 },
      });
      expect((await runCli(['inspect', directory])).stdout).toContain('2 problems, 0 notes');
    } finally {
      writeFileSync(segment, whole);
    }
  });
});

describe.each(['inspect', 'verify'])('keelson %s', (command) => {
  it('has help', async () => {
    const { code, stdout } = await runCli([command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain(`Usage: keelson ${command} DIR [--json]`);
    expect((await runCli(['help', command])).stdout).toBe(stdout);
  });

  it.each([
    ['without a directory', [], 'give one data directory'],
    ['with two', [directory, empty], 'give one data directory'],
    ['with a flag that it does not have', [directory, '--fast'], '--fast'],
    ['with a directory that is not there', [join(empty, 'no')], 'there is no data directory at'],
    ['with a directory of somebody else', [empty], 'there is no data directory at'],
  ])('called %s ends with 2', async (_, args, message) => {
    const { code, stdout, stderr } = await runCli([command, ...args]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
    expect(existsSync(join(empty, 'no'))).toBe(false);
  });
});
