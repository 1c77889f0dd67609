/**
 * One table per command says which flags exist. Parsing, the environment and `--help` all come from
 * it, so that help is complete by construction. A flag given on the command line wins over its
 * environment variable.
 */
import { parseArgs } from 'node:util';
import { UsageError } from './usage.js';

export interface Flag {
  /** Placeholder of the value in help; absent for a switch. */
  readonly value?: string;
  /** One sentence; defaults and ranges included. */
  readonly about: string;
  readonly required?: boolean;
  /** Environment variable that gives the value when the flag is absent. */
  readonly environment?: string;
}

export type FlagTable = Readonly<Record<string, Flag>>;

export type FlagValues<Table extends FlagTable> = {
  readonly [Name in keyof Table]?: string;
};

/** A switch that is set has the value `true`. Required flags are checked here. */
export function readFlags<Table extends FlagTable>(
  table: Table,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): FlagValues<Table> {
  const given = parse(table, args);
  const values: Record<string, string> = {};
  const missing: string[] = [];
  for (const [name, flag] of Object.entries(table)) {
    const fromEnvironment =
      flag.environment === undefined ? undefined : environment[flag.environment];
    const value = given[name] ?? fromEnvironment;
    if (value !== undefined && value !== '') values[name] = value;
    else if (flag.required === true) missing.push(`--${name} ${flag.value ?? ''}`.trimEnd());
  }
  if (missing.length > 0) throw new UsageError(`missing ${missing.join(', ')}`);
  return values as FlagValues<Table>;
}

export function asksForHelp(args: readonly string[]): boolean {
  return args.includes('--help') || args.includes('-h');
}

function parse(table: FlagTable, args: readonly string[]): Record<string, string> {
  const options = Object.fromEntries(
    Object.entries(table).map(([name, flag]) => [
      name,
      { type: flag.value === undefined ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  try {
    const { values } = parseArgs({ args: [...args], options, strict: true });
    return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, String(value)]));
  } catch (error) {
    const isUsage = error instanceof TypeError && 'code' in error;
    if (!isUsage || !String(error.code).startsWith('ERR_PARSE_ARGS')) throw error;
    throw new UsageError(error.message);
  }
}

/** The flags as help shows them, one paragraph each. */
export function describeFlags(table: FlagTable): string {
  return Object.entries(table)
    .map(([name, flag]) => {
      const usage = `  --${name}${flag.value === undefined ? '' : ` ${flag.value}`}`;
      const notes = [
        ...(flag.required === true ? ['required'] : []),
        ...(flag.environment === undefined ? [] : [`or ${flag.environment}`]),
      ];
      const note = notes.length === 0 ? '' : ` (${notes.join(', ')})`;
      return `${usage}${note}\n${wrap(flag.about, 6, 88)}`;
    })
    .join('\n');
}

function wrap(text: string, indent: number, width: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.map((each) => ' '.repeat(indent) + each).join('\n');
}

export function wholeNumberFlag(
  name: string,
  text: string,
  minimum: number,
  maximum: number,
): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum)) {
    throw new UsageError(
      `--${name} must be a whole number from ${minimum} to ${maximum}, not "${text}"`,
    );
  }
  return value;
}
