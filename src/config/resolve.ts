/**
 * From what a user gives to a complete configuration. Every violation is reported at once, with the
 * name of its field, so that a file is corrected in one go.
 */
import { KeelsonError } from '../base/errors.js';
import { ruleViolations } from './rules.js';
import { parseFields, type Violation } from './schema.js';
import type { Config, ConfigInput, HttpConfig } from './types.js';

/**
 * Defaults for what is not given; the result is frozen.
 * @throws KeelsonError INVALID_CONFIG with `details.violations`, a list of `{ field, message }`.
 */
export function resolveConfig(input: ConfigInput = {}): Config {
  return checkedConfig(input, []);
}

/** The same for input that was put together from several sources, which had violations already. */
export function checkedConfig(input: unknown, earlier: readonly Violation[]): Config {
  const { config, violations } = parseFields(input);
  const all = [...earlier, ...violations];
  const invalid = new Set(all.map(({ field }) => field));
  all.push(...ruleViolations(config, invalid));
  if (all.length > 0) throw invalidConfig(all);
  for (const section of Object.values(config)) Object.freeze(section);
  return Object.freeze(config);
}

/**
 * The section `http` alone, for a server in a program that has no configuration of a node at hand.
 * @throws KeelsonError INVALID_CONFIG
 */
export function resolveHttpConfig(input: ConfigInput['http']): HttpConfig {
  const { config, violations } = parseFields({ http: input });
  if (violations.length > 0) throw invalidConfig(violations);
  return Object.freeze(config.http);
}

function invalidConfig(violations: readonly Violation[]): KeelsonError {
  const lines = violations.map(({ field, message }) => `  ${field} ${message}`);
  const count = violations.length === 1 ? '1 violation' : `${violations.length} violations`;
  return new KeelsonError(
    'KEELSON_INVALID_CONFIG',
    `the configuration has ${count}:\n${lines.join('\n')}`,
    { details: { violations } },
  );
}
