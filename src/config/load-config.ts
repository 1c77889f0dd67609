/**
 * The configuration of a command-line program: flags over environment over file over defaults. The
 * library itself reads only the object that it is given.
 *
 * | source      | form of `raft.electionTimeoutMs`                              |
 * |-------------|---------------------------------------------------------------|
 * | file        | JSON: `{ "raft": { "electionTimeoutMs": 2000 } }`             |
 * | environment | `KEELSON_RAFT_ELECTION_TIMEOUT_MS=2000`                       |
 * | flags       | `{ 'raft-election-timeout-ms': '2000' }`                      |
 */
import { readFileSync } from 'node:fs';
import { KeelsonError } from '../base/errors.js';
import { checkedConfig } from './resolve.js';
import { describeConfig, type FieldDescription, type Violation } from './schema.js';
import type { Config } from './types.js';

export interface ConfigSources {
  /** Path of a JSON file. */
  readonly file?: string | undefined;
  /** Usually `process.env`. Variables of other subjects are ignored. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
  /** Names as `flagName` gives them, without dashes in front. */
  readonly flags?: Readonly<Record<string, string | undefined>> | undefined;
}

/**
 * @throws KeelsonError INVALID_CONFIG with all violations of all sources, MISSING_FILE when the file
 * cannot be read.
 */
export function loadConfig(sources: ConfigSources = {}): Config {
  const { file, environment = {}, flags = {} } = sources;
  const input: Record<string, unknown> = file === undefined ? {} : readConfigFile(file);
  const violations: Violation[] = [];
  const fields = describeConfig();
  violations.push(...overlay(input, fields, environment, environmentName));
  violations.push(...unknownVariables(fields, environment));
  violations.push(...overlay(input, fields, flags, flagName));
  violations.push(...unknownFlags(fields, flags));
  return checkedConfig(input, violations);
}

/** `raft.electionTimeoutMs` → `KEELSON_RAFT_ELECTION_TIMEOUT_MS`. */
export function environmentName(field: string): string {
  return `KEELSON_${words(field).join('_').toUpperCase()}`;
}

/** `raft.electionTimeoutMs` → `raft-election-timeout-ms`. */
export function flagName(field: string): string {
  return words(field).join('-');
}

function words(field: string): string[] {
  return field.replace(/[A-Z]/g, (letter) => `.${letter.toLowerCase()}`).split('.');
}

function readConfigFile(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const message = `cannot read the configuration file ${file}: ${(error as Error).message}`;
    throw new KeelsonError('KEELSON_MISSING_FILE', message, { details: { file }, cause: error });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw badFile(file, `is not JSON: ${(error as Error).message}`);
  }
  if (!isObject(parsed)) throw badFile(file, 'must hold one JSON object with sections');
  return parsed;
}

function badFile(file: string, what: string): KeelsonError {
  const violations: Violation[] = [{ field: file, message: what }];
  return new KeelsonError('KEELSON_INVALID_CONFIG', `the configuration file ${file} ${what}`, {
    details: { violations },
  });
}

/** Puts given texts over the input, converted where they can be; the schema judges the rest. */
function overlay(
  input: Record<string, unknown>,
  fields: readonly FieldDescription[],
  given: Readonly<Record<string, string | undefined>>,
  nameOf: (field: string) => string,
): Violation[] {
  const violations: Violation[] = [];
  for (const description of fields) {
    const { field } = description;
    const text = given[nameOf(field)];
    if (text === undefined) continue;
    const value = convert(text, description);
    const [section, name] = field.split('.') as [string, string];
    const present = input[section] ?? {};
    if (value === undefined) {
      const message = `is given as "${text}" by ${nameOf(field)}, which is no ${description.type}`;
      violations.push({ field, message });
    } else if (isObject(present)) {
      input[section] = { ...present, [name]: value };
    }
  }
  return violations;
}

function convert(text: string, { type }: FieldDescription): unknown {
  if (type === 'choice') return text;
  if (type === 'boolean') return text === 'true' ? true : text === 'false' ? false : undefined;
  return /^-?\d{1,16}$/.test(text) ? Number(text) : undefined;
}

/** A variable that names a section but no field of it is a typing error; others are not ours. */
function unknownVariables(
  fields: readonly FieldDescription[],
  environment: Readonly<Record<string, string | undefined>>,
): Violation[] {
  const known = new Set(fields.map(({ field }) => environmentName(field)));
  const sections = new Set(fields.map(({ field }) => field.split('.')[0]!));
  const prefixes = [...sections].map((section) => `${environmentName(section)}_`);
  return Object.keys(environment)
    .filter((name) => !known.has(name) && prefixes.some((prefix) => name.startsWith(prefix)))
    .map((name) => ({ field: name, message: 'is not a known variable' }));
}

function unknownFlags(
  fields: readonly FieldDescription[],
  flags: Readonly<Record<string, string | undefined>>,
): Violation[] {
  const known = new Set(fields.map(({ field }) => flagName(field)));
  return Object.keys(flags)
    .filter((name) => !known.has(name))
    .map((name) => ({ field: `--${name}`, message: 'is not a known flag' }));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
