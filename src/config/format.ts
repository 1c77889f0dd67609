/** How fields and sizes are shown to people: in docs/configuration.md and by `keelson config`. */
import { environmentName } from './load-config.js';
import { describeConfig, type FieldDescription } from './schema.js';

const KIB = 1024;
const SIZES: readonly (readonly [unit: string, bytes: number])[] = [
  ['GiB', KIB ** 3],
  ['MiB', KIB ** 2],
  ['KiB', KIB],
];

/** Whole units where the size is one, else bytes: `64 MiB`, `1000 B`. */
export function formatBytes(bytes: number): string {
  const fit = SIZES.find(([, size]) => bytes >= size && bytes % size === 0);
  return fit === undefined ? `${bytes} B` : `${bytes / fit[1]} ${fit[0]}`;
}

/** A value with the unit of its field. */
export function formatValue(value: unknown, { unit }: FieldDescription): string {
  if (unit === 'bytes') return formatBytes(value as number);
  return unit === 'ms' || unit === 'µs' ? `${value} ${unit}` : String(value);
}

export function formatRange(field: FieldDescription): string {
  if (field.type === 'boolean') return 'true, false';
  if (field.choices !== undefined) return field.choices.join(', ');
  return `${formatValue(field.min, field)} – ${formatValue(field.max, field)}`;
}

/** The tables of docs/configuration.md, one per section. */
export function configurationTables(): string {
  const lines: string[] = [];
  let section = '';
  for (const field of describeConfig()) {
    const [next, name] = field.field.split('.') as [string, string];
    if (next !== section) {
      section = next;
      lines.push('', `## \`${section}\``, '', '| field | default | range | meaning |');
      lines.push('|---|---|---|---|');
    }
    const initial = formatValue(field.default, field);
    lines.push(`| \`${name}\` | ${initial} | ${formatRange(field)} | ${field.about} |`);
  }
  return `${lines.slice(1).join('\n')}\n`;
}

/** `raft.electionTimeoutMs` with everything that is known of it, in two lines. */
export function describeField(field: FieldDescription, value: unknown): string {
  const range = `default ${formatValue(field.default, field)}, range ${formatRange(field)}`;
  const name = `${field.field} = ${formatValue(value, field)}`;
  return `${name}  (${range}; ${environmentName(field.field)})\n    ${field.about}`;
}
