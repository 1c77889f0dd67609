/** What `keelson inspect` and `keelson verify` find in a directory that nobody uses. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { DirectorySurvey } from '../../dist/storage/inspection/directory-survey.js';
import { laneOfGroup } from '../../dist/storage/lane-of-group.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { LogStep } from '../../dist/testing/log-workload.js';
import { flippedBits, isRefused, segmentsOf } from './damage-support.js';
import { makeIdentity, surveyOf } from './directory-support.js';
import { GROUPS, openSmall, runScript, SCRIPT } from './fault-rig.js';
import { FIRST_SEGMENT, MIB, openLog, texts } from './wal-support.js';

const SEED = 23;
const SEGMENT_BYTES = 64 * 1024;
const FOLDER = '/data/wal';
/** Every so many bytes of a file are damaged in turn. */
const STRIDE = 449;

let disk: MemoryDisk;
/** Several segments of entries that are needed. */
const growth: LogStep[] = Array.from({ length: 12 }, () => [
  { do: 'append', group: GROUPS[0]!, count: 2, bytes: 7_000 } as const,
  { do: 'wait' } as const,
]).flat();

let sound: DirectorySurvey;

beforeAll(async () => {
  disk = new MemoryDisk();
  makeIdentity(disk, SEGMENT_BYTES);
  const { refusal, workload } = await runScript(disk, SEED, [...SCRIPT, ...growth]);
  expect([refusal, workload.failure]).toEqual([undefined, undefined]);
  disk = disk.kill();
  sound = await surveyOf(disk);
});

describe('a survey of a directory', () => {
  it('tells of each group what a start finds, and changes nothing', async () => {
    const image = disk.imageAfterKill();
    const calls = image.recordCalls();
    const { lanes, problems, notes } = await surveyOf(image);
    expect([problems, notes]).toEqual([[], []]);
    expect(calls.filter(({ changes }) => changes)).toEqual([]);
    const store = await openSmall(image, { seed: SEED });
    const groups = [...lanes[0]!.groups].sort((left, right) => left.group - right.group);
    expect(groups.map(({ group }) => group)).toEqual([...GROUPS].sort((a, b) => a - b));
    for (const found of groups) {
      const { vote, committed, purged, termRuns, lastIndex } = store.recovered(found.group);
      expect(found).toMatchObject({ vote, committed, purged, lastIndex });
      expect(found.firstIndex).toBe(purged.index + 1);
      expect(found.firstTerm).toBe(termRuns[0]?.term ?? 0);
      expect(found.lastTerm).toBe(termRuns.at(-1)?.term ?? 0);
    }
    await store.close();
  });

  it('tells whose it is, and counts every file once', () => {
    const { identity, peers, lanes, spares, space } = sound;
    expect(identity).toMatchObject({ clusterName: 'tested', nodeId: 1, laneCount: 1 });
    expect(peers).toEqual([[2, 'ab'.repeat(16)]]);
    expect(lanes[0]!.segments.map(({ file }) => file)).toEqual(segmentsOf(disk));
    expect(lanes[0]!.segments.some(({ recycled }) => recycled)).toBe(true);
    const bytes = (names: readonly string[]): number =>
      names.reduce((sum, name) => sum + disk.readFile(name).length, 0);
    expect(space.segments).toBe(bytes(segmentsOf(disk)));
    expect(space.spares).toBe(bytes(spares.map(({ file }) => file)));
    expect(space.identity).toBe(bytes(['/data/manifest', '/data/peers']));
    const all = disk.list(FOLDER).map((name) => `${FOLDER}/${name}`);
    expect(space.segments + space.spares + space.temporary).toBe(bytes(all));
  });

  it('tells of each lane its groups and files, and which one is lost', async () => {
    const layout = { segmentBytes: SEGMENT_BYTES, lanes: 3 };
    const running = new MemoryDisk();
    makeIdentity(running, SEGMENT_BYTES, '/data', layout.lanes);
    const { refusal, workload } = await runScript(running, SEED, SCRIPT, layout);
    expect([refusal, workload.failure]).toEqual([undefined, undefined]);
    const image = running.kill();
    const { lanes, spares, problems, notes, space } = await surveyOf(image);
    expect([problems, notes]).toEqual([[], []]);
    const files = lanes.flatMap(({ segments }) => segments.map(({ file }) => file));
    expect(files).toEqual(segmentsOf(image));
    expect(space.segments).toBe(files.reduce((sum, file) => sum + image.readFile(file).length, 0));
    expect(new Set(spares.map(({ file }) => file)).size).toBe(spares.length);
    const store = await openSmall(image.imageAfterKill(), { seed: SEED, ...layout });
    const found = lanes.map(({ lane, groups }) => groups.map(({ group }) => `${group} in ${lane}`));
    const expected = GROUPS.map((group) => `${group} in ${laneOfGroup(group, layout.lanes)}`);
    expect(found.flat().sort()).toEqual(expected.sort());
    for (const { group, lastIndex } of lanes.flatMap(({ groups }) => groups)) {
      expect(lastIndex).toBe(store.recovered(group).lastIndex);
    }
    await store.close();
    for (const { segments } of lanes.slice(1, 2)) {
      for (const { file } of segments) image.remove(file);
    }
    expect((await surveyOf(image)).problems).toMatchObject([
      {
        code: 'KEELSON_STORAGE_CORRUPT',
        meaning: expect.stringContaining('lost lane 1 of its log'),
      },
    ]);
  });

  it('a tail that a crash has left is a note, behind an orderly close a problem', async () => {
    for (const closed of [false, true]) {
      const image = new MemoryDisk();
      makeIdentity(image, MIB);
      const log = await openLog(image);
      await log.durable(log.append(texts(3)));
      if (closed) await log.store.close();
      const { usedBytes: end } = (await surveyOf(image)).lanes[0]!.segments[0]!;
      image.damage(FIRST_SEGMENT, end + 5000, (bytes) => bytes.fill(7));
      const { problems, notes } = await surveyOf(image);
      const place = expect.objectContaining({ file: FIRST_SEGMENT, offset: end });
      expect(problems, `closed: ${closed}`).toEqual(closed ? [place] : []);
      expect(notes, `closed: ${closed}`).toEqual(closed ? [] : [place]);
    }
  });

  it('a file that waits with zeros and holds something else is a problem', async () => {
    const image = new MemoryDisk();
    makeIdentity(image, MIB);
    await openLog(image);
    const spare = `${FOLDER}/lane-0-spare-0000000000`;
    const file = image.open(spare, { access: 'write', create: true });
    file.extend(MIB);
    expect((await surveyOf(image)).problems).toEqual([]);
    file.write(Uint8Array.of(1), 700_001);
    expect((await surveyOf(image)).problems).toMatchObject([{ file: spare, offset: 700_001 }]);
  });
});

describe('damage at rest', () => {
  it('is found exactly where a start refuses the directory, with its file and offset', async () => {
    let found = 0;
    for (const { image, file, context } of flippedBits(disk, SEED, STRIDE)) {
      const { problems } = await surveyOf(image);
      expect(problems.length > 0, context).toBe(await isRefused(image, SEED));
      if (problems.length === 0) continue;
      found++;
      expect(problems, context).toContainEqual(
        expect.objectContaining({ file, offset: expect.any(Number) }),
      );
    }
    expect(found).toBeGreaterThan(50);
  });

  it('is all told, not only the first, and names the entries that are gone', async () => {
    const image = new MemoryDisk();
    makeIdentity(image, MIB);
    const log = await openLog(image);
    const ends: number[] = [];
    for (let batch = 0; batch < 6; batch++) {
      await log.durable(log.append(texts(4, 'entry'.repeat(100))));
      ends.push((await surveyOf(image)).lanes[0]!.segments[0]!.usedBytes);
    }
    for (const batch of [1, 3]) {
      image.damage(FIRST_SEGMENT, ends[batch - 1]! + 1000, (bytes) => bytes.fill(0), 3);
    }
    image.damage('/data/peers', 10, (bytes) => bytes.fill(0));
    const { problems, lanes } = await surveyOf(image);
    expect(lanes[0]!.groups).toMatchObject([{ group: 0, firstIndex: 1, lastIndex: 24 }]);
    const lost = (index: number, batch: number): object => ({
      code: 'KEELSON_STORAGE_CORRUPT',
      file: FIRST_SEGMENT,
      offset: ends[batch - 1]! + 128,
      group: 0,
      index,
      lastIndex: index + 3,
      meaning: expect.stringContaining(`entries ${index} to ${index + 3} of group 0`),
    });
    expect(problems).toMatchObject([
      { file: '/data/peers' },
      lost(5, 1),
      lost(13, 3),
      { file: undefined, group: 0, index: 5, lastIndex: 8 },
      { file: undefined, group: 0, index: 13, lastIndex: 16 },
    ]);
  });

  it.each([1e6, 1e9, 1e12, 1e15])(
    'may hide that a log began anew behind entry %d',
    async (behind) => {
      const image = new MemoryDisk();
      makeIdentity(image, MIB);
      const log = await openLog(image);
      await log.durable(log.append(texts(4)));
      const { usedBytes } = (await surveyOf(image)).lanes[0]!.segments[0]!;
      const io = log.nextIo(2, behind);
      log.store.resetLog(0, { index: behind, term: 2 }, io);
      await log.durable(io);
      await log.durable(log.append(texts(2), 2, 0, behind + 1));
      await log.durable(log.append(texts(2), 2));
      expect((await surveyOf(image)).problems).toEqual([]);
      image.damage(FIRST_SEGMENT, usedBytes + 130, (bytes) => bytes.fill(0x55));
      const { problems } = await surveyOf(image);
      expect(problems[0]).toMatchObject({ file: FIRST_SEGMENT, offset: usedBytes });
      expect(problems.length).toBeGreaterThan(1);
    },
  );

  it('is a segment that is missing, and does not accuse those beside it', async () => {
    const running = new MemoryDisk();
    makeIdentity(running, SEGMENT_BYTES);
    const append: LogStep = { do: 'append', group: GROUPS[0]!, count: 8, bytes: 2_000, back: 0 };
    const steps = Array.from({ length: 16 }, (): LogStep[] => [append, { do: 'wait' }]).flat();
    const { refusal, workload } = await runScript(running, SEED, steps);
    expect([refusal, workload.failure]).toEqual([undefined, undefined]);
    const image = running.kill();
    const { lanes } = await surveyOf(image);
    const needed = lanes[0]!.segments.filter(({ superseded }) => !superseded);
    expect(needed.length).toBeGreaterThanOrEqual(3);
    image.remove(needed[1]!.file);
    const { problems } = await surveyOf(image);
    const files = problems.map(({ file }) => file).filter((file) => file !== undefined);
    expect(files).toEqual([needed[2]!.file]);
    expect(problems[0]!.meaning).toContain(`(${needed[1]!.sequence}) is missing`);
  });

  it('is a lost manifest, a lost log, and a file that cannot be read', async () => {
    const nobodys = disk.imageAfterKill();
    nobodys.remove('/data/manifest');
    expect((await surveyOf(nobodys)).problems).toMatchObject([{ file: '/data/manifest' }]);

    const forgetful = disk.imageAfterKill();
    for (const file of segmentsOf(forgetful)) forgetful.remove(file);
    expect((await surveyOf(forgetful)).problems).toMatchObject([
      { code: 'KEELSON_STORAGE_CORRUPT', meaning: expect.stringContaining('lost its log') },
    ]);

    const failing = disk.imageAfterKill();
    const { file } = sound.lanes[0]!.segments.at(-1)!;
    failing.fail({ operation: 'read', nth: 1, pathIncludes: file, code: 'EIO', sticky: true });
    expect((await surveyOf(failing)).problems).toContainEqual(
      expect.objectContaining({ code: 'KEELSON_STORAGE_FAILED', file }),
    );
  });
});
