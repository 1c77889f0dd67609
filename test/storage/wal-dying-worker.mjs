// A storage worker whose lane dies the second time that it goes to sleep.
import { threadId } from 'node:worker_threads';
import run from '../../dist/storage/storage-worker.js';

const wait = Atomics.wait;
let sleeps = 0;

export default function runUntilDeath(task) {
  if (task.type === 'lane') {
    Atomics.wait = (...words) => {
      sleeps++;
      if (sleeps < 2) return wait(...words);
      process.exit(threadId);
    };
  }
  return run(task);
}
