/**
 * `keelson serve`: one node of a cluster with the key-value machine, from start to exit code. Programs
 * may rely on the names of events in its log: docs/command-line.md lists them.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { destination, type Logger as PinoLogger, pino, stdTimeFunctions } from 'pino';
import { type ErrorCode, KeelsonError } from '../base/errors.js';
import { loadConfig } from '../config/load-config.js';
import type { Config } from '../config/types.js';
import { HttpServer } from '../http/index.js';
import { isLoopback } from '../network/address.js';
import { Raft } from '../raft.js';
import { KeyValueMachine } from '../state-machine/key-value.js';
import { asksForHelp, describeFlags } from './flags.js';
import { readServeOptions, SERVE_FLAGS, type ServeOptions } from './serve-options.js';
import { type Command, EXIT_DONE, EXIT_FAILED, UsageError } from './usage.js';
import { VERSION } from './version.js';

const HELP = `Usage: keelson serve --node-id N --data-dir DIR --listen HOST:PORT --http HOST:PORT
                     --initial-cluster 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT [options]

Runs one node of a cluster: a replicated key-value store, reached over HTTP on any node.
The first start makes the data directory; later ones recover from it.

${describeFlags(SERVE_FLAGS)}
  --help
      Shows this.

Settings of the configuration can be given as KEELSON_ variables too: keelson config --help.
SIGTERM and SIGINT close the node and exit with 0; 1 means that it failed, 2 a wrong call.
`;

export const serve: Command = async (args, environment) => {
  if (asksForHelp(args)) {
    process.stdout.write(HELP);
    return EXIT_DONE;
  }
  const options = readServeOptions(args, environment);
  const config = readConfig(options, environment);
  const logger = openLogger(options);
  const stop = stopSignal();
  try {
    return await run(options, config, logger, stop);
  } catch (error) {
    const code = error instanceof KeelsonError ? error.code : undefined;
    logger.fatal({ event: 'server.failed', code, err: error }, messageOf(error));
    return EXIT_FAILED;
  }
};

async function run(
  options: ServeOptions,
  config: Config,
  logger: PinoLogger,
  stop: Promise<string>,
): Promise<number> {
  const { nodeId, clusterName, dataDir, listen, advertise, voters } = options;
  const raft = await Raft.open({
    nodeId,
    clusterName,
    dataDir,
    listen,
    advertise,
    bootstrap: { voters },
    stateMachine: new KeyValueMachine(),
    config,
    logger,
  });
  const fatal = watch(raft);
  const { maxEntryBytes: maxBodyBytes } = config.limits;
  const http = new HttpServer(raft, { ...config.http, maxBodyBytes, logger });
  let reason: { readonly signal: string } | { readonly error: KeelsonError };
  try {
    const address = await http.listen(options.http);
    warnWhenExposed(options.http.host, logger);
    logger.info(
      { event: 'server.started', raft: raft.address, http: address, version: VERSION },
      `node ${nodeId} serves http://${address}`,
    );
    reason = await Promise.race([stop.then((signal) => ({ signal })), fatal]);
  } catch (error) {
    await raft.close();
    throw error;
  }
  if ('signal' in reason) {
    const { signal } = reason;
    logger.info({ event: 'server.stopping', signal }, `closing after ${signal}`);
  }
  await close(raft, http, config.limits.shutdownTimeoutMs);
  if ('error' in reason) throw reason.error;
  logger.info({ event: 'server.stopped' }, 'closed');
  return EXIT_DONE;
}

/**
 * Answers what is in flight, then closes the node; half of the time for each. What is not done then
 * is abandoned, as in a crash: the log recovers, but it was no clean close.
 */
async function close(raft: Raft, http: HttpServer, timeoutMs: number): Promise<void> {
  const done = new AbortController();
  const expired = delay(timeoutMs, undefined, { signal: done.signal }).then(() => {
    throw new KeelsonError('KEELSON_TIMEOUT', `the node did not close within ${timeoutMs} ms`, {
      outcome: 'unknown',
    });
  });
  const closed = http.close(AbortSignal.timeout(timeoutMs / 2)).then(() => raft.close());
  try {
    await Promise.race([closed, expired]);
  } finally {
    done.abort();
  }
}

/** The node has stopped and says so to whoever asks; what the process can still tell is worth having. */
const STAYS_UP: readonly ErrorCode[] = ['KEELSON_STATE_MACHINE_FAILED', 'KEELSON_STORAGE_FULL'];

/** Resolves with the error that ends the process; the node itself has logged it. */
function watch(raft: Raft): Promise<{ readonly error: KeelsonError }> {
  return new Promise((resolve) => {
    raft.on('error', (error) => {
      if (!STAYS_UP.includes(error.code)) resolve({ error });
    });
  });
}

/** The first signal asks for a clean close; a second one does not wait for it. */
function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.once(signal, () => {
        resolve(signal);
        process.on(signal, () => process.exit(EXIT_FAILED));
      });
    }
  });
}

function readConfig(options: ServeOptions, environment: NodeJS.ProcessEnv): Config {
  try {
    return loadConfig({ file: options.configFile, environment });
  } catch (error) {
    if (error instanceof KeelsonError) throw new UsageError(error.message);
    throw error;
  }
}

/** Synchronous, so that the last lines before an exit are not lost. */
function openLogger(options: ServeOptions): PinoLogger {
  return pino(
    {
      level: options.logLevel,
      base: { nodeId: options.nodeId, pid: process.pid },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination({ dest: 2, sync: true }),
  );
}

function warnWhenExposed(host: string, logger: PinoLogger): void {
  if (isLoopback(host)) return;
  logger.warn(
    { event: 'server.exposed', host },
    `HTTP on ${host} has no encryption and no login: whoever reaches it can read and write`,
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
