/** `keelson inspect`: what a data directory holds, for people and, as JSON, for programs. */
import { formatBytes } from '../config/format.js';
import {
  type DirectorySurvey,
  surveyHeap,
  verifyDirectory,
} from '../storage/inspection/directory-survey.js';
import type { GroupSurvey, SegmentSurvey } from '../storage/inspection/lane-survey.js';
import { NodeDisk } from '../storage/node-disk.js';
import { readDirectoryOptions } from './directory-options.js';
import { asksForHelp } from './flags.js';
import { type Command, EXIT_DONE } from './usage.js';

const HELP = `Usage: keelson inspect DIR [--json]

Tells what the data directory of a node holds: whose it is, the log of each group with its vote, and the
files with their sizes. Reads all of the log, changes nothing and takes no lock: a node may be using it.

  --json  writes it as one JSON object
  --help  shows this

Exit codes: 0 done, damaged or not (see keelson verify), 1 failed, 2 called wrongly.
`;

export const inspect: Command = async (args) => {
  if (asksForHelp(args)) {
    process.stdout.write(HELP);
    return EXIT_DONE;
  }
  const disk = new NodeDisk();
  const { directory, json } = readDirectoryOptions(args, disk);
  const survey = await verifyDirectory(surveyHeap(), disk, directory);
  process.stdout.write(json ? `${JSON.stringify(survey, null, 2)}\n` : describe(survey));
  return EXIT_DONE;
};

function describe(survey: DirectorySurvey): string {
  const { lanes, spares, space, problems, notes } = survey;
  const lines = [...describeIdentity(survey), ''];
  for (const { lane, segments, groups } of lanes) {
    for (const group of groups)
      lines.push(describeGroup(group, lanes.length > 1 ? lane : undefined));
    lines.push('', ...segments.map(describeSegment));
  }
  for (const { file, fileBytes, sequence } of spares) {
    const was = sequence === 0 ? 'zeros' : `was segment ${sequence}`;
    lines.push(`${file}: ${formatBytes(fileBytes)}, spare, ${was}`);
  }
  for (const { group, file, fileBytes, lastIncluded } of survey.snapshots) {
    const { index, term } = lastIncluded;
    lines.push(
      `${file}: ${formatBytes(fileBytes)}, snapshot of group ${group} up to ${index} of term ${term}`,
    );
  }
  const kinds = Object.entries(space).map(([kind, bytes]) => `${kind} ${formatBytes(bytes)}`);
  lines.push('', `space: ${kinds.join(', ')}`);
  if (problems.length + notes.length > 0) {
    lines.push('', `${problems.length} problems, ${notes.length} notes: keelson verify tells them`);
  }
  return `${lines.join('\n')}\n`;
}

function describeIdentity({ directory, identity, peers }: DirectorySurvey): string[] {
  if (identity === undefined) return [`${directory}: nobody knows whose it is`];
  const { clusterName, clusterId, nodeId, incarnation, formatVersion } = identity;
  return [
    `${directory}: node ${nodeId} of cluster "${clusterName}"`,
    `cluster id ${clusterId}, incarnation ${incarnation}, format ${formatVersion}`,
    `lanes ${identity.laneCount}, segments of ${formatBytes(identity.segmentBytes)}`,
    ...peers.map(([peer, known]) => `peer ${peer}: incarnation ${known}`),
  ];
}

function describeGroup(group: GroupSurvey, lane: number | undefined): string {
  const { vote, committed, purged, firstIndex, lastIndex, firstTerm, lastTerm } = group;
  const entries =
    lastIndex < firstIndex
      ? `no entries behind ${purged.index}`
      : `entries ${firstIndex} to ${lastIndex} of terms ${firstTerm} to ${lastTerm}`;
  const voted = vote.nodeId === 0 ? 'no vote' : `vote for node ${vote.nodeId}`;
  const elected = vote.committed ? ', which leads it' : '';
  const where = lane === undefined ? '' : ` (lane ${lane})`;
  return `group ${group.group}${where}: ${entries}, committed ${committed}, term ${vote.term}, ${voted}${elected}`;
}

function describeSegment(segment: SegmentSurvey): string {
  const { file, fileBytes, usedBytes, batches, entries, recycled, superseded } = segment;
  const marks = `${recycled ? ', recycled' : ''}${superseded ? ', needed no more' : ''}`;
  const used = `${formatBytes(usedBytes)} of ${formatBytes(fileBytes)} used`;
  return `${file}: ${used}, batches ${batches}, entries ${entries}${marks}`;
}
