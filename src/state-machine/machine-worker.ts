/**
 * The worker of one state machine. It holds the machine in module state, which dies with the thread:
 * a worker that was started in place of a dead one has no machine and refuses every task but `load`.
 */
import { InvariantError, invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import { systemScheduler } from '../base/system-scheduler.js';
import { applyNext } from './apply-step.js';
import { EntryCursor, spansOf } from './entry-decoder.js';
import { type LoadedMachine, loadMachine } from './machine-module.js';
import type { ApplyTask, LoadedModule, MachineResult, MachineTask } from './machine-tasks.js';
import { portableRecord, queryFailed } from './query-error.js';
import { RestoreChannel } from './restore-channel.js';
import { SnapshotCursor } from './snapshot-cursor.js';

interface Loaded extends LoadedMachine {
  readonly group: number;
  lastApplied: number;
  /** The snapshots that have not ended, by their number. */
  readonly snapshots: Map<number, SnapshotCursor>;
  /** The restore that is under way. */
  restore: RestoreChannel | undefined;
}

let loaded: Loaded | undefined;

export default function runMachineTask(task: MachineTask): MachineResult | Promise<MachineResult> {
  // Applies complete within the call, so that tasks behind one another never overlap.
  if (task.type === 'apply') return applyTask(task);
  return answerTask(task);
}

function applyTask(task: ApplyTask): MachineResult {
  try {
    return { value: apply(present(), task), error: undefined };
  } catch (error) {
    return failedResult(error);
  }
}

async function answerTask(task: Exclude<MachineTask, ApplyTask>): Promise<MachineResult> {
  try {
    return { value: await answer(task), error: undefined };
  } catch (error) {
    return failedResult(error);
  }
}

async function answer(task: Exclude<MachineTask, ApplyTask>): Promise<unknown> {
  switch (task.type) {
    case 'load': {
      invariant(loaded === undefined, 'a worker loads one machine');
      const machine = await loadMachine(task.url);
      loaded = {
        ...machine,
        group: task.group,
        lastApplied: 0,
        snapshots: new Map(),
        restore: undefined,
      };
      const described: LoadedModule = {
        version: machine.machine.version ?? 1,
        ownCodec: machine.ownCodec,
        concurrentSnapshot: machine.machine.concurrentSnapshot === true,
      };
      return described;
    }
    case 'open': {
      const opened = present();
      const lastApplied = (await opened.machine.open?.()) ?? 0;
      opened.lastApplied = lastApplied;
      return lastApplied;
    }
    case 'query':
      return await query(task.query);
    case 'digest':
      return await present().machine.digest?.();
    case 'beginSnapshot': {
      const target = present();
      target.snapshots.set(task.snapshot, new SnapshotCursor(target.machine));
      return target.lastApplied;
    }
    case 'nextOfSnapshot':
      return await snapshotOf(task.snapshot).next(task.into, systemScheduler);
    case 'endSnapshot': {
      const snapshot = snapshotOf(task.snapshot);
      present().snapshots.delete(task.snapshot);
      return await snapshot.end();
    }
    case 'beginRestore': {
      const target = present();
      target.restore = new RestoreChannel(target.machine);
      return undefined;
    }
    case 'restoreChunk':
      return await present().restore?.push(task.bytes);
    case 'endRestore': {
      const target = present();
      await target.restore?.finish();
      target.restore = undefined;
      target.lastApplied = task.lastIndex;
      return undefined;
    }
    case 'failRestore': {
      const target = present();
      await target.restore?.fail(new Error(task.message));
      target.restore = undefined;
      return undefined;
    }
    case 'close':
      return await present().machine.close?.();
  }
}

function snapshotOf(number: number): SnapshotCursor {
  const snapshot = present().snapshots.get(number);
  invariant(snapshot !== undefined, 'a snapshot is read or ended between its begin and its end');
  return snapshot;
}

async function query(query: unknown): Promise<unknown> {
  const { machine } = present();
  try {
    return await machine.query(query);
  } catch (error) {
    throw queryFailed(error);
  }
}

function apply(target: Loaded, task: ApplyTask): unknown[] {
  const all: unknown[] = [];
  const cursor = new EntryCursor(target.codec);
  for (const { parts, firstIndex, lastIndex } of task.ranges) {
    invariant(
      firstIndex === target.lastApplied + 1,
      'applies reach the machine in order, once each',
    );
    cursor.begin(spansOf(parts), firstIndex, lastIndex);
    while (!cursor.done) {
      const { machine, group } = target;
      const applied = applyNext(machine, cursor, group, task.maxEntries, task.maxBytes);
      for (const response of applied.responses) all.push(response);
    }
    target.lastApplied = lastIndex;
  }
  return all;
}

function present(): Loaded {
  if (loaded !== undefined) return loaded;
  throw new KeelsonError(
    'KEELSON_STATE_MACHINE_FAILED',
    'the worker of the state machine was started anew and holds no machine',
    { outcome: 'unknown' },
  );
}

function failedResult(error: unknown): MachineResult {
  if (error instanceof KeelsonError) return { value: undefined, error: portableRecord(error) };
  const { message } = error as Error;
  const what =
    error instanceof InvariantError ? message : `the state machine threw: ${message ?? error}`;
  const code = 'KEELSON_STATE_MACHINE_FAILED';
  return { value: undefined, error: { code, message: what, outcome: 'unknown' } };
}
