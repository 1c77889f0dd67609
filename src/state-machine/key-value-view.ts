/**
 * The state of the key-value machine as it was at one moment, walked in the order of the keys while
 * writes go on: what a write replaces or removes is kept until the walk has come past it. So the view
 * costs one look per write, and the memory of the old values that are changed before their turn.
 *
 * A value is newer than the view when its version, an index of the log, is.
 */
import type { KeyValueEntry, VersionedValue } from './key-value.js';
import { OrderedKeys } from './ordered-keys.js';

/** About a millisecond's worth of keys that came later, which a walk passes in one step. */
const MAX_PASSED_KEYS = 512;

export class KeyValueView {
  readonly size: number;
  private readonly values: ReadonlyMap<string, VersionedValue>;
  private readonly keys: OrderedKeys;
  /** Index of the last write that it shows. */
  private readonly lastIndex: number;
  /** Values of the view that are there no more. */
  private readonly old = new Map<string, VersionedValue>();
  /** Those of the keys in `old` that are no key now. */
  private readonly gone = new OrderedKeys();
  /** The walk has come past it, and past all before it; no key is empty. */
  private passed = '';
  /** Keys came or went since the last step. */
  private moved = false;

  constructor(values: ReadonlyMap<string, VersionedValue>, keys: OrderedKeys, lastIndex: number) {
    this.values = values;
    this.keys = keys;
    this.lastIndex = lastIndex;
    this.size = values.size;
  }

  /** A write is about to give the key another value than `present`, its first one where that is undefined. */
  putting(key: string, present: VersionedValue | undefined): void {
    if (present === undefined) {
      this.moved = true;
      if (this.old.has(key)) this.gone.delete(key);
    } else if (this.shows(key, present)) this.old.set(key, present);
  }

  /** A write is about to remove the key. */
  deleting(key: string, present: VersionedValue): void {
    this.moved = true;
    if (this.shows(key, present)) this.old.set(key, present);
    if (this.old.has(key)) this.gone.add(key);
  }

  /** One walk; writes may come between two steps. Undefined: it only passed keys that the view does not show. */
  *entries(): Generator<KeyValueEntry | undefined, void> {
    let live = this.keys.from('');
    let gone = this.gone.from('');
    let nextLive = this.nextLive(live);
    let nextGone = this.next(gone);
    for (;;) {
      if (this.moved) {
        this.moved = false;
        live = this.keys.from(this.passed);
        gone = this.gone.from(this.passed);
        nextLive = this.nextLive(live);
        nextGone = this.next(gone);
      }
      const key = this.first(nextLive, nextGone);
      if (key === undefined) return;
      const { value, version } = this.old.get(key) ?? this.values.get(key)!;
      this.old.delete(key);
      this.passed = key;
      yield version <= this.lastIndex ? { key, value, version } : undefined;
      if (this.moved) continue;
      if (key === nextLive) nextLive = this.nextLive(live);
      else nextGone = this.next(gone);
    }
  }

  /** Whether the walk is still to give this value of the key. */
  private shows(key: string, present: VersionedValue): boolean {
    return present.version <= this.lastIndex && this.keys.compare(key, this.passed) > 0;
  }

  private first(live: string | undefined, gone: string | undefined): string | undefined {
    if (live === undefined || gone === undefined) return live ?? gone;
    return this.keys.compare(live, gone) < 0 ? live : gone;
  }

  /** The next key that was there already, with this value or an older one; or the last of many that were not. */
  private nextLive(keys: Iterator<string, void>): string | undefined {
    for (let passed = 1; ; passed++) {
      const key = this.next(keys);
      if (key === undefined || this.old.has(key)) return key;
      if (this.values.get(key)!.version <= this.lastIndex) return key;
      if (passed === MAX_PASSED_KEYS) return key;
    }
  }

  private next(keys: Iterator<string, void>): string | undefined {
    for (;;) {
      const { done, value: key } = keys.next();
      if (done === true) return undefined;
      if (key !== this.passed) return key;
    }
  }
}
