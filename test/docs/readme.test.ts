import { describe, expect, it } from 'vitest';
import { fences, page } from './support/pages.js';

describe('README.md', () => {
  const blocks = fences(page('README.md'));

  it.each(['examples/bank/bank.ts', 'examples/bank/main.ts'])('shows %s as it runs', (path) => {
    const shown = blocks.filter(({ language }) => language === 'ts').map(({ code }) => code);
    expect(shown).toContain(page(path));
  });

  it('gives newcomers exactly two commands', () => {
    const commands = blocks
      .filter(({ language }) => language === 'console')
      .flatMap(({ code }) => code.split('\n'))
      .filter((line) => line.startsWith('$ npm install'));
    expect(commands).toEqual(['$ npm install && npm start', '$ npm install && npm test']);
  });
});
