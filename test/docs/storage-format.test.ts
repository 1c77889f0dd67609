import { describe, expect, it } from 'vitest';
import { laneOfGroup } from '../../dist/storage/lane-of-group.js';
import { STORAGE_FORMAT_VERSION } from '../../dist/storage/manifest.js';
import {
  MAX_SNAPSHOT_CHUNK_BYTES,
  MAX_SNAPSHOT_MEMBERSHIP_BYTES,
  SNAPSHOT_CHUNK,
  SNAPSHOT_FOOTER,
  SNAPSHOT_HEADER,
} from '../../dist/storage/snapshot-layout.js';
import {
  BATCH,
  BATCH_FLAG,
  BLOCK,
  BLOCK_FLAG,
  CHECKPOINT,
  ENTRY_KIND,
  HARD_STATE,
  ITEM,
  SECTOR_BYTES,
  SEGMENT,
} from '../../dist/wasm/layout.js';

import { columnOf, page, section, tableOf } from './support/pages.js';

const text = page('docs/storage-format.md');

interface Layout {
  readonly bytes: number;
  readonly magic?: number;
  readonly offset: Readonly<Record<string, number>>;
}

const LAYOUTS: readonly (readonly [heading: string, layout: Layout])[] = [
  ['Segment header', SEGMENT],
  ['Checkpoint record', CHECKPOINT],
  ['Batch header', BATCH],
  ['Block', BLOCK],
  ['Item', ITEM],
  ['Hard state', HARD_STATE],
  ['Snapshot header', SNAPSHOT_HEADER],
  ['Snapshot chunk', SNAPSHOT_CHUNK],
  ['Snapshot footer', SNAPSHOT_FOOTER],
];

const WIDTH: Readonly<Record<string, number>> = { u16: 2, u32: 4, u64: 8, '16 bytes': 16 };

describe('the page on the storage format', () => {
  it('finds the lane of a group as the store does', () => {
    const lanes = section(text, 'Lanes');
    const rows = tableOf(lanes);
    expect(rows.map((row) => row.laneCount)).toEqual(['1', '2', '3', '4']);
    const formula = /floor\(\(\(group × (\d+)\) mod 2\^32\) × laneCount ÷ 2\^32\)/;
    const multiplier = BigInt(formula.exec(lanes)![1]!);
    const byFormula = (group: number, laneCount: number): number =>
      Number((((BigInt(group) * multiplier) % 2n ** 32n) * BigInt(laneCount)) / 2n ** 32n);
    for (const row of rows) {
      const laneCount = Number(row.laneCount);
      const told = row['lanes of the groups 0 to 9']!.split(', ').map(Number);
      expect(told).toEqual(told.map((_, group) => laneOfGroup(group, laneCount)));
      for (let group = 0; group < 2 ** 32; group += 1_234_567) {
        const context = `group ${group} of ${laneCount}`;
        expect(laneOfGroup(group, laneCount), context).toBe(byFormula(group, laneCount));
      }
    }
  });

  it.each(LAYOUTS)('has every field of the %s at its offset', (heading, layout) => {
    const rows = tableOf(section(text, heading));
    const offsets = Object.fromEntries(rows.map((row) => [row.field, Number(row.offset)]));
    expect(offsets).toEqual(layout.offset);
  });

  it.each(LAYOUTS)(
    'has fields in the %s that neither overlap nor pass its end',
    (heading, layout) => {
      const rows = tableOf(section(text, heading));
      let end = 0;
      for (const row of rows) {
        const width = WIDTH[row.type ?? ''];
        expect(width, `the width of ${row.field}`).toBeDefined();
        expect(Number(row.offset), `${row.field} begins`).toBeGreaterThanOrEqual(end);
        end = Number(row.offset) + (width ?? 0);
      }
      expect(end).toBe(layout.bytes);
    },
  );

  it.each(LAYOUTS)('tells size and magic of the %s', (heading, layout) => {
    const body = section(text, heading);
    expect(body).toContain(`${layout.bytes} bytes`);
    if (layout.magic === undefined) return;
    const letters = Buffer.alloc(4);
    letters.writeUInt32LE(layout.magic);
    expect(body).toContain(`Magic \`${letters.toString('latin1')}\``);
    expect(body).toContain(`0x${layout.magic.toString(16)}`);
  });

  it('has the versions that are written', () => {
    expect(text).toContain(`this page is format ${STORAGE_FORMAT_VERSION}`);
    for (const [heading, { version }] of [
      ['Segment header', SEGMENT],
      ['Batch header', BATCH],
      ['Snapshot header', SNAPSHOT_HEADER],
    ] as const) {
      const row = tableOf(section(text, heading)).find(({ field }) => field === 'version');
      expect(row?.meaning).toBe(String(version));
    }
  });

  it('has every flag of a batch and of a block, and every kind of an item', () => {
    const blockFlags = tableOf(section(text, 'Block flags'));
    expect(columnOf(blockFlags, 'flag', 'value')).toEqual(BLOCK_FLAG);
    const flags = tableOf(section(text, 'Batch flags'));
    expect(columnOf(flags, 'flag', 'value')).toEqual(BATCH_FLAG);
    const kinds = tableOf(section(text, 'Kinds'));
    expect(columnOf(kinds, 'kind', 'value')).toEqual(ENTRY_KIND);
  });

  it('has the limits of a snapshot', () => {
    const body = section(text, 'Snapshot header') + section(text, 'Snapshot chunk');
    for (const limit of [MAX_SNAPSHOT_CHUNK_BYTES, MAX_SNAPSHOT_MEMBERSHIP_BYTES]) {
      expect(body).toContain(`${limit.toLocaleString('en')} bytes`);
    }
  });

  it('has the size of a sector', () => {
    expect(text).toContain(`A *sector* is ${SECTOR_BYTES.toLocaleString('en')} bytes`);
  });
});
