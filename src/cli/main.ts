#!/usr/bin/env node
/**
 * `keelson COMMAND`: finds the command, runs it, and turns what it returns or throws into an exit
 * code. Commands are loaded when they are called, so that help does not load a storage engine.
 */
import { type Command, EXIT_DONE, EXIT_FAILED, EXIT_USAGE, UsageError } from './usage.js';
import { VERSION } from './version.js';

const HELP = `Keelson ${VERSION}: a replicated, durable storage engine for Node.js

Usage: keelson COMMAND [options]

  demo     starts three nodes here, writes, kills the leader, and counts what is lost
  serve    runs one node of a cluster
  config   shows, checks and explains the configuration
  inspect  tells what a data directory holds
  verify   checks a data directory, and tells what is wrong with it
  help     shows this

keelson COMMAND --help tells the options of a command.
keelson --version tells the version.
Exit codes: 0 done, 1 failed, 2 called wrongly.
`;

async function loadCommand(name: string): Promise<Command | undefined> {
  switch (name) {
    case 'serve':
      return (await import('./serve.js')).serve;
    case 'demo':
      return (await import('./demo.js')).demo;
    case 'config':
      return (await import('./config-command.js')).configCommand;
    case 'inspect':
      return (await import('./inspect.js')).inspect;
    case 'verify':
      return (await import('./verify.js')).verify;
    default:
      return undefined;
  }
}

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    process.stderr.write(HELP);
    return EXIT_USAGE;
  }
  if (name === 'help' || name === '--help' || name === '-h') {
    const about = name === 'help' ? rest[0] : undefined;
    if (about === undefined) {
      process.stdout.write(HELP);
      return EXIT_DONE;
    }
    return await runCommand(about, ['--help']);
  }
  if (name === '--version' || name === '-v') {
    process.stdout.write(`${VERSION}\n`);
    return EXIT_DONE;
  }
  return await runCommand(name, rest);
}

async function runCommand(name: string, args: readonly string[]): Promise<number> {
  const command = await loadCommand(name);
  if (command === undefined) {
    process.stderr.write(`keelson: there is no command "${name}"\n\n${HELP}`);
    return EXIT_USAGE;
  }
  try {
    return await command(args, process.env);
  } catch (error) {
    if (error instanceof UsageError) {
      process.stderr.write(`keelson ${name}: ${error.message}\nTry: keelson ${name} --help\n`);
      return EXIT_USAGE;
    }
    process.stderr.write(`keelson ${name}: ${error instanceof Error ? error.stack : error}\n`);
    return EXIT_FAILED;
  }
}

// `exit` rather than `exitCode`: a handle that somebody forgot must not keep the process from ending.
main(process.argv.slice(2)).then((code) => process.exit(code));
