/** What stands between a snapshot that is read and a machine that is restored from it. */
import { describe, expect, it } from 'vitest';
import { feedRestore } from '../../dist/state-machine/feed-restore.js';
import type { MachineTask } from '../../dist/state-machine/machine-tasks.js';
import { RestoreGate } from '../../dist/state-machine/restore-gate.js';

describe('queries while a machine is restored', () => {
  it('wait for its end, at most 65,536 of them', async () => {
    const gate = new RestoreGate();
    let end = (): void => {};
    const restoring = gate.during(
      () =>
        new Promise((resolve) => {
          end = resolve;
        }),
    );
    expect(gate.isShut).toBe(true);
    const waiting = Array.from({ length: 65_536 }, () => gate.pass());
    await expect(gate.pass()).rejects.toMatchObject({ code: 'KEELSON_OVERLOADED' });
    end();
    await restoring;
    await Promise.all(waiting);
    expect(gate.isShut).toBe(false);
  });

  it('are told why it failed, until another restore has succeeded', async () => {
    const gate = new RestoreGate();
    const reason = new Error('a damaged snapshot');
    await expect(gate.during(() => Promise.reject(reason))).rejects.toBe(reason);
    await expect(gate.pass()).rejects.toBe(reason);
    await gate.during(() => Promise.resolve());
    expect(gate.isShut).toBe(false);
  });
});

describe('a snapshot that is given to a worker', () => {
  /** Three chunks; `ended` says whether whoever reads them has let them go. */
  function source(fails?: Error): { chunks: AsyncIterable<Uint8Array>; ended(): boolean } {
    let ended = false;
    async function* chunks(): AsyncGenerator<Uint8Array, void> {
      try {
        for (let count = 0; count < 3; count++) yield new Uint8Array(10);
        if (fails !== undefined) throw fails;
      } finally {
        ended = true;
      }
    }
    return { chunks: chunks(), ended: () => ended };
  }

  it('is let go when the machine fails, and the machine hears of no more', async () => {
    const bug = new Error('a bug of the machine');
    const tasks: string[] = [];
    const run = async (task: MachineTask): Promise<void> => {
      tasks.push(task.type);
      if (task.type === 'restoreChunk') throw bug;
    };
    const { chunks, ended } = source();
    await expect(feedRestore(run, chunks)).rejects.toBe(bug);
    expect(ended()).toBe(true);
    expect(tasks).toEqual(['restoreChunk', 'failRestore']);
  });

  it('fails with its own reason, which the machine hears', async () => {
    const damaged = new Error('it ends too early');
    const tasks: MachineTask[] = [];
    const run = async (task: MachineTask): Promise<void> => {
      tasks.push(task);
    };
    await expect(feedRestore(run, source(damaged).chunks)).rejects.toBe(damaged);
    expect(tasks.at(-1)).toEqual({ type: 'failRestore', message: 'it ends too early' });
  });
});
