/**
 * What is done to snapshot files, as plain data, and the object that does it in whatever thread. A
 * handle names a file that is open between two tasks; who gives the tasks chooses it.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { LogId } from '../engine/types.js';
import type { SharedHeap } from '../wasm/shared-heap.js';
import type { Disk, DiskFile } from './disk.js';
import {
  publishSnapshot,
  readSnapshotFile,
  type SnapshotScan,
  scanSnapshots,
  temporaryPath,
} from './snapshot-directory.js';
import { SNAPSHOT_SYNC_BYTES, SnapshotFileReader, SnapshotFileWriter } from './snapshot-file.js';
import {
  checkMachineVersion,
  damagedSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  snapshotMemory,
} from './snapshot-format.js';
import { MAX_SNAPSHOT_MEMBERSHIP_BYTES, SNAPSHOT_HEADER } from './snapshot-layout.js';

export type SnapshotTask =
  | { readonly type: 'scan'; readonly directory: string; readonly group: number }
  | { readonly type: 'verify'; readonly file: string; readonly group: number }
  | { readonly type: 'remove'; readonly directory: string; readonly files: readonly string[] }
  | CreateTask
  /** Adds payload bytes to what is being built. */
  | { readonly type: 'append'; readonly handle: number; readonly bytes: Uint8Array }
  | ReceiveTask
  | ReceiveAtTask
  /** Verifies what was built or received, makes it durable and gives it its name. */
  | { readonly type: 'publish'; readonly handle: number }
  | { readonly type: 'openPayload'; readonly handle: number; readonly file: string }
  /** The payload of the next chunk; undefined behind the last. */
  | { readonly type: 'nextPayload'; readonly handle: number }
  | { readonly type: 'openFile'; readonly handle: number; readonly file: string }
  | ReadAtTask
  /** Closes a file; what is unfinished is removed. */
  | { readonly type: 'close'; readonly handle: number };

export interface CreateTask {
  readonly type: 'create';
  readonly handle: number;
  readonly directory: string;
  readonly header: SnapshotHeader;
  readonly chunkBytes: number;
}

/** Begins a file whose bytes another node sends. */
export interface ReceiveTask {
  readonly type: 'receive';
  readonly handle: number;
  readonly directory: string;
  readonly group: number;
  readonly announced: AnnouncedSnapshot;
  /** One of a later version of the machine is refused. */
  readonly machineVersion: number;
}

/** What another node says of the file that it sends; the file itself must say the same. */
export interface AnnouncedSnapshot {
  readonly id: string;
  readonly lastIncluded: LogId;
  /** Of the whole file. */
  readonly totalBytes: number;
}

/** However long its membership is, a header ends before. */
const MAX_HEADER_BYTES = SNAPSHOT_HEADER.bytes + MAX_SNAPSHOT_MEMBERSHIP_BYTES;

export interface ReceiveAtTask {
  readonly type: 'receiveAt';
  readonly handle: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface ReadAtTask {
  readonly type: 'readAt';
  readonly handle: number;
  readonly offset: number;
  readonly length: number;
}

export interface SnapshotResults {
  readonly scan: SnapshotScan;
  readonly verify: SnapshotInfo;
  readonly remove: undefined;
  readonly create: undefined;
  readonly append: undefined;
  readonly receive: undefined;
  readonly receiveAt: undefined;
  readonly publish: SnapshotInfo;
  readonly openPayload: undefined;
  readonly nextPayload: Uint8Array | undefined;
  readonly openFile: undefined;
  readonly readAt: Uint8Array;
  readonly close: undefined;
}

export type SnapshotTaskResult<T extends SnapshotTask> = SnapshotResults[T['type']];

interface Building {
  readonly kind: 'build';
  readonly writer: SnapshotFileWriter;
  readonly header: SnapshotHeader;
  readonly directory: string;
  readonly temporary: string;
}

interface Receiving {
  readonly kind: 'receive';
  readonly file: DiskFile;
  readonly task: ReceiveTask;
  readonly temporary: string;
  unsynced: number;
  headerChecked: boolean;
}

type Open =
  | Building
  | Receiving
  | { readonly kind: 'payload'; readonly reader: SnapshotFileReader }
  | { readonly kind: 'file'; readonly file: DiskFile };

export class SnapshotTaskRunner {
  private readonly disk: Disk;
  private readonly heap: SharedHeap;
  private readonly open = new Map<number, Open>();

  constructor(disk: Disk) {
    this.disk = disk;
    this.heap = snapshotMemory();
  }

  /** @throws KeelsonError STORAGE_FULL, STORAGE_FAILED, STORAGE_CORRUPT, STORAGE_VERSION */
  run<T extends SnapshotTask>(task: T): SnapshotTaskResult<T> {
    try {
      return this.dispatch(task) as SnapshotTaskResult<T>;
    } catch (error) {
      throw snapshotFailure(error);
    }
  }

  /** Closes what is open; what is unfinished is left to the next start. */
  close(): void {
    for (const open of this.open.values()) closeFile(open);
    this.open.clear();
  }

  private dispatch(task: SnapshotTask): unknown {
    const { disk, heap } = this;
    switch (task.type) {
      case 'scan':
        return scanSnapshots(heap, disk, task.directory, task.group);
      case 'verify':
        return readSnapshotFile(heap, disk, task.file, task.group, true);
      case 'remove':
        for (const file of task.files) if (disk.exists(file)) disk.remove(file);
        return disk.syncDirectory(task.directory);
      case 'create':
        return this.create(task);
      case 'append':
        return this.expect(task.handle, 'build').writer.append(task.bytes);
      case 'receive':
        return this.receive(task);
      case 'receiveAt':
        return this.receiveAt(task);
      case 'publish':
        return this.publish(task.handle);
      case 'openPayload':
        this.open.set(task.handle, {
          kind: 'payload',
          reader: new SnapshotFileReader(heap, disk, task.file),
        });
        return undefined;
      case 'nextPayload': {
        const payload = this.expect(task.handle, 'payload').reader.next();
        // Memory of its own: a view would be overwritten, and posting it would share all of it.
        return payload === undefined ? undefined : Uint8Array.from(payload);
      }
      case 'openFile': {
        if (!disk.exists(task.file)) throw damagedSnapshot(task.file, 0, 'it is gone');
        const file = disk.open(task.file, { access: 'read' });
        this.open.set(task.handle, { kind: 'file', file });
        return undefined;
      }
      case 'readAt':
        return this.readAt(task);
      case 'close':
        return this.closeHandle(task.handle);
    }
  }

  private create({ handle, directory, header, chunkBytes }: CreateTask): void {
    const { heap, disk } = this;
    const temporary = temporaryPath(directory, 'build', header.id);
    const writer = new SnapshotFileWriter(heap, disk, temporary, header, chunkBytes);
    this.open.set(handle, { kind: 'build', writer, header, directory, temporary });
  }

  private receive(task: ReceiveTask): void {
    this.checkRoom(task);
    const temporary = temporaryPath(task.directory, 'receive', task.announced.id);
    const file = this.disk.open(temporary, { access: 'write', create: true });
    const kind = 'receive';
    this.open.set(task.handle, { kind, file, task, temporary, unsynced: 0, headerChecked: false });
  }

  /** What cannot fit is not begun: it would take the last room from the log, and fail all the same. */
  private checkRoom({ directory, announced }: ReceiveTask): void {
    const { totalBytes } = announced;
    const freeBytes = this.disk.freeBytes(directory);
    if (totalBytes <= freeBytes) return;
    throw new KeelsonError(
      'KEELSON_STORAGE_FULL',
      `a snapshot of ${totalBytes} bytes does not fit: the disk of ${directory} has room for ${freeBytes}`,
      { details: { directory, totalBytes, freeBytes } },
    );
  }

  private receiveAt({ handle, offset, bytes }: ReceiveAtTask): void {
    const receiving = this.expect(handle, 'receive');
    receiving.file.write(bytes, offset);
    this.checkHeader(receiving, offset + bytes.length);
    receiving.unsynced += bytes.length;
    if (receiving.unsynced < SNAPSHOT_SYNC_BYTES) return;
    receiving.file.dataSync();
    receiving.unsynced = 0;
  }

  /** As soon as it is there: what cannot be used is not worth the time that its other bytes take. */
  private checkHeader(receiving: Receiving, end: number): void {
    const { task, temporary } = receiving;
    if (receiving.headerChecked || end < Math.min(MAX_HEADER_BYTES, task.announced.totalBytes)) {
      return;
    }
    receiving.headerChecked = true;
    const info = readSnapshotFile(this.heap, this.disk, temporary, task.group, false);
    checkAnnounced(info, task, temporary);
  }

  private publish(handle: number): SnapshotInfo {
    const open = this.open.get(handle);
    const { heap, disk } = this;
    if (open?.kind === 'build') {
      const bytes = open.writer.complete();
      this.open.delete(handle);
      return publishSnapshot(disk, open.directory, open.temporary, open.header, bytes, false);
    }
    const { file, task, temporary } = this.expect(handle, 'receive');
    file.dataSync();
    const info = readSnapshotFile(heap, disk, temporary, task.group, true);
    checkAnnounced(info, task, temporary);
    file.close();
    this.open.delete(handle);
    return publishSnapshot(disk, task.directory, temporary, info, info.bytes, true);
  }

  private readAt({ handle, offset, length }: ReadAtTask): Uint8Array {
    const { file } = this.expect(handle, 'file');
    const bytes = new Uint8Array(length);
    const read = file.read(bytes, offset);
    if (read < length) throw damagedSnapshot(file.path, offset + read, 'it ends too early');
    return bytes;
  }

  private closeHandle(handle: number): undefined {
    const open = this.open.get(handle);
    if (open === undefined) return;
    this.open.delete(handle);
    closeFile(open);
    if (open.kind !== 'build' && open.kind !== 'receive') return;
    if (this.disk.exists(open.temporary)) this.disk.remove(open.temporary);
  }

  private expect<K extends Open['kind']>(handle: number, kind: K): Extract<Open, { kind: K }> {
    const open = this.open.get(handle);
    invariant(open?.kind === kind, 'the handle names a file of this kind');
    return open as Extract<Open, { kind: K }>;
  }
}

/** One that says of itself what nobody announced, or that is of no use, must never become the newest here. */
function checkAnnounced(
  info: SnapshotInfo,
  { announced, machineVersion }: ReceiveTask,
  file: string,
): void {
  const { id, lastIncluded } = announced;
  checkMachineVersion(file, info.machineVersion, machineVersion);
  if (info.id !== id) throw damagedSnapshot(file, 0, `it has the id ${info.id}, not ${id}`);
  const { term, index } = info.lastIncluded;
  if (term !== lastIncluded.term || index !== lastIncluded.index) {
    const found = `it ends with index ${index} of term ${term}`;
    const finding = `${found}, not with ${lastIncluded.index} of term ${lastIncluded.term}`;
    throw damagedSnapshot(file, 0, finding);
  }
}

function closeFile(open: Open): void {
  if (open.kind === 'build') open.writer.close();
  else if (open.kind === 'payload') open.reader.close();
  else open.file.close();
}

/** A snapshot that fails costs nothing but itself: the log goes on. */
function snapshotFailure(error: unknown): KeelsonError {
  if (error instanceof KeelsonError) return error;
  const { code: systemCode, message } = error as NodeJS.ErrnoException;
  const full = systemCode === 'ENOSPC' || systemCode === 'EDQUOT';
  return new KeelsonError(
    full ? 'KEELSON_STORAGE_FULL' : 'KEELSON_STORAGE_FAILED',
    `a snapshot could not be written or read: ${message}`,
    { details: { systemCode }, cause: error },
  );
}
