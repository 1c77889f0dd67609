/**
 * What a worker host and its worker say to each other: one task at a time in, one result out. Errors
 * are values, because a thrown one loses its code on the way.
 */
import type { ErrorRecord } from '../base/errors.js';

export type MachineTask =
  | LoadTask
  | OpenTask
  | ApplyTask
  | QueryTask
  | DigestTask
  | SnapshotTask
  | RestoreTask
  | CloseTask;

/** Loads the module; must be the first task of a worker. */
export interface LoadTask {
  readonly type: 'load';
  readonly url: string;
  readonly group: number;
}

export interface OpenTask {
  readonly type: 'open';
}

export interface ApplyTask {
  readonly type: 'apply';
  readonly ranges: readonly ApplyRange[];
  /** Limits of one call of the machine. */
  readonly maxEntries: number;
  readonly maxBytes: number;
}

/** Block bytes: views on shared memory, or bytes that were transferred. */
export interface ApplyRange {
  readonly parts: readonly Uint8Array[];
  readonly firstIndex: number;
  readonly lastIndex: number;
}

export interface QueryTask {
  readonly type: 'query';
  readonly query: unknown;
}

export interface DigestTask {
  readonly type: 'digest';
}

export type SnapshotTask =
  /**
   * Begins a snapshot behind the applies before it; answers with the index of the last one. The number
   * names it from then on: one that was given up may end when the next has begun.
   */
  | { readonly type: 'beginSnapshot'; readonly snapshot: number }
  /** Answers with the bytes that were put into shared memory; undefined behind the end. */
  | { readonly type: 'nextOfSnapshot'; readonly snapshot: number; readonly into: Uint8Array }
  | { readonly type: 'endSnapshot'; readonly snapshot: number };

export type RestoreTask =
  | { readonly type: 'beginRestore' }
  | { readonly type: 'restoreChunk'; readonly bytes: Uint8Array }
  | { readonly type: 'endRestore'; readonly lastIndex: number }
  /** The chunks ended with an error. */
  | { readonly type: 'failRestore'; readonly message: string };

export interface CloseTask {
  readonly type: 'close';
}

export interface LoadedModule {
  readonly version: number;
  readonly ownCodec: boolean;
  readonly concurrentSnapshot: boolean;
}

export type MachineResult =
  | { readonly value: unknown; readonly error: undefined }
  | { readonly value: undefined; readonly error: ErrorRecord };
