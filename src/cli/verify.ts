/** `keelson verify`: reads all of a data directory and tells each thing that is wrong with it. */
import {
  type DirectorySurvey,
  surveyHeap,
  verifyDirectory,
} from '../storage/inspection/directory-survey.js';
import type { Finding } from '../storage/inspection/finding.js';
import { NodeDisk } from '../storage/node-disk.js';
import { readDirectoryOptions } from './directory-options.js';
import { asksForHelp } from './flags.js';
import { type Command, EXIT_DONE, EXIT_FAILED } from './usage.js';

const HELP = `Usage: keelson verify DIR [--json]

Reads every byte of the data directory of a node that counts, and tells each problem: file, offset, group,
indexes, and what it means. Changes nothing and takes no lock: a node may be using it.

  --json  writes it as one JSON object
  --help  shows this

Exit codes: 0 nothing is wrong, 1 something is, or the check failed, 2 called wrongly.
`;

export const verify: Command = async (args) => {
  if (asksForHelp(args)) {
    process.stdout.write(HELP);
    return EXIT_DONE;
  }
  const disk = new NodeDisk();
  const { directory, json } = readDirectoryOptions(args, disk);
  const report = reportOf(await verifyDirectory(surveyHeap(), disk, directory));
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : describe(report));
  return report.ok ? EXIT_DONE : EXIT_FAILED;
};

interface Report {
  readonly directory: string;
  readonly ok: boolean;
  readonly problems: readonly Finding[];
  readonly notes: readonly Finding[];
  readonly checked: {
    readonly segments: number;
    readonly spares: number;
    readonly snapshots: number;
    readonly groups: number;
    readonly batches: number;
    readonly entries: number;
  };
}

function reportOf({
  directory,
  lanes,
  spares,
  snapshots,
  problems,
  notes,
}: DirectorySurvey): Report {
  const segments = lanes.flatMap((lane) => lane.segments);
  return {
    directory,
    ok: problems.length === 0,
    problems,
    notes,
    checked: {
      segments: segments.length,
      spares: spares.length,
      snapshots: snapshots.length,
      groups: new Set(lanes.flatMap(({ groups }) => groups.map(({ group }) => group))).size,
      batches: segments.reduce((sum, segment) => sum + segment.batches, 0),
      entries: segments.reduce((sum, segment) => sum + segment.entries, 0),
    },
  };
}

function describe({ directory, problems, notes, checked }: Report): string {
  const counts = Object.entries(checked).map(([what, count]) => `${what} ${count}`);
  return [
    ...problems.map((problem) => `problem: ${describeFinding(problem)}`),
    ...notes.map((note) => `note: ${describeFinding(note)}`),
    `${directory}: ${problems.length === 0 ? 'sound' : 'DAMAGED'}; problems ${problems.length}, ` +
      `notes ${notes.length}; read: ${counts.join(', ')}`,
    '',
  ].join('\n');
}

function describeFinding({
  code,
  file,
  offset,
  group,
  index,
  lastIndex,
  meaning,
}: Finding): string {
  const fields = { file, offset, group, index, lastIndex };
  const where = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} ${value}`);
  return `${[code, ...where].join(', ')}\n  ${meaning}`;
}
