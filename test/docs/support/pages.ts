/** Reads the pages of this project as tests need them: sections, tables, fenced code. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ROOT: string = fileURLToPath(new URL('../../../', import.meta.url));

export function page(path: string): string {
  return readFileSync(`${ROOT}${path}`, 'utf8');
}

/** Every page of prose, relative to the root. */
export function pages(): string[] {
  const top = readdirSync(ROOT).filter((name) => name.endsWith('.md'));
  const docs = readdirSync(`${ROOT}docs`).filter((name) => name.endsWith('.md'));
  return [...top, ...docs.map((name) => `docs/${name}`)].sort();
}

/** What stands between a heading and the next one of any level. */
export function section(text: string, heading: string): string {
  const lines = text.split('\n');
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.endsWith(` ${heading}`));
  if (start < 0) throw new Error(`there is no heading "${heading}"`);
  const end = lines.findIndex((line, at) => at > start && /^#+ /.test(line));
  return lines.slice(start + 1, end < 0 ? undefined : end).join('\n');
}

export type Row = Readonly<Record<string, string>>;

/** The first table of the text; cells without the marks of code. */
export function tableOf(text: string): Row[] {
  const lines = text.split('\n').filter((line) => line.startsWith('|'));
  const [head, , ...rows] = lines.map((line) =>
    line
      .slice(1, line.lastIndexOf('|'))
      .split('|')
      .map((cell) => cell.trim().replace(/^`([^`]*)`$/, '$1')),
  );
  if (head === undefined) throw new Error('there is no table');
  return rows.map((cells) => Object.fromEntries(head.map((name, at) => [name, cells[at] ?? ''])));
}

export function columnOf(rows: readonly Row[], key: string, value: string): Record<string, number> {
  return Object.fromEntries(rows.map((row) => [row[key], Number(row[value])]));
}

export interface Fence {
  readonly language: string;
  readonly code: string;
}

export function fences(text: string): Fence[] {
  const found: Fence[] = [];
  for (const match of text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)) {
    found.push({ language: match[1] ?? '', code: match[2] ?? '' });
  }
  return found;
}

export function withoutFences(text: string): string {
  return text.replace(/^```\w*\n[\s\S]*?^```$/gm, '');
}
