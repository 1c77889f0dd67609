import { describe, expect, it } from 'vitest';
import { page, section, tableOf } from './support/pages.js';

const UNITS: Readonly<Record<string, number>> = { '': 1, ms: 1, B: 1, KiB: 1024, MiB: 1024 ** 2 };

/** `8 * 1024` or `1_000` of `const NAME = …;`. */
function constantOf(source: string, name: string): number | undefined {
  const found = new RegExp(`\\b${name}(?:: number)? = ([\\d_ *]+);`).exec(source)?.[1];
  return found
    ?.replaceAll('_', '')
    .split('*')
    .reduce((product, factor) => product * Number(factor), 1);
}

describe('the limits that are fixed', () => {
  const rows = tableOf(section(page('docs/configuration.md'), 'Fixed limits'));

  it.each(rows)('$limit: $value', ({ value = '', where = '' }) => {
    const [, number = '', unit = ''] = /^([\d,]+)(?: (\w+))?$/.exec(value) ?? [];
    const [, name = '', file = ''] = /^`(\w+)` in `([\w./-]+)`$/.exec(where) ?? [];
    expect(Number(number.replaceAll(',', '')) * (UNITS[unit] ?? Number.NaN)).toBe(
      constantOf(page(file), name),
    );
  });
});
