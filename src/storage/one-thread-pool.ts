import { Piscina } from 'piscina';

/**
 * A pool of one thread, whose tasks run one after the other in the order in which they were given. A file
 * is used only by the thread that opened it, and ends with that thread.
 */
export function oneThreadPool(
  workerFile: URL,
  onError: (error: unknown) => void,
  workerData?: { readonly name: string },
): Piscina {
  const pool = new Piscina({
    filename: workerFile.href,
    minThreads: 1,
    maxThreads: 1,
    concurrentTasksPerWorker: 1,
    stricterFIFO: true,
    trackUnmanagedFds: true,
    recordTiming: false,
    workerData,
  });
  // Without a listener an error of an idle thread would end the process; tasks fail by themselves.
  pool.on('error', onError);
  return pool;
}
