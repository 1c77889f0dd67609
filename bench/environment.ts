/** What a figure was measured on; printed by every suite, because a figure without it says nothing. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, type } from 'node:os';
import { resolve } from 'node:path';

export interface Environment {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  /** Kind of the file system that holds the directory in question. */
  readonly fileSystem: string;
  readonly node: string;
  /** With `+` behind it when the tree has changes that are not committed. */
  readonly commit: string;
}

export function environment(directory: string = process.cwd()): Environment {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    kernel: `${type()} ${release()}`,
    fileSystem: fileSystemOf(resolve(directory)),
    node: process.version,
    commit: commit(),
  };
}

export function printEnvironment(found: Environment): void {
  const { cpu, cores, kernel, fileSystem, node, commit: at } = found;
  console.log(`${cpu}, ${cores} cores · ${kernel} · ${fileSystem} · Node ${node} · commit ${at}`);
}

/** Only Linux tells it without a native call; elsewhere it is unknown. */
function fileSystemOf(path: string): string {
  let mounts: string;
  try {
    mounts = readFileSync('/proc/self/mounts', 'utf8');
  } catch {
    return 'unknown file system';
  }
  let best = { point: '', kind: 'unknown file system' };
  for (const line of mounts.split('\n')) {
    const [, point, kind] = line.split(' ');
    if (point === undefined || kind === undefined || point.length < best.point.length) continue;
    if (point === '/' || path === point || path.startsWith(`${point}/`)) best = { point, kind };
  }
  return best.kind;
}

function commit(): string {
  const git = (...words: string[]): string =>
    execFileSync('git', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const changed = git('status', '--porcelain') === '' ? '' : '+';
    return git('rev-parse', '--short', 'HEAD') + changed;
  } catch {
    return 'unknown';
  }
}
