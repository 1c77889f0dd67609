// Workers of node:cluster take the lock of one directory, one after the other: the second while the
// first has it, the third after the first was killed. Prints what each of them got, as JSON.
import cluster from 'node:cluster';
import { once } from 'node:events';
import { lockDirectory } from '../../dist/storage/directory-lock.js';

async function startWorker() {
  const worker = cluster.fork();
  const [answer] = await once(worker, 'message');
  return { worker, answer };
}

async function kill(worker) {
  const gone = once(worker, 'exit');
  worker.process.kill('SIGKILL');
  await gone;
}

if (cluster.isPrimary) {
  const first = await startWorker();
  const second = await startWorker();
  await kill(first.worker);
  const third = await startWorker();
  process.stdout.write(JSON.stringify([first.answer, second.answer, third.answer]));
  await kill(second.worker);
  await kill(third.worker);
} else {
  const answer = await lockDirectory(process.argv[2]).then(
    () => 'locked',
    (error) => error.message,
  );
  process.send(answer);
}
