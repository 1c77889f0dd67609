/** Directories that earlier versions have written (test/storage/golden): every later version opens them. */
import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openDataDirectory } from '../../dist/storage/data-directory.js';
import { clusterIdOf, STORAGE_FORMAT_VERSION } from '../../dist/storage/manifest.js';
import { PeerRegistry } from '../../dist/storage/peer-registry.js';
import { readEntries } from '../../dist/testing/log-blocks.js';
import { surveyOf } from './directory-support.js';
import {
  GOLDEN,
  type GoldenGroup,
  goldenContent,
  loadGolden,
  openGolden,
  SEGMENT_BYTES,
} from './golden/golden.js';

const NO_EVENTS = { flushed() {}, failed() {}, writable() {} };

const formats = readdirSync(GOLDEN, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);

const lastIndexOf = ({ purged, entries }: GoldenGroup): number => purged.index + entries.length;

function termRunsOf({ entries }: GoldenGroup): object[] {
  const runs = entries.filter((entry, place) => entry.term !== entries[place - 1]?.term);
  return runs.map(({ index, term }) => ({ firstIndex: index, term }));
}

it('there is a golden directory of the format that is written', () => {
  expect(formats).toContain(`format-${STORAGE_FORMAT_VERSION}`);
});

describe.each(formats)('the golden directory of %s', (format) => {
  const content = goldenContent(format);

  it('has what is worth keeping: purges, cuts, a reset, a file used again, a batch to carry', async () => {
    const { lanes, problems, notes } = await surveyOf(loadGolden(format));
    expect([problems, notes]).toEqual([[], []]);
    const { segments, groups } = lanes[0]!;
    expect(segments.filter(({ recycled }) => recycled).length).toBeGreaterThan(1);
    expect(segments.at(-1)!.batches).toBeGreaterThan(1);
    expect(groups.filter(({ purged }) => purged.index > 0).length).toBeGreaterThanOrEqual(3);
    expect(groups.length).toBe(content.length);
  });

  it('opens with exactly its content, twice', async () => {
    const disk = loadGolden(format);
    for (const opening of [1, 2]) {
      const store = await openGolden(disk, opening, NO_EVENTS);
      for (const expected of content) {
        const { group, vote, committed, purged, memberships, entries } = expected;
        const lastIndex = lastIndexOf(expected);
        const context = `group ${group}, opening ${opening}`;
        expect(store.recovered(group), context).toEqual({
          ...{ vote, committed, purged, lastIndex, memberships },
          termRuns: termRunsOf(expected),
        });
        const found = await readEntries(store, group, purged.index + 1, lastIndex);
        expect(found, context).toEqual(entries);
        expect(store.lastTime(group), context).toBe(entries.at(-1)?.time ?? 0);
      }
      await store.close();
    }
  });

  it('is known by its manifest, and remembers its peers', () => {
    const disk = loadGolden(format);
    const expected = {
      clusterName: 'tested',
      clusterId: clusterIdOf('tested', { 1: 'a:1' }),
      nodeId: 1,
      laneCount: 1,
      segmentBytes: SEGMENT_BYTES,
    };
    const manifest = openDataDirectory(disk, '/data', expected, (length) => new Uint8Array(length));
    expect(manifest).toMatchObject({ ...expected, logBegun: true, created: false });
    expect(PeerRegistry.open(disk, '/data').known(2)).toBe('ab'.repeat(16));
  });
});
