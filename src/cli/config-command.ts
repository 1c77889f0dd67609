/**
 * `keelson config`: shows, checks and explains the configuration that the given file, environment and
 * flags come to. Exit codes: 0 done, 1 the configuration is not valid, 2 called wrongly.
 */
import { parseArgs } from 'node:util';
import { KeelsonError } from '../base/errors.js';
import { explainMemory } from '../config/explain.js';
import { describeField, formatBytes } from '../config/format.js';
import { flagName, loadConfig } from '../config/load-config.js';
import { describeConfig } from '../config/schema.js';
import type { Config } from '../config/types.js';

const DONE = 0;
const FAILED = 1;
const USAGE = 2;

const HELP = `Usage: keelson config --print|--check|--explain [--config FILE] [--SECTION-FIELD VALUE …]

  --print        writes the whole configuration as JSON, as --config reads it
  --check        says whether the configuration is valid, and everything that is not
  --explain      tells each field with value, default, range and meaning, and the bounded memory
  --config FILE  JSON file with settings (or KEELSON_CONFIG)
  --help         shows this

Every field is also a flag and a variable: raft.electionTimeoutMs is --raft-election-timeout-ms and
KEELSON_RAFT_ELECTION_TIMEOUT_MS. Flags win over variables, these over the file, and that over defaults.
Exit codes: 0 done, 1 the configuration is not valid, 2 called wrongly.
`;

/** Where the command reads and writes. */
export interface ConfigCommandIo {
  readonly environment: Readonly<Record<string, string | undefined>>;
  out(text: string): void;
  error(text: string): void;
}

/** For the table of commands. */
export function configCommand(
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  return runConfigCommand(args, {
    environment,
    out: (text) => void process.stdout.write(text),
    error: (text) => void process.stderr.write(text),
  });
}

export async function runConfigCommand(
  args: readonly string[],
  io: ConfigCommandIo,
): Promise<number> {
  let call: Call;
  try {
    call = readCall(args);
  } catch (error) {
    if (!isUsageError(error)) throw error;
    io.error(`keelson config: ${error.message}\nTry: keelson config --help\n`);
    return USAGE;
  }
  if (call.mode === 'help') {
    io.out(HELP);
    return DONE;
  }
  let config: Config;
  try {
    const file = call.file ?? io.environment.KEELSON_CONFIG;
    config = loadConfig({ file, environment: io.environment, flags: call.flags });
  } catch (error) {
    if (!(error instanceof KeelsonError)) throw error;
    io.error(`keelson config: ${error.message}\n`);
    return FAILED;
  }
  if (call.mode === 'print') io.out(`${JSON.stringify(config, null, 2)}\n`);
  else if (call.mode === 'check') io.out('the configuration is valid\n');
  else io.out(explain(config));
  return DONE;
}

interface Call {
  readonly mode: 'print' | 'check' | 'explain' | 'help';
  readonly file: string | undefined;
  readonly flags: Readonly<Record<string, string>>;
}

class ConfigUsageError extends Error {
  override readonly name = 'ConfigUsageError';
}

function isUsageError(error: unknown): error is Error {
  if (error instanceof ConfigUsageError) return true;
  const code = error instanceof TypeError && 'code' in error ? String(error.code) : '';
  return code.startsWith('ERR_PARSE_ARGS');
}

function readCall(args: readonly string[]): Call {
  const switches = ['print', 'check', 'explain', 'help'] as const;
  const fields = describeConfig().map(({ field }) => flagName(field));
  const { values } = parseArgs({
    args: [...args],
    strict: true,
    options: {
      ...Object.fromEntries(switches.map((name) => [name, { type: 'boolean' as const }])),
      ...Object.fromEntries(
        ['config', ...fields].map((name) => [name, { type: 'string' as const }]),
      ),
    },
  });
  const modes = switches.filter((name) => values[name] === true);
  const mode = modes.includes('help') ? 'help' : modes[0];
  if (mode === undefined || (mode !== 'help' && modes.length > 1)) {
    throw new ConfigUsageError('give one of --print, --check and --explain');
  }
  const flags: Record<string, string> = {};
  for (const name of fields) {
    const value = values[name];
    if (typeof value === 'string') flags[name] = value;
  }
  return { mode, file: typeof values.config === 'string' ? values.config : undefined, flags };
}

function explain(config: Config): string {
  const sections = config as unknown as Record<string, Record<string, unknown>>;
  const fields = describeConfig().map((field) => {
    const [section, name] = field.field.split('.') as [string, string];
    return describeField(field, sections[section]![name]);
  });
  const { items, totalBytes } = explainMemory(config);
  const memory = items.map(
    ({ name, bytes, formula }) => `${formatBytes(bytes).padStart(10)}  ${name} (${formula})`,
  );
  return [
    ...fields,
    '',
    'Bounded memory of one node in a cluster of three, without the state machine and Node.js:',
    ...memory,
    `${formatBytes(totalBytes).padStart(10)}  in total`,
    '',
  ].join('\n');
}
