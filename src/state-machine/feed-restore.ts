import type { MachineTask } from './machine-tasks.js';

type Run = (task: MachineTask, moved?: ArrayBuffer[]) => Promise<unknown>;

/**
 * Gives the chunks of a snapshot to the worker, one at a time; the next one is read while the machine
 * works on the last. When the source fails, the machine hears of it, and may be restored anew.
 */
export async function feedRestore(run: Run, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const source = chunks[Symbol.asyncIterator]();
  let working: Promise<unknown> | undefined;
  try {
    for (;;) {
      const { done, value: bytes } = await source.next();
      await working;
      if (done === true) return;
      working = run({ type: 'restoreChunk', bytes }, [bytes.buffer as ArrayBuffer]);
      working.catch(toldByNext);
    }
  } catch (error) {
    await source.return?.();
    const message = error instanceof Error ? error.message : String(error);
    await run({ type: 'failRestore', message });
    throw error;
  }
}

/** It is waited for before the next chunk is given. */
function toldByNext(): void {}
