/** A batch on its way from the first operation to the disk, and what its bytes mean to the groups. */
import type { IoId, LogIndex } from '../engine/types.js';
import type { RingBatch } from './entry-ring.js';
import type { GroupLog } from './group-log.js';

/** A batch with what it means to the groups that it touches. */
export interface LaneBatch {
  readonly ring: RingBatch;
  readonly operations: BatchOperation[];
  /** Groups whose hard state the batch carries. */
  readonly touched: Set<GroupLog>;
  /** The last I/O of each group that completes with it. */
  readonly ios: Map<GroupLog, IoId>;
  voteChanged: boolean;
  /** A log was purged or reset. */
  records: boolean;
  /** The oldest segment that was needed when the batch was handed over. */
  oldestSegment: number;
  entries: number;
  /** Of blocks that the log has a second time with it. */
  movedBytes: number;
  hardStates: number;
  flags: number;
  completed: boolean;
}

/** In the order in which it happened. */
export type BatchOperation =
  | {
      readonly type: 'append';
      readonly group: GroupLog;
      readonly pointer: number;
      length: number;
      lastIndex: LogIndex;
    }
  /** Entries that the log has stand here, too, and are found here from now on. */
  | {
      readonly type: 'move';
      readonly group: GroupLog;
      readonly pointer: number;
      readonly length: number;
    }
  | { readonly type: 'truncate'; readonly group: GroupLog; readonly lastIndex: LogIndex }
  | { readonly type: 'purge'; readonly group: GroupLog; readonly index: LogIndex }
  | { readonly type: 'reset'; readonly group: GroupLog; readonly index: LogIndex };

export function newBatch(ring: RingBatch): LaneBatch {
  return {
    ring,
    operations: [],
    touched: new Set(),
    ios: new Map(),
    voteChanged: false,
    records: false,
    oldestSegment: 0,
    entries: 0,
    movedBytes: 0,
    hardStates: 0,
    flags: 0,
    completed: false,
  };
}

export function hasContent(batch: LaneBatch | undefined): boolean {
  return batch !== undefined && batch.touched.size > 0;
}

export function hardStatesWith(
  { touched }: LaneBatch,
  group: GroupLog,
  other: GroupLog | undefined = undefined,
): number {
  const added = touched.has(group) ? 0 : 1;
  const alsoAdded = other === undefined || other === group || touched.has(other) ? 0 : 1;
  return touched.size + added + alsoAdded;
}

/** Consecutive blocks of consecutive entries of one group are one operation. */
export function addAppend(
  batch: LaneBatch,
  group: GroupLog,
  pointer: number,
  length: number,
  firstIndex: LogIndex,
): void {
  const last = batch.operations[batch.operations.length - 1];
  if (
    last?.type === 'append' &&
    last.group === group &&
    last.pointer + last.length === pointer &&
    last.lastIndex + 1 === firstIndex
  ) {
    last.length += length;
    last.lastIndex = group.lastIndex;
    return;
  }
  batch.operations.push({ type: 'append', group, pointer, length, lastIndex: group.lastIndex });
}
