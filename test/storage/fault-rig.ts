/** Thousands of small stores one after another over one heap, and the script that they run. */
import { InlineExecutor } from '../../dist/storage/inline-executor.js';
import type { LogStoreEvents } from '../../dist/storage/log-store.js';
import type { MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { RecoveryMode } from '../../dist/storage/recovery.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { type LogStep, LogWorkload } from '../../dist/testing/log-workload.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { MicrotaskScheduler } from './microtask-scheduler.js';
import { MIB } from './wal-support.js';

export const GROUPS: readonly number[] = [0, 1, 70_000, 5, 6];

const KIB = 1024;
const heap = SharedHeap.create({ maximumBytes: 16 * MIB });

const NO_EVENTS: LogStoreEvents = { flushed() {}, failed() {}, writable() {} };

export interface SmallOptions {
  readonly events?: LogStoreEvents;
  /** Of the epochs: another one for each opening, as chance would have it. */
  readonly seed: number;
  readonly recovery?: RecoveryMode;
  readonly segmentBytes?: number;
  readonly lanes?: number;
}

/** Opens a store with small segments; the one that was opened before must not be used any more. */
export function openSmall(disk: MemoryDisk, options: SmallOptions): Promise<WalLogStore> {
  heap.reset();
  const scheduler = new MicrotaskScheduler(options.seed);
  const { segmentBytes = 64 * KIB, lanes = 1 } = options;
  return WalLogStore.open(
    {
      directory: '/data',
      segmentBytes,
      lanes,
      ringBytes: 64 * KIB,
      maxBatchBytes: segmentBytes / 4,
      maxBatchEntries: 64,
      maxQueuedBatches: 2,
      lingerMicros: 0,
      recovery: options.recovery ?? 'torn-tail',
      directIo: 'auto',
      maxIndexBytes: 4 * MIB,
    },
    {
      heap,
      scheduler,
      events: options.events ?? NO_EVENTS,
      decodeMembership: (payload) => JSON.parse(new TextDecoder().decode(payload)),
      executor: new InlineExecutor(heap, disk, scheduler),
    },
  );
}

/** Runs the script; ends early where the store fails or cannot be opened. */
export async function runScript(
  disk: MemoryDisk,
  seed: number,
  steps: readonly LogStep[] = SCRIPT,
  layout: Pick<SmallOptions, 'segmentBytes' | 'lanes'> = {},
  opening: () => void = () => {},
): Promise<ScriptRun> {
  let openings = 0;
  const open = (events: LogStoreEvents): Promise<WalLogStore> => {
    opening();
    return openSmall(disk, { events, seed: seed + openings++, ...layout });
  };
  const workload = new LogWorkload(open, GROUPS, seed);
  const refusal = await workload.run(steps).then(
    () => undefined,
    (error: unknown) => error,
  );
  await settled();
  return { workload, refusal };
}

export interface ScriptRun {
  readonly workload: LogWorkload;
  /** Why the store could not be opened (again). */
  readonly refusal: unknown;
}

/** Lets jobs end that a store has left behind. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const append = (group: number, count: number, bytes: number, back = 0): LogStep => ({
  do: 'append',
  group,
  count,
  bytes,
  back,
});
const wait: LogStep = { do: 'wait' };
const [FIRST, SECOND, THIRD, IDLE, KEPT] = GROUPS as [number, number, number, number, number];

/** Long enough for the log to come to its next segment, and the one after that. */
function lap(): LogStep[] {
  const steps: LogStep[] = [];
  for (let round = 0; round < 3; round++) {
    steps.push(append(SECOND, 2, 7_000), wait, { do: 'commit', group: SECOND });
    steps.push({ do: 'purge', group: SECOND, keep: 1 }, append(FIRST, 2, 6_000, 1), wait);
    steps.push({ do: 'commit', group: FIRST }, { do: 'purge', group: FIRST, keep: 1 });
  }
  return steps;
}

/**
 * Several groups, two of them idle, one of which keeps what it has; votes, overwriting, truncation, purges and resets; rolls over segment
 * ends, into files that were used before; two orderly closes.
 */
export const SCRIPT: readonly LogStep[] = [
  { do: 'vote', group: FIRST },
  append(FIRST, 3, 100),
  append(IDLE, 2, 100),
  append(KEPT, 3, 3_000),
  wait,
  append(KEPT, 2, 200, 1),
  wait,
  // From here on only checkpoints tell of this group.
  { do: 'commit', group: IDLE },
  { do: 'purge', group: IDLE, keep: 0 },
  { do: 'vote', group: IDLE },
  append(FIRST, 2, 2_000),
  append(SECOND, 4, 300),
  wait,
  { do: 'commit', group: FIRST },
  append(THIRD, 1, 9_000),
  { do: 'vote', group: SECOND },
  append(FIRST, 1, 5_000),
  wait,
  append(FIRST, 3, 1_000, 1),
  { do: 'truncate', group: SECOND, entries: 2 },
  append(SECOND, 1, 50),
  append(SECOND, 5, 700, 2),
  wait,
  append(THIRD, 2, 4_000),
  wait,
  append(FIRST, 6, 2_500),
  { do: 'vote', group: THIRD },
  wait,
  { do: 'commit', group: THIRD },
  { do: 'commit', group: SECOND },
  append(THIRD, 4, 3_000),
  append(SECOND, 1, 10),
  { do: 'reopen' },
  append(FIRST, 2, 3_000),
  append(FIRST, 2, 3_000),
  wait,
  { do: 'truncate', group: FIRST, entries: 1 },
  wait,
  append(SECOND, 8, 1_500),
  wait,
  { do: 'commit', group: FIRST },
  { do: 'purge', group: FIRST, keep: 2 },
  append(THIRD, 5, 2_500, 1),
  append(FIRST, 1, 20),
  wait,
  { do: 'vote', group: FIRST },
  { do: 'commit', group: SECOND },
  append(SECOND, 3, 4_000),
  wait,
  append(THIRD, 3, 4_000),
  wait,
  { do: 'commit', group: THIRD },
  { do: 'commit', group: SECOND },
  // Nothing is left of the first segments: they are used again.
  { do: 'purge', group: THIRD, keep: 0 },
  { do: 'purge', group: SECOND, keep: 2 },
  { do: 'reset', group: FIRST, ahead: 5 },
  append(FIRST, 2, 2_000),
  wait,
  ...lap(),
  ...lap(),
  // What this group has was written once more, and its first copy is gone; so is its end now.
  { do: 'truncate', group: KEPT, entries: 1 },
  { do: 'reopen' },
  { do: 'vote', group: SECOND },
  append(FIRST, 1, 100),
  append(KEPT, 1, 100, 1),
  { do: 'truncate', group: SECOND, entries: 1 },
  { do: 'purge', group: SECOND, keep: 0 },
  { do: 'reset', group: THIRD, ahead: -1 },
  append(THIRD, 1, 500),
  wait,
];
