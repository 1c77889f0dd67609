// A storage worker that dies when it is to make a file ahead, or is found replaced by a new one.
import run from '../../dist/storage/storage-worker.js';
import runReplaced from '../../dist/storage/storage-worker.js?replaced';

export default function runUntilPrefill(task) {
  if (task.type !== 'prefill') return run(task);
  if (task.directory.includes('replaced')) return runReplaced(task);
  process.exit(1);
}
