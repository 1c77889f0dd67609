// A storage worker that reads a segment only once another lane is being read as well.
import { existsSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import run from '../../dist/storage/storage-worker.js';

const LANES = [0, 1];
const PAUSE_MS = 5;
const MAX_PAUSES = 4_000;

export default function runTogether(task) {
  if (task.type === 'scan') {
    const mark = (lane) => join(dirname(task.path), `reading-${lane}`);
    writeFileSync(mark(task.lane), '');
    const pause = new Int32Array(new SharedArrayBuffer(4));
    for (let pauses = 0; !LANES.every((lane) => existsSync(mark(lane))); pauses++) {
      if (pauses === MAX_PAUSES) throw new Error('the other lane is not read');
      Atomics.wait(pause, 0, 0, PAUSE_MS);
    }
  }
  return run(task);
}
