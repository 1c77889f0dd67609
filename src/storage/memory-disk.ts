/**
 * A disk in memory that forgets what was not synced, for simulations and tests.
 *
 * Files are durable up to their last `dataSync` (see memory-inode.ts). Per directory there are the
 * names as programs see them and the durable names; `syncDirectory` makes the names durable. `crash`
 * ends this disk, every later call on it or its files throws, and returns the disk that is found
 * after the power came back.
 */
import { dirname, resolve } from 'node:path';
import { invariant } from '../base/assert.js';
import { SeededRandom } from '../base/random.js';
import type { Disk, DiskFile, OpenOptions } from './disk.js';
import { Inode, PAGE_BYTES } from './memory-inode.js';

export type DiskOperation =
  | 'open'
  | 'read'
  | 'write'
  | 'extend'
  | 'dataSync'
  | 'rename'
  | 'remove'
  | 'syncDirectory';

/** `discard`: all that was not synced is lost. `random`: any part of it may have reached the disk. */
export type CrashMode = 'discard' | 'random';

export interface DiskFault {
  readonly operation: DiskOperation;
  /** Fails the nth matching call from now on; 1 is the next one. */
  readonly nth: number;
  /** Code of the system error: `EIO`, `ENOSPC`, … */
  readonly code: string;
  /** Only calls on paths that contain this count. */
  readonly pathIncludes?: string;
  /** For writes: that many bytes are written before the error. */
  readonly partialBytes?: number;
  /** Later matching calls fail as well. */
  readonly sticky?: boolean;
}

export interface MemoryDiskOptions {
  /** False: a disk that refuses direct I/O. True by default. */
  readonly allowDirect?: boolean;
  /** Bytes that files may occupy; writes beyond fail with ENOSPC. Unlimited by default. */
  readonly capacityBytes?: number;
}

interface Change {
  readonly name: string;
  readonly inode: Inode | undefined;
}

interface Directory {
  readonly names: Map<string, Inode>;
  readonly durableNames: Map<string, Inode>;
  /** Changes of names since the last sync, in order; a rename is one group of two. */
  unsynced: Change[][];
}

export class MemoryDisk implements Disk {
  /** Syncs report success and make nothing durable: a test of durability must fail with this on. */
  ignoreDataSync = false;
  /** The same for `syncDirectory`. */
  ignoreDirectorySync = false;
  readonly calls: Record<DiskOperation, number> = {
    open: 0,
    read: 0,
    write: 0,
    extend: 0,
    dataSync: 0,
    rename: 0,
    remove: 0,
    syncDirectory: 0,
  };
  private readonly options: MemoryDiskOptions;
  private readonly directories: Map<string, Directory> = new Map([['/', emptyDirectory()]]);
  private faults: { fault: DiskFault; remaining: number }[] = [];
  private crashed = false;

  constructor(options: MemoryDiskOptions = {}) {
    this.options = options;
  }

  /** Makes a later call fail. */
  fail(fault: DiskFault): void {
    this.faults.push({ fault, remaining: fault.nth });
  }

  clearFaults(): void {
    this.faults = [];
  }

  /** Bytes in pages of all visible files. */
  usedBytes(): number {
    let pages = 0;
    for (const directory of this.directories.values()) {
      for (const inode of directory.names.values()) pages += inode.pageCount();
    }
    return pages * PAGE_BYTES;
  }

  /** Power loss: this disk is dead afterwards, the result is what is found on it. */
  crash(mode: CrashMode = 'discard', seed = 1): MemoryDisk {
    const image = this.imageAfterCrash(mode, seed);
    this.crashed = true;
    return image;
  }

  /** What would be found if the power failed now; this disk goes on. */
  imageAfterCrash(mode: CrashMode = 'discard', seed = 1): MemoryDisk {
    this.checkAlive();
    const random = mode === 'random' ? new SeededRandom(seed) : undefined;
    const image = new MemoryDisk(this.options);
    const copies = new Map<Inode, Inode>();
    for (const [path, directory] of this.directories) {
      const found = new Map(directory.durableNames);
      // File systems journal names in order: some prefix of the changes survives.
      const survivors = random === undefined ? 0 : random.integer(directory.unsynced.length + 1);
      for (const group of directory.unsynced.slice(0, survivors)) applyChanges(found, group);
      const copy = emptyDirectory();
      for (const [name, inode] of found) {
        let inodeCopy = copies.get(inode);
        if (inodeCopy === undefined) {
          inodeCopy = inode.afterCrash(random);
          copies.set(inode, inodeCopy);
        }
        copy.names.set(name, inodeCopy);
        copy.durableNames.set(name, inodeCopy);
      }
      image.directories.set(path, copy);
    }
    return image;
  }

  open(path: string, options: OpenOptions): DiskFile {
    const full = resolve(path);
    this.begin('open', full);
    const directory = this.directoryOf(full);
    const name = nameOf(full);
    let inode = directory.names.get(name);
    if (options.create === true) {
      if (inode !== undefined) throw systemError('EEXIST', full);
      inode = new Inode();
      this.change(directory, [{ name, inode }]);
    }
    if (inode === undefined) throw systemError('ENOENT', full);
    const writable = options.access === 'write';
    const direct = writable && options.direct === true && this.options.allowDirect !== false;
    return new MemoryDiskFile(this, full, inode, writable, direct);
  }

  exists(path: string): boolean {
    this.checkAlive();
    const full = resolve(path);
    return (
      this.directories.has(full) ||
      this.directories.get(dirname(full))?.names.has(nameOf(full)) === true
    );
  }

  list(path: string): string[] {
    this.checkAlive();
    const full = resolve(path);
    const directory = this.directories.get(full);
    if (directory === undefined) throw systemError('ENOENT', full);
    const names = [...directory.names.keys()];
    for (const other of this.directories.keys()) {
      if (other !== full && dirname(other) === full) names.push(nameOf(other));
    }
    return names.sort();
  }

  makeDirectory(path: string): void {
    this.checkAlive();
    for (let full = resolve(path); !this.directories.has(full); full = dirname(full)) {
      if (this.directories.get(dirname(full))?.names.has(nameOf(full)) === true) {
        throw systemError('EEXIST', full);
      }
      this.directories.set(full, emptyDirectory());
    }
  }

  rename(from: string, to: string): void {
    const source = resolve(from);
    const target = resolve(to);
    this.begin('rename', source);
    const directory = this.directoryOf(source);
    const inode = directory.names.get(nameOf(source));
    if (inode === undefined) throw systemError('ENOENT', source);
    // Across directories a crash could show both names or none; nothing in the store needs it.
    invariant(dirname(source) === dirname(target), 'files are renamed within their directory');
    this.change(directory, [
      { name: nameOf(source), inode: undefined },
      { name: nameOf(target), inode },
    ]);
  }

  remove(path: string): void {
    const full = resolve(path);
    this.begin('remove', full);
    const directory = this.directoryOf(full);
    if (!directory.names.has(nameOf(full))) throw systemError('ENOENT', full);
    this.change(directory, [{ name: nameOf(full), inode: undefined }]);
  }

  syncDirectory(path: string): void {
    const full = resolve(path);
    this.begin('syncDirectory', full);
    const directory = this.directories.get(full);
    if (directory === undefined) throw systemError('ENOENT', full);
    if (this.ignoreDirectorySync) return;
    for (const group of directory.unsynced) applyChanges(directory.durableNames, group);
    directory.unsynced = [];
  }

  readFile(path: string): Uint8Array {
    const file = this.open(path, { access: 'read' });
    const bytes = new Uint8Array(file.size());
    file.read(bytes, 0);
    file.close();
    return bytes;
  }

  /** Changes bytes of a file durably, behind the back of whoever has it open: damage. */
  damage(path: string, position: number, change: (bytes: Uint8Array) => void, length = 1): void {
    const full = resolve(path);
    const inode = this.directoryOf(full).names.get(nameOf(full));
    if (inode === undefined) throw systemError('ENOENT', full);
    const bytes = new Uint8Array(length);
    inode.read(bytes, position);
    change(bytes);
    inode.write(bytes, position, Number.POSITIVE_INFINITY);
    inode.makeDurable();
  }

  /** Counts a call and throws when it is to fail; returns the bytes that a failing write still writes. */
  begin(operation: DiskOperation, path: string): DiskFault | undefined {
    this.checkAlive();
    this.calls[operation]++;
    if (this.faults.length === 0) return undefined;
    for (const entry of this.faults) {
      const { fault } = entry;
      if (fault.operation !== operation || !path.includes(fault.pathIncludes ?? '')) continue;
      entry.remaining--;
      if (entry.remaining > 0) continue;
      if (fault.sticky !== true) this.faults = this.faults.filter((other) => other !== entry);
      if (operation === 'write') return fault;
      throw systemError(fault.code, path);
    }
    return undefined;
  }

  /** Bytes that may still be occupied. */
  roomBytes(): number {
    const capacity = this.options.capacityBytes;
    return capacity === undefined ? Number.POSITIVE_INFINITY : capacity - this.usedBytes();
  }

  private directoryOf(full: string): Directory {
    const directory = this.directories.get(dirname(full));
    if (directory === undefined) throw systemError('ENOENT', full);
    return directory;
  }

  private change(directory: Directory, group: Change[]): void {
    applyChanges(directory.names, group);
    directory.unsynced.push(group);
  }

  private checkAlive(): void {
    if (this.crashed) throw systemError('EIO', 'this disk has crashed');
  }
}

class MemoryDiskFile implements DiskFile {
  readonly path: string;
  readonly direct: boolean;
  private readonly disk: MemoryDisk;
  private readonly inode: Inode;
  private readonly writable: boolean;
  private open = true;
  private syncFailure: unknown;

  constructor(disk: MemoryDisk, path: string, inode: Inode, writable: boolean, direct: boolean) {
    this.disk = disk;
    this.path = path;
    this.inode = inode;
    this.writable = writable;
    this.direct = direct;
  }

  size(): number {
    this.check();
    return this.inode.size;
  }

  read(view: Uint8Array, position: number): number {
    this.check();
    this.disk.begin('read', this.path);
    return this.inode.read(view, position);
  }

  write(view: Uint8Array, position: number): void {
    this.check();
    if (!this.writable) throw systemError('EBADF', this.path);
    if (this.direct && (position % PAGE_BYTES !== 0 || view.length % PAGE_BYTES !== 0)) {
      throw systemError('EINVAL', `${this.path}: direct writes are aligned to ${PAGE_BYTES} bytes`);
    }
    const fault = this.disk.begin('write', this.path);
    const bytes = fault === undefined ? view : view.subarray(0, fault.partialBytes ?? 0);
    const complete = this.inode.write(bytes, position, this.disk.roomBytes());
    if (this.direct && !this.disk.ignoreDataSync) this.inode.makeDurable();
    if (fault !== undefined) throw systemError(fault.code, this.path);
    if (!complete) throw systemError('ENOSPC', this.path);
  }

  extend(bytes: number): void {
    this.check();
    if (!this.writable) throw systemError('EBADF', this.path);
    this.disk.begin('extend', this.path);
    this.inode.size = Math.max(this.inode.size, bytes);
  }

  dataSync(): void {
    this.check();
    try {
      this.disk.begin('dataSync', this.path);
    } catch (error) {
      // As Linux does it: the pages are marked clean although they never reached the disk.
      this.inode.forgetUnsynced();
      this.syncFailure = error;
      throw error;
    }
    if (!this.disk.ignoreDataSync) this.inode.makeDurable();
  }

  close(): void {
    this.open = false;
  }

  private check(): void {
    if (!this.open) throw systemError('EBADF', `${this.path} is closed`);
    if (this.syncFailure !== undefined) throw this.syncFailure;
  }
}

function emptyDirectory(): Directory {
  return { names: new Map(), durableNames: new Map(), unsynced: [] };
}

function applyChanges(names: Map<string, Inode>, group: readonly Change[]): void {
  for (const { name, inode } of group) {
    if (inode === undefined) names.delete(name);
    else names.set(name, inode);
  }
}

function nameOf(full: string): string {
  return full.slice(full.lastIndexOf('/') + 1);
}

function systemError(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}
