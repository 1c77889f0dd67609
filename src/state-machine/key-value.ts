/**
 * The built-in machine: strings to bytes, with compare-and-set and ordered scans.
 *
 * The version of a key is the log index of the write that gave it its value. So a version is never
 * used twice, not even when a key was deleted and made again, and a compare-and-set cannot take one
 * value for another. Version 0 means that the key does not exist.
 *
 * Nothing that a client sends makes `apply` throw, because that would stop every node of the group: a
 * malformed command answers `invalid`.
 */
import { createHash } from 'node:crypto';
import { readSnapshot, writeSnapshot } from './key-value-snapshot.js';
import { KeyValueView } from './key-value-view.js';
import { OrderedKeys } from './ordered-keys.js';
import type { Entry, StateMachine } from './state-machine.js';

export type KeyValueCommand =
  | {
      readonly op: 'put';
      readonly key: string;
      readonly value: Uint8Array;
      /** Write only if the key has this version; 0: only if it does not exist. */
      readonly ifVersion?: number | undefined;
    }
  | { readonly op: 'delete'; readonly key: string; readonly ifVersion?: number | undefined };

export type KeyValueResponse =
  /** `version` of the written value, or 0 after a delete. `existed`: there was a value before. */
  | { readonly ok: true; readonly version: number; readonly existed: boolean }
  /** Nothing was changed. `version` is the present one; `invalid` says what a bad command lacks. */
  | { readonly ok: false; readonly version: number; readonly invalid?: string };

export type KeyValueQuery =
  | { readonly op: 'get'; readonly key: string }
  | {
      readonly op: 'range';
      /** Only keys that begin with this. */
      readonly prefix?: string | undefined;
      /** First key, inclusive. */
      readonly start?: string | undefined;
      /** Last key, exclusive. */
      readonly end?: string | undefined;
      /** 1 to 10,000, default 1,000. An answer also ends after 4 MiB of values. */
      readonly limit?: number | undefined;
    };

export interface VersionedValue {
  readonly value: Uint8Array;
  readonly version: number;
}

export interface KeyValueEntry extends VersionedValue {
  readonly key: string;
}

export interface KeyValueRange {
  /** In the order of the keys' UTF-8 bytes. */
  readonly entries: readonly KeyValueEntry[];
  /** There is more: give this as `start` to go on. */
  readonly next?: string;
}

export type KeyValueAnswer = VersionedValue | KeyValueRange | undefined;

export const MAX_KEY_LENGTH = 4096;
export const MAX_RANGE_LIMIT = 10_000;
const DEFAULT_RANGE_LIMIT = 1000;
const MAX_RANGE_BYTES = 4 * 1024 * 1024;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** The machine as a module, to be run in a worker. */
export const keyValueModule: URL = new URL('./key-value-module.js', import.meta.url);

export class KeyValueMachine
  implements StateMachine<KeyValueCommand, KeyValueResponse, KeyValueQuery, KeyValueAnswer>
{
  readonly version = 1;
  readonly concurrentSnapshot = true;
  private values = new Map<string, VersionedValue>();
  private keys = new OrderedKeys();
  /** No write that changed the state has a higher index. */
  private lastIndex = 0;
  /** Snapshots that are being taken. */
  private views: KeyValueView[] = [];

  /** Number of keys. */
  get size(): number {
    return this.values.size;
  }

  apply(entries: readonly Entry<KeyValueCommand>[]): KeyValueResponse[] {
    const responses: KeyValueResponse[] = new Array(entries.length);
    for (let place = 0; place < entries.length; place++) {
      const { command, logId } = entries[place]!;
      responses[place] = this.applyOne(command, logId.index);
    }
    return responses;
  }

  query(query: KeyValueQuery): KeyValueAnswer {
    if (query?.op === 'get') return this.get(query.key);
    if (query?.op === 'range') return this.range(query);
    throw new TypeError(`op must be get or range, not ${(query as { op?: unknown } | null)?.op}`);
  }

  get(key: string): VersionedValue | undefined {
    return this.values.get(key);
  }

  range(query: Omit<Extract<KeyValueQuery, { op: 'range' }>, 'op'>): KeyValueRange {
    const { prefix = '', start = '', end, limit = DEFAULT_RANGE_LIMIT } = query;
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_RANGE_LIMIT) {
      throw new RangeError(`limit must be an integer from 1 to ${MAX_RANGE_LIMIT}, not ${limit}`);
    }
    const entries: KeyValueEntry[] = [];
    const first = this.keys.compare(start, prefix) > 0 ? start : prefix;
    let bytes = 0;
    for (const key of this.keys.from(first)) {
      if (!key.startsWith(prefix)) break;
      if (end !== undefined && this.keys.compare(key, end) >= 0) break;
      if (entries.length === limit || bytes >= MAX_RANGE_BYTES) return { entries, next: key };
      const { value, version } = this.values.get(key)!;
      entries.push({ key, value, version });
      bytes += value.length;
    }
    return { entries };
  }

  /** The state at the first step; writes may come between two steps. */
  *snapshot(): Generator<Uint8Array, void> {
    const view = new KeyValueView(this.values, this.keys, this.lastIndex);
    this.views.push(view);
    try {
      yield* writeSnapshot(view.size, view.entries());
    } finally {
      this.views = this.views.filter((other) => other !== view);
    }
  }

  async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const values = new Map<string, VersionedValue>();
    const keys = new OrderedKeys();
    let lastIndex = 0;
    for await (const entries of readSnapshot(chunks)) {
      for (const { key, value, version } of entries) {
        values.set(key, { value, version });
        keys.add(key);
        if (version > lastIndex) lastIndex = version;
      }
    }
    this.values = values;
    this.keys = keys;
    this.lastIndex = lastIndex;
    // They walk over what was replaced, where nothing changes any more.
    this.views = [];
  }

  /** SHA-256 over all keys, versions and values in order; walks the whole state. */
  digest(): string {
    const hash = createHash('sha256');
    for (const chunk of this.snapshot()) hash.update(chunk);
    return hash.digest('hex');
  }

  private applyOne(command: KeyValueCommand, index: number): KeyValueResponse {
    const invalid = whyInvalid(command);
    if (invalid !== undefined) return { ok: false, version: 0, invalid };
    const { key, ifVersion } = command;
    const present = this.values.get(key);
    const version = present?.version ?? 0;
    if (ifVersion !== undefined && ifVersion !== version) return { ok: false, version };
    const existed = present !== undefined;
    if (this.views.length > 0) this.tellViews(command.op, key, present);
    this.lastIndex = index;
    if (command.op === 'put') {
      if (!existed) this.keys.add(key);
      this.values.set(key, { value: command.value, version: index });
      return { ok: true, version: index, existed };
    }
    if (existed) {
      this.keys.delete(key);
      this.values.delete(key);
    }
    return { ok: true, version: 0, existed };
  }

  private tellViews(op: 'put' | 'delete', key: string, present: VersionedValue | undefined): void {
    for (const view of this.views) {
      if (op === 'put') view.putting(key, present);
      else if (present !== undefined) view.deleting(key, present);
    }
  }
}

function whyInvalid(command: KeyValueCommand): string | undefined {
  if (command === null || typeof command !== 'object') return 'a command is an object with op';
  const { op, key, ifVersion } = command;
  if (op !== 'put' && op !== 'delete') return 'op must be put or delete';
  if (typeof key !== 'string' || key.length === 0 || key.length > MAX_KEY_LENGTH) {
    return `key must be a string of 1 to ${MAX_KEY_LENGTH} UTF-16 units`;
  }
  // Such a key has no UTF-8 form: a snapshot could not carry it.
  if (LONE_SURROGATE.test(key)) return 'key must be well-formed Unicode';
  if (op === 'put' && !(command.value instanceof Uint8Array)) return 'value must be bytes';
  if (ifVersion !== undefined && (!Number.isSafeInteger(ifVersion) || ifVersion < 0)) {
    return 'ifVersion must be an integer, 0 or higher';
  }
  return undefined;
}
