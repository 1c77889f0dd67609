import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';
import { page, pages, ROOT, withoutFences } from './support/pages.js';

const { scripts } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')) as {
  scripts: Readonly<Record<string, string>>;
};

/** As GitHub makes an anchor of a heading. */
function anchors(text: string): string[] {
  return [...withoutFences(text).matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    (heading ?? '')
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replace(/ /g, '-'),
  );
}

describe.each(pages())('%s', (path) => {
  const text = page(path);

  it('links only to what is there', () => {
    for (const [link, target = ''] of withoutFences(text).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [file = '', anchor] = target.split('#');
      const linked = file === '' ? path : normalize(join(dirname(path), file));
      expect(existsSync(`${ROOT}${linked}`), `${link} in ${path}`).toBe(true);
      if (anchor !== undefined)
        expect(anchors(page(linked)), `${link} in ${path}`).toContain(anchor);
    }
  });

  it('names only files of this project that are there', () => {
    const named = /`((?:src|test|assembly|bench|examples|docs)\/[\w./-]*\w\/?)`/g;
    for (const [, file = ''] of text.matchAll(named)) {
      expect(existsSync(`${ROOT}${file}`), `${file} in ${path}`).toBe(true);
    }
  });

  it('names only scripts that package.json has', () => {
    for (const [command, name = ''] of text.matchAll(/npm run (?:--silent )?([\w:-]+)/g)) {
      expect(Object.keys(scripts), `${command} in ${path}`).toContain(name);
    }
    if (/npm start/.test(text)) expect(scripts.start).toBeDefined();
    if (/npm test/.test(text)) expect(scripts.test).toBeDefined();
  });
});
