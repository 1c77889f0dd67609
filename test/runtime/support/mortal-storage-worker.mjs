// A storage worker whose lane dies when it is given a batch while its directory holds a file `die`.
import { existsSync } from 'node:fs';
import { LaneWriter } from '../../../dist/storage/lane-writer.js';
import run from '../../../dist/storage/storage-worker.js';

let order = '';
const { write } = LaneWriter.prototype;
LaneWriter.prototype.write = function writeOrDie(command) {
  if (existsSync(order)) process.exit(1);
  return write.call(this, command);
};

export default function runUntilTold(task) {
  if (task.type === 'lane') order = `${task.options.directory}/die`;
  return run(task);
}
