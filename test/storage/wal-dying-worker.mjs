// A storage worker whose lane dies, or hangs, the second time that it goes to sleep.
import { threadId } from 'node:worker_threads';
import run from '../../dist/storage/storage-worker.js';

const wait = Atomics.wait;
let sleeps = 0;

export default function runUntilTrouble(task) {
  if (task.type === 'lane') {
    const hangs = task.options.directory.includes('hang');
    Atomics.wait = (words, ...rest) => {
      sleeps++;
      if (sleeps < 2) return wait(words, ...rest);
      if (!hangs) process.exit(threadId);
      return wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    };
  }
  return run(task);
}
