import { readdirSync } from 'node:fs';
import { expect, it } from 'vitest';
import { page, ROOT, section, tableOf } from './support/pages.js';

/** Every event that the source gives to a logger. */
function loggedEvents(): Set<string> {
  const events = new Set<string>();
  for (const name of readdirSync(`${ROOT}src`, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts')) continue;
    for (const [, event = ''] of page(`src/${name}`).matchAll(/\bevent: '([\w.-]+\.[\w-]+)'/g)) {
      events.add(event);
    }
  }
  return events;
}

it('the table of events has every event that is logged, and no other', () => {
  const rows = tableOf(section(page('docs/command-line.md'), 'Events'));
  const documented = rows.map(({ event = '' }) => event).sort();
  expect(documented).toEqual([...loggedEvents()].sort());
});
