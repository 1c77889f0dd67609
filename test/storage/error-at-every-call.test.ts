/**
 * Each disk call of a script fails in turn, with the disk well before and after. The store says so with
 * an error of its own, acknowledges nothing more, and what it had acknowledged is found again.
 */
import { expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { type DiskCall, MemoryDisk } from '../../dist/storage/memory-disk.js';
import { checkHistories } from '../../dist/testing/log-history.js';
import type { LogWorkload } from '../../dist/testing/log-workload.js';
import { GROUPS, openSmall, runScript, SCRIPT, settled } from './fault-rig.js';

const SEED = 3;

interface FailedCall extends DiskCall {
  /** Among the calls of its operation. */
  readonly nth: number;
}

async function callsOfScript(allowDirect: boolean, lanes: number): Promise<FailedCall[]> {
  const disk = new MemoryDisk({ allowDirect });
  const calls = disk.recordCalls();
  await runScript(disk, SEED, SCRIPT, { lanes });
  const counts = new Map<string, number>();
  return calls.map((call) => {
    const nth = (counts.get(call.operation) ?? 0) + 1;
    counts.set(call.operation, nth);
    return { ...call, nth };
  });
}

/** Nothing that is asked of a failed store is done, however well the disk does by now. */
async function expectPoisoned(workload: LogWorkload, context: string): Promise<void> {
  const { store, failure } = workload;
  const io = { sequence: 1e6, vote: { term: 1e6, nodeId: 3, committed: false } };
  store!.saveVote(GROUPS[0]!, { ...io, logId: { term: 0, index: 0 } });
  const entry = { firstIndex: 1, term: 1e6, time: 1e6, kind: 2, payloads: [new Uint8Array(1)] };
  expect(() => store!.stage(GROUPS[0]!, { ...entry, count: 1 }), context).toThrow(
    expect.objectContaining({ code: failure!.code }),
  );
  await settled();
  await store!.close();
  expect(workload.lateAcknowledgements, context).toBe(0);
}

it.each([
  ['EIO', 'KEELSON_STORAGE_FAILED', true, 1],
  ['EIO', 'KEELSON_STORAGE_FAILED', false, 1],
  ['ENOSPC', 'KEELSON_STORAGE_FULL', true, 1],
  ['ENOSPC', 'KEELSON_STORAGE_FULL', false, 1],
  ['EIO', 'KEELSON_STORAGE_FAILED', true, 2],
  ['ENOSPC', 'KEELSON_STORAGE_FULL', true, 2],
])(
  'known bug 13: after %s at any call it is %s for good, direct: %s, lanes: %i',
  async (code, expected, allowDirect, lanes) => {
    let failures = 0;
    for (const { operation, nth, number, path, changes } of await callsOfScript(
      allowDirect,
      lanes,
    )) {
      if (code === 'ENOSPC' && !changes) continue;
      const context = `seed ${SEED}: ${code} at call ${number}, ${operation} ${path}`;
      const disk = new MemoryDisk({ allowDirect });
      disk.fail({ operation, nth, code, partialBytes: (number % 3) * 4096 });
      const { workload, refusal } = await runScript(disk, SEED, SCRIPT, { lanes });
      const error = workload.failure ?? refusal;
      if (error !== undefined) {
        failures++;
        expect(error, context).toBeInstanceOf(KeelsonError);
        expect((error as KeelsonError).code, context).toBe(expected);
      }
      if (workload.failure !== undefined) await expectPoisoned(workload, context);
      for (const found of [disk.imageAfterCrash(), disk.imageAfterCrash('keep'), disk.kill()]) {
        try {
          const store = await openSmall(found, { seed: number, lanes });
          const shown = await checkHistories(store, workload.histories);
          await settled();
          const again = await openSmall(found.imageAfterCrash(), { seed: number + 1000, lanes });
          await checkHistories(again, shown);
          await settled();
        } catch (cause) {
          throw new Error(`${context}: ${(cause as Error).message}`, { cause });
        }
      }
    }
    expect(failures).toBeGreaterThan(50);
  },
);
