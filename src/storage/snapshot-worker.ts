/**
 * The snapshot thread: what Piscina loads into it. It holds the files that are open between two tasks
 * in module state. Errors travel as values, because a thrown one would lose its code.
 */
import { type ErrorRecord, toErrorRecord } from '../base/errors.js';
import { NodeDisk } from './node-disk.js';
import { type SnapshotTask, SnapshotTaskRunner } from './snapshot-tasks.js';

export type SnapshotAnswer =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: ErrorRecord };

let runner: SnapshotTaskRunner | undefined;

export default function run(task: SnapshotTask): SnapshotAnswer {
  runner ??= new SnapshotTaskRunner(new NodeDisk());
  try {
    return { ok: true, value: runner.run(task) };
  } catch (error) {
    return { ok: false, error: toErrorRecord(error, 'KEELSON_STORAGE_FAILED') };
  }
}
