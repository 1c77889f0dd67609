import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { freePorts } from '../dist/cli/demo/ports.js';
import type { NodeMessage, NodeReport, NodeTask } from './cluster-tcp-node.js';
import { environment, printEnvironment } from './environment.js';
import { integerOption, numberOption } from './options.js';
import { Progress } from './progress.js';
import { printTargets } from './target.js';

/**
 * Suite `cluster-tcp`: three processes on loopback, durable logs in one directory's file system, the
 * clients inside the leader's process. Closed loop, or with `--rate` an open loop whose latency is
 * measured from the intended start.
 */
const DEFAULTS = { clients: 256, 'entry-size': 256, seconds: 10, rate: 0 };

export async function run(argv: string[]): Promise<void> {
  const { values } = parseArgs({
    args: argv,
    options: {
      clients: { type: 'string', default: String(DEFAULTS.clients) },
      'entry-size': { type: 'string', default: String(DEFAULTS['entry-size']) },
      seconds: { type: 'string', default: String(DEFAULTS.seconds) },
      rate: { type: 'string', default: String(DEFAULTS.rate) },
      directory: { type: 'string', default: tmpdir() },
      profile: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const settings = {
    clients: integerOption('clients', values.clients, 1, 65_536),
    'entry-size': integerOption('entry-size', values['entry-size'], 0, 1024 * 1024),
    seconds: numberOption('seconds', values.seconds, 0.1, 3600),
    rate: numberOption('rate', values.rate, 0, 10_000_000),
    directory: values.directory,
  };
  const found = environment(values.directory);
  printEnvironment(found);
  console.log(`cluster-tcp: ${JSON.stringify(settings)}`);

  const directory = await mkdtemp(join(values.directory, 'keelson-bench-'));
  const children: ChildProcess[] = [];
  let written = 0;
  const progress = new Progress(() => `${written.toLocaleString('en')} writes`);
  try {
    const ports = await freePorts(3);
    const voters = Object.fromEntries(ports.map((port, i) => [i + 1, `127.0.0.1:${port}`]));
    const module = new URL('./cluster-tcp-node.ts', import.meta.url);
    const reports = ports.map((port, i) => {
      const profile = values.profile ? ['--cpu-prof', `--cpu-prof-dir=${process.cwd()}`] : [];
      const child = fork(module, { execArgv: ['--import', 'tsx', ...profile] });
      children.push(child);
      const task: NodeTask = {
        ...settings,
        nodeId: i + 1,
        listen: `127.0.0.1:${port}`,
        directory: join(directory, String(i + 1)),
        voters,
        entrySize: settings['entry-size'],
      };
      child.send(task);
      return reportOf(child, (writes) => {
        written = writes;
      });
    });
    // Only the leader has clients, and only it reports; the others run until they are told to stop.
    const report = await Promise.any(reports);
    progress.end();
    const { writesPerSecond, latency } = report;
    console.log(
      `${writesPerSecond.toLocaleString('en')} writes/s, p50 ${latency.p50} µs, p99 ${latency.p99} µs`,
    );
    const { clients, 'entry-size': entrySize, rate } = settings;
    if (clients === 256 && entrySize === 256 && rate === 0) {
      printTargets([{ what: 'writes/s', value: writesPerSecond, atLeast: 60_000 }]);
    }
    const result = { suite: 'cluster-tcp', environment: found, ...settings, ...report };
    if (values.json) console.log(JSON.stringify(result));
  } finally {
    progress.end();
    await Promise.all(children.map(stop));
    await rm(directory, { recursive: true, force: true });
  }
}

function reportOf(child: ChildProcess, onProgress: (writes: number) => void): Promise<NodeReport> {
  return new Promise((resolve, reject) => {
    child.on('message', (message: NodeMessage) => {
      if ('written' in message) onProgress(message.written);
      else resolve(message);
    });
    child.on('exit', (code) => reject(new Error(`a node ended with code ${code}`)));
  });
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.on('exit', () => resolve());
    child.send('stop');
  });
}
