/**
 * The storage threads: what Piscina loads into each of them. The first task a thread gets is the
 * handshake, which brings the shared memory and the module; a later thread that takes the place of a
 * dead one has seen none and refuses to work, because what the dead one had open is unknown.
 *
 * Errors travel as values: Piscina would strip a thrown error of its code. What is thrown tells the
 * executor that a thread died.
 */
import { invariant } from '../base/assert.js';
import type { ErrorRecord } from '../base/errors.js';
import { KeelsonError, toErrorRecord } from '../base/errors.js';
import { type HeapHandle, SharedHeap } from '../wasm/shared-heap.js';
import {
  announce,
  awaitCommand,
  COMPLETED,
  LANE_CHANNEL_WORDS,
  RUNNING,
  readCommand,
  writeCarriedPlace,
  writePlace,
} from './lane-channel.js';
import type { LaneStart, LaneWriterOptions } from './lane-writer.js';
import { LaneWriter, storageFailure } from './lane-writer.js';
import { NodeDisk } from './node-disk.js';
import type { StorageTask } from './storage-tasks.js';
import { StorageTaskRunner } from './storage-tasks.js';

export interface HandshakeTask {
  readonly type: 'handshake';
  readonly heap: HeapHandle;
}

/** Runs until it is told to stop; the value says how it ended. */
export interface LaneTask {
  readonly type: 'lane';
  readonly options: LaneWriterOptions;
  readonly start: LaneStart;
  readonly channel: number;
}

export type WorkerTask = HandshakeTask | LaneTask | StorageTask;

export type WorkerAnswer =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: ErrorRecord };

let memory: SharedHeap | undefined;
let runner: StorageTaskRunner | undefined;

export default function run(task: WorkerTask): WorkerAnswer {
  if (runner === undefined && task.type !== 'handshake') throw new Error('another took its place');
  try {
    return { ok: true, value: dispatch(task) };
  } catch (error) {
    const failure =
      error instanceof KeelsonError ? error : storageFailure(error, 'the data folder');
    return { ok: false, error: toErrorRecord(failure, 'KEELSON_STORAGE_FAILED') };
  }
}

function dispatch(task: WorkerTask): unknown {
  if (task.type === 'handshake') {
    memory = SharedHeap.attach(task.heap);
    runner = new StorageTaskRunner(memory, new NodeDisk());
    return undefined;
  }
  invariant(memory !== undefined && runner !== undefined, 'the handshake comes first');
  if (task.type === 'lane') return runLane(memory, task);
  return runner.run(task);
}

function runLane(shared: SharedHeap, task: LaneTask): undefined {
  const words = new Int32Array(shared.bytes.buffer, task.channel, LANE_CHANNEL_WORDS);
  const writer = new LaneWriter(shared, new NodeDisk(), task.options);
  try {
    writeCarriedPlace(words, writer.begin(task.start));
    Atomics.store(words, RUNNING, 1);
    announce(words);
    for (let taken = 0; awaitCommand(words, taken) === 'command'; taken++) {
      writePlace(words, taken, writer.write(readCommand(words, taken)));
      Atomics.store(words, COMPLETED, (taken + 1) | 0);
      announce(words);
    }
  } finally {
    writer.close();
  }
  return undefined;
}
