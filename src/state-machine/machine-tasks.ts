/**
 * What a worker host and its worker say to each other: one task at a time in, one result out. Errors
 * are values, because a thrown one loses its code on the way.
 */
import type { ErrorRecord } from '../base/errors.js';

export type MachineTask = LoadTask | OpenTask | ApplyTask | QueryTask | DigestTask | CloseTask;

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

export interface CloseTask {
  readonly type: 'close';
}

export interface LoadedModule {
  readonly version: number;
  readonly ownCodec: boolean;
}

export type MachineResult =
  | { readonly value: unknown; readonly error: undefined }
  | { readonly value: undefined; readonly error: ErrorRecord };
