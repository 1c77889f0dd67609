/** `keelson COMMAND DIR [--json]`: the call of a command that looks at a data directory. */
import { parseArgs } from 'node:util';
import type { Disk } from '../storage/disk.js';
import { isDataDirectory } from '../storage/inspection/directory-survey.js';
import { UsageError } from './usage.js';

export interface DirectoryOptions {
  readonly directory: string;
  readonly json: boolean;
}

/** @throws UsageError when the call is wrong, or no node has used the directory */
export function readDirectoryOptions(args: readonly string[], disk: Disk): DirectoryOptions {
  const { positionals, json } = parse(args);
  const [directory] = positionals;
  if (directory === undefined || directory === '' || positionals.length > 1) {
    throw new UsageError('give one data directory');
  }
  if (!isDataDirectory(disk, directory)) {
    throw new UsageError(`there is no data directory at "${directory}"`);
  }
  return { directory, json };
}

function parse(args: readonly string[]): { positionals: string[]; json: boolean } {
  const options = { json: { type: 'boolean' as const } };
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
    return { positionals, json: values.json === true };
  } catch (error) {
    const code = error instanceof TypeError && 'code' in error ? String(error.code) : '';
    if (!code.startsWith('ERR_PARSE_ARGS')) throw error;
    throw new UsageError((error as Error).message);
  }
}
