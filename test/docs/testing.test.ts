import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { page, ROOT, section, tableOf } from './support/pages.js';

const KNOWN_BUG = /known bug (\d+):/g;

/** `number → files` of every test that is named after a known bug. */
function coveredByTests(): Map<number, Set<string>> {
  const covered = new Map<number, Set<string>>();
  for (const file of [...filesIn('test'), ...filesIn('src/testing')]) {
    if (!file.endsWith('.ts') || file.startsWith('test/docs/')) continue;
    for (const [, number] of page(file).matchAll(KNOWN_BUG)) {
      const files = covered.get(Number(number)) ?? new Set();
      covered.set(Number(number), files.add(file));
    }
  }
  return covered;
}

function filesIn(folder: string): string[] {
  const names = readdirSync(`${ROOT}${folder}`, { recursive: true, encoding: 'utf8' });
  return names.map((name) => `${folder}/${name.replaceAll('\\', '/')}`);
}

describe('the table of known bugs', () => {
  const rows = tableOf(section(page('docs/testing.md'), 'Known bugs'));
  const covered = coveredByTests();

  it.each(rows)('row $number is tested where it says', ({ number, tests }) => {
    const listed = [...(tests ?? '').matchAll(/(?:test|src\/testing)\/[\w./-]+/g)]
      .map(([file]) => file)
      .sort();
    expect(listed).toEqual([...(covered.get(Number(number)) ?? [])].sort());
  });

  it('has every bug that a test is named after, in ascending order', () => {
    const numbers = rows.map(({ number }) => Number(number));
    expect(numbers).toEqual([...covered.keys()].sort((left, right) => left - right));
  });
});
