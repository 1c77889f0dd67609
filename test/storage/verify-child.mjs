// Verifies a directory again and again, until its log has gone on so many segments, and says what it found.
// Usage: node verify-child.mjs DIRECTORY SEGMENTS
import { surveyHeap, verifyDirectory } from '../../dist/storage/inspection/directory-survey.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';

const [directory, segments] = process.argv.slice(2);
const heap = surveyHeap();
let first;
let newest;
do {
  const { problems, lanes } = await verifyDirectory(heap, new NodeDisk(), directory);
  newest = lanes[0].segments.at(-1).sequence;
  first ??= newest;
  process.stdout.write(`${JSON.stringify({ problems, newest })}\n`);
} while (newest - first < Number(segments));
