/**
 * The snapshots of one group, as the main thread holds them: which there are, one that is being built,
 * one that is being received, and those that are being read. All files are touched by the executor's
 * thread, and at most a few chunks are in memory.
 *
 * The newest `keep` are kept; an older one goes when a newer one is durable and nobody reads it. A
 * damaged one is told of, is never used, and goes the same way.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { damageOf, type SnapshotDamage } from './snapshot-directory.js';
import type { SnapshotExecutor } from './snapshot-executor.js';
import { damagedSnapshot, type SnapshotHeader, type SnapshotInfo } from './snapshot-format.js';
import { MIN_SNAPSHOT_FILE_BYTES } from './snapshot-layout.js';
import type { AnnouncedSnapshot } from './snapshot-tasks.js';

export interface SnapshotStoreOptions {
  /** See `snapshotDirectory`. */
  readonly directory: string;
  readonly group: number;
  /** Snapshots that are kept, at least 1. */
  readonly keep: number;
  /** Payload bytes of one chunk. */
  readonly chunkBytes: number;
  readonly executor: SnapshotExecutor;
  readonly logger: Logger;
}

/** A snapshot on its way into a file. Calls follow one another: each waits for the one before. */
export interface SnapshotWriter {
  /**
   * Takes the bytes: their buffer may be moved to another thread. Memory that threads share is only read,
   * until it resolves.
   */
  append(bytes: Uint8Array): Promise<void>;
  /** Durable, and the newest, when it resolves; those that are no longer kept are removed behind it. */
  publish(): Promise<SnapshotInfo>;
  abort(): Promise<void>;
}

/** What another node sends: the bytes of its file, from where the last transfer of it ended. */
export interface SnapshotReceiver {
  readonly id: string;
  readonly totalBytes: number;
  /** All before it is written; the next bytes begin here. */
  readonly offset: number;
  append(bytes: Uint8Array): Promise<void>;
  /** Verifies all of it; the snapshot is durable, and the newest, when it resolves. */
  publish(): Promise<SnapshotInfo>;
}

/** The bytes of a snapshot file; it is not removed before `close`. */
export interface SnapshotFileHandle {
  readonly info: SnapshotInfo;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): void;
}

export class SnapshotStore {
  /** The newest snapshot turned out to be damaged. */
  onLost: (() => void) | undefined;
  private readonly options: SnapshotStoreOptions;
  private readonly executor: SnapshotExecutor;
  private list: SnapshotInfo[];
  private damage: SnapshotDamage[];
  private readonly pins = new Map<string, number>();
  /** Not listed any more; the file goes when nobody reads it. */
  private readonly late = new Set<string>();
  private handles = 0;
  private partial: Receiver | undefined;

  private constructor(
    options: SnapshotStoreOptions,
    list: readonly SnapshotInfo[],
    damage: readonly SnapshotDamage[],
  ) {
    this.options = options;
    this.executor = options.executor;
    this.list = [...list];
    this.damage = [...damage];
    for (const found of damage) this.report(found);
  }

  /** @throws KeelsonError STORAGE_VERSION, STORAGE_FAILED; the executor is closed then */
  static async open(options: SnapshotStoreOptions): Promise<SnapshotStore> {
    const { directory, group, executor } = options;
    try {
      const { snapshots, damaged } = await executor.run({ type: 'scan', directory, group });
      return new SnapshotStore(options, snapshots, damaged);
    } catch (error) {
      await executor.close(0);
      throw error;
    }
  }

  /** Those that can be used as far as is known, newest first. */
  get snapshots(): readonly SnapshotInfo[] {
    return this.list;
  }

  get newest(): SnapshotInfo | undefined {
    return this.list[0];
  }

  /**
   * The log behind it is to be kept, so that a start may fall back on it. Undefined while there are fewer
   * than are to be kept: then the log goes as far back as one more.
   */
  get oldestKept(): SnapshotInfo | undefined {
    return this.list[this.options.keep - 1];
  }

  /** What was found damaged and is still there. */
  get damaged(): readonly SnapshotDamage[] {
    return this.damage;
  }

  async create(header: SnapshotHeader): Promise<SnapshotWriter> {
    const { executor } = this;
    const { directory, chunkBytes } = this.options;
    const handle = ++this.handles;
    await executor.run({ type: 'create', handle, directory, header, chunkBytes });
    return {
      append: (given) => {
        if (given.buffer instanceof SharedArrayBuffer) {
          return executor.run({ type: 'append', handle, bytes: given });
        }
        const bytes = filling(given);
        return executor.run({ type: 'append', handle, bytes }, [bytes.buffer]);
      },
      publish: () => this.publish(handle),
      abort: () => executor.run({ type: 'close', handle }),
    };
  }

  /**
   * Begins to receive a snapshot, or goes on with it: a transfer that broke off resumes where it ended.
   * Another one that was under way is given up. One of a later version of the machine than that of this
   * node fails as soon as its header has come.
   */
  async receive(announced: AnnouncedSnapshot, machineVersion: number): Promise<SnapshotReceiver> {
    const { partial } = this;
    const { id, totalBytes } = announced;
    if (!Number.isSafeInteger(totalBytes) || totalBytes < MIN_SNAPSHOT_FILE_BYTES) {
      const least = `header and footer have ${MIN_SNAPSHOT_FILE_BYTES}`;
      throw damagedSnapshot(id, 0, `a file of ${totalBytes} bytes cannot be one: ${least}`);
    }
    if (partial?.id === id && partial.totalBytes === totalBytes) return partial;
    await this.dropPartial();
    const { directory, group } = this.options;
    const handle = ++this.handles;
    const receiver = new Receiver(id, totalBytes, this.executor, handle, async () => {
      try {
        const info = await this.publish(handle);
        this.partial = undefined;
        return info;
      } catch (error) {
        await this.dropPartial();
        throw error;
      }
    });
    const given = { directory, group, announced, machineVersion };
    await this.executor.run({ type: 'receive', handle, ...given });
    this.partial = receiver;
    return receiver;
  }

  /** Gives up what was received so far. */
  async dropPartial(): Promise<void> {
    const { partial } = this;
    this.partial = undefined;
    if (partial !== undefined) await this.executor.run({ type: 'close', handle: partial.handle });
  }

  /** However many newer ones come, it stays until what is returned is called. */
  hold(info: SnapshotInfo): () => Promise<void> {
    this.pin(info);
    return () => this.unpin(info);
  }

  /** The state that the snapshot holds, chunk by chunk, verified. */
  async *payload(info: SnapshotInfo): AsyncGenerator<Uint8Array, void> {
    const { executor } = this;
    const handle = ++this.handles;
    this.pin(info);
    try {
      await this.guard(info, executor.run({ type: 'openPayload', handle, file: info.file }));
      for (;;) {
        const bytes = await this.guard(info, executor.run({ type: 'nextPayload', handle }));
        if (bytes === undefined) return;
        yield bytes;
      }
    } finally {
      await executor.run({ type: 'close', handle });
      await this.unpin(info);
    }
  }

  /** The file as it is, to be sent. */
  async openFile(info: SnapshotInfo): Promise<SnapshotFileHandle> {
    const { executor } = this;
    const handle = ++this.handles;
    this.pin(info);
    const close = (): void => {
      executor
        .run({ type: 'close', handle })
        .then(() => this.unpin(info))
        .catch((err: unknown) => this.warn(err, 'a snapshot that was sent did not close'));
    };
    try {
      await this.guard(info, executor.run({ type: 'openFile', handle, file: info.file }));
    } catch (error) {
      close();
      throw error;
    }
    const read = (offset: number, length: number): Promise<Uint8Array> =>
      this.guard(info, executor.run({ type: 'readAt', handle, offset, length }));
    return { info, read, close };
  }

  /** Reads an older snapshot to its end, which a start has not done. */
  async verify(info: SnapshotInfo): Promise<void> {
    const { file, group } = info;
    await this.guard(info, this.executor.run({ type: 'verify', file, group }));
  }

  /** Snapshots before the log: the entries between them and the log are gone. */
  async removeBelow(index: number): Promise<void> {
    const useless = this.list.filter(({ lastIncluded }) => lastIncluded.index < index);
    this.list = this.list.filter((info) => !useless.includes(info));
    const free = useless.filter(({ id }) => !this.pins.has(id));
    for (const info of useless) if (!free.includes(info)) this.late.add(info.id);
    await this.remove(free.map(({ file }) => file));
  }

  /** The machine cannot be restored from it. False when it is left out already, because it is damaged. */
  passOver(info: SnapshotInfo, error: unknown): boolean {
    if (!this.list.includes(info)) return false;
    const reason = error instanceof Error ? error.message : String(error);
    this.found(info, { file: info.file, offset: 0, finding: `it cannot be restored: ${reason}` });
    return true;
  }

  /** Stops the thread, whatever it is at; one that hangs in the kernel is left behind at `untilMs`. */
  async close(untilMs: number): Promise<void> {
    await this.executor.close(untilMs);
  }

  /** One error that names every file that was looked at. */
  unusable(purgedIndex: number): KeelsonError {
    const { directory } = this.options;
    const found = this.damage.map(
      ({ file, offset, finding }) => `${file} (byte ${offset}: ${finding})`,
    );
    const old = this.list.map(({ file }) => `${file} (ends before the log begins)`);
    const looked = [...found, ...old].join('; ') || `${directory} holds none`;
    return new KeelsonError(
      'KEELSON_STORAGE_CORRUPT',
      `the log begins behind index ${purgedIndex}, and no snapshot that verifies holds what was before: ` +
        `${looked}. Restore the whole directory from a backup, or replace the node: remove it from the ` +
        'cluster and add it again with an empty directory',
      { details: { directory, purgedIndex, files: this.damage.map(({ file }) => file) } },
    );
  }

  private async publish(handle: number): Promise<SnapshotInfo> {
    const info = await this.executor.run({ type: 'publish', handle });
    const at = this.list.findIndex(
      ({ lastIncluded }) => lastIncluded.index <= info.lastIncluded.index,
    );
    this.list.splice(at < 0 ? this.list.length : at, 0, info);
    // Nobody has to wait until the disk has freed the blocks of a large file.
    void this.prune();
    return info;
  }

  /** Only ever called when a newer one is durable. */
  private async prune(): Promise<void> {
    const { keep } = this.options;
    const surplus = this.list.slice(keep).filter(({ id }) => !this.pins.has(id));
    const files = [...surplus, ...this.damage].map(({ file }) => file);
    this.list = this.list.filter((info) => !surplus.includes(info));
    this.damage = [];
    await this.remove(files);
  }

  private async remove(files: readonly string[]): Promise<void> {
    if (files.length === 0) return;
    try {
      await this.executor.run({ type: 'remove', directory: this.options.directory, files });
    } catch (error) {
      // It costs room, and the next start finds it again.
      this.warn(error, 'a snapshot that is no longer needed could not be removed');
    }
  }

  private pin({ id }: SnapshotInfo): void {
    this.pins.set(id, (this.pins.get(id) ?? 0) + 1);
  }

  private async unpin({ id, file }: SnapshotInfo): Promise<void> {
    const count = this.pins.get(id) ?? 0;
    invariant(count > 0, 'a snapshot is pinned as often as it is let go');
    if (count > 1) this.pins.set(id, count - 1);
    else this.pins.delete(id);
    if (count > 1) return;
    if (this.late.delete(id)) await this.remove([file]);
    if (this.list.length > this.options.keep) await this.prune();
  }

  /** What does not verify, or stands on a bad sector, is used no more. */
  private async guard<T>(info: SnapshotInfo, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      const damage = damageOf(error, info.file);
      if (damage !== undefined) this.found(info, damage);
      throw error;
    }
  }

  private found(info: SnapshotInfo, found: SnapshotDamage): void {
    const place = this.list.indexOf(info);
    if (place < 0) return;
    this.list.splice(place, 1);
    this.damage.push(found);
    this.report(found);
    if (place === 0) this.onLost?.();
  }

  private report({ file, offset, finding }: SnapshotDamage): void {
    this.options.logger.error(
      { event: 'snapshot.damaged', file, offset, finding },
      'a snapshot is damaged, or cannot be restored, and is not used',
    );
  }

  private warn(err: unknown, message: string): void {
    this.options.logger.warn({ event: 'snapshot.unremoved', err }, message);
  }
}

class Receiver implements SnapshotReceiver {
  readonly id: string;
  readonly totalBytes: number;
  readonly handle: number;
  offset = 0;
  private readonly executor: SnapshotExecutor;
  private readonly onPublish: () => Promise<SnapshotInfo>;

  constructor(
    id: string,
    totalBytes: number,
    executor: SnapshotExecutor,
    handle: number,
    onPublish: () => Promise<SnapshotInfo>,
  ) {
    this.id = id;
    this.totalBytes = totalBytes;
    this.executor = executor;
    this.handle = handle;
    this.onPublish = onPublish;
  }

  async append(given: Uint8Array): Promise<void> {
    const { handle, offset } = this;
    if (offset + given.length > this.totalBytes) {
      throw damagedSnapshot(this.id, offset, 'more bytes came than were announced');
    }
    const bytes = filling(given);
    // Moved to the other thread, they have none any more.
    const { length } = bytes;
    await this.executor.run({ type: 'receiveAt', handle, offset, bytes }, [bytes.buffer]);
    this.offset += length;
  }

  publish(): Promise<SnapshotInfo> {
    return this.onPublish();
  }
}

/** The bytes alone in a buffer of their own: sending a view to a thread sends all that is under it. */
function filling(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteLength } = bytes;
  const alone = buffer instanceof ArrayBuffer && buffer.byteLength === byteLength;
  return alone ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes);
}
