/**
 * A disk in memory that forgets what was not synced, for simulations and tests.
 *
 * Files are durable up to their last `dataSync` (see memory-inode.ts). Per directory there are the
 * names as programs see them and the durable names, of files and of directories; `syncDirectory` makes
 * the names durable, and what a lost name led to is lost with it. `crash` ends this disk, every later
 * call on it or its files throws, and returns the disk that is found after the power came back.
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
  | 'makeDirectory'
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
  /** Undefined when the name goes. */
  readonly leadsTo: Inode | Directory | undefined;
}

class Directory {
  readonly names: Map<string, Inode | Directory> = new Map();
  readonly durableNames: Map<string, Inode | Directory> = new Map();
  /** Changes of names since the last sync, in order; a rename is one group of two. */
  unsynced: Change[][] = [];

  change(group: Change[]): void {
    applyChanges(this.names, group);
    this.unsynced.push(group);
  }

  sync(): void {
    for (const group of this.unsynced) applyChanges(this.durableNames, group);
    this.unsynced = [];
  }
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
    makeDirectory: 0,
    syncDirectory: 0,
  };
  private readonly options: MemoryDiskOptions;
  private root: Directory = new Directory();
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

  /** Bytes in pages of all visible files; a hole has none. */
  usedBytes(): number {
    return pagesIn(this.root) * PAGE_BYTES;
  }

  /** Power loss: this disk is dead afterwards, the result is what is found on it. */
  crash(mode: CrashMode = 'discard', seed = 1): MemoryDisk {
    const image = this.imageAfterCrash(mode, seed);
    this.crashed = true;
    return image;
  }

  /** The process dies, the machine goes on: the result has all that was written, synced or not. */
  kill(): MemoryDisk {
    this.checkAlive();
    const same = new MemoryDisk(this.options);
    same.root = this.root;
    this.crashed = true;
    return same;
  }

  /** What would be found if the power failed now; this disk goes on. */
  imageAfterCrash(mode: CrashMode = 'discard', seed = 1): MemoryDisk {
    this.checkAlive();
    const random = mode === 'random' ? new SeededRandom(seed) : undefined;
    const image = new MemoryDisk(this.options);
    image.root = directoryAfterCrash(this.root, random);
    return image;
  }

  open(path: string, options: OpenOptions): DiskFile {
    const full = resolve(path);
    this.begin('open', full);
    const directory = this.directory(dirname(full));
    const name = nameOf(full);
    let inode = directory.names.get(name);
    if (options.create === true) {
      if (inode !== undefined) throw systemError('EEXIST', full);
      inode = new Inode();
      directory.change([{ name, leadsTo: inode }]);
    }
    if (inode === undefined) throw systemError('ENOENT', full);
    if (inode instanceof Directory) throw systemError('EISDIR', full);
    const writable = options.access === 'write';
    const direct = writable && options.direct === true && this.options.allowDirect !== false;
    return new MemoryDiskFile(this, full, inode, writable, direct);
  }

  exists(path: string): boolean {
    this.checkAlive();
    return this.find(resolve(path)) !== undefined;
  }

  list(path: string): string[] {
    this.checkAlive();
    return [...this.directory(resolve(path)).names.keys()].sort();
  }

  makeDirectory(path: string): void {
    const full = resolve(path);
    this.begin('makeDirectory', full);
    const found = this.find(full);
    if (found instanceof Directory) return;
    if (found !== undefined) throw systemError('EEXIST', full);
    this.directory(dirname(full)).change([{ name: nameOf(full), leadsTo: new Directory() }]);
  }

  rename(from: string, to: string): void {
    const source = resolve(from);
    const target = resolve(to);
    this.begin('rename', source);
    const directory = this.directory(dirname(source));
    const leadsTo = directory.names.get(nameOf(source));
    if (leadsTo === undefined) throw systemError('ENOENT', source);
    // Across directories a crash could show both names or none; nothing in the store needs it.
    invariant(dirname(source) === dirname(target), 'files are renamed within their directory');
    directory.change([
      { name: nameOf(source), leadsTo: undefined },
      { name: nameOf(target), leadsTo },
    ]);
  }

  remove(path: string): void {
    const full = resolve(path);
    this.begin('remove', full);
    const directory = this.directory(dirname(full));
    if (!directory.names.has(nameOf(full))) throw systemError('ENOENT', full);
    directory.change([{ name: nameOf(full), leadsTo: undefined }]);
  }

  syncDirectory(path: string): void {
    const full = resolve(path);
    this.begin('syncDirectory', full);
    const directory = this.directory(full);
    if (!this.ignoreDirectorySync) directory.sync();
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
    const inode = this.find(full);
    if (!(inode instanceof Inode)) throw systemError('ENOENT', full);
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

  freeBytes(): number {
    const capacity = this.options.capacityBytes;
    return capacity === undefined ? Number.POSITIVE_INFINITY : capacity - this.usedBytes();
  }

  private find(full: string): Inode | Directory | undefined {
    let found: Inode | Directory | undefined = this.root;
    for (const name of full.split('/')) {
      if (name === '') continue;
      found = found instanceof Directory ? found.names.get(name) : undefined;
    }
    return found;
  }

  private directory(full: string): Directory {
    const found = this.find(full);
    if (found instanceof Directory) return found;
    throw systemError(found === undefined ? 'ENOENT' : 'ENOTDIR', full);
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
    const complete = this.inode.write(bytes, position, this.disk.freeBytes());
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

function directoryAfterCrash(directory: Directory, random: SeededRandom | undefined): Directory {
  const found = new Map(directory.durableNames);
  // File systems journal names in order: some prefix of the changes survives.
  const survivors = random === undefined ? 0 : random.integer(directory.unsynced.length + 1);
  for (const group of directory.unsynced.slice(0, survivors)) applyChanges(found, group);
  const copy = new Directory();
  const copies = new Map<Inode, Inode>();
  for (const [name, leadsTo] of found) {
    if (leadsTo instanceof Directory) {
      const inner = directoryAfterCrash(leadsTo, random);
      copy.names.set(name, inner);
      copy.durableNames.set(name, inner);
      continue;
    }
    const inode = copies.get(leadsTo) ?? leadsTo.afterCrash(random);
    copies.set(leadsTo, inode);
    copy.names.set(name, inode);
    copy.durableNames.set(name, inode);
  }
  return copy;
}

function pagesIn(directory: Directory): number {
  let pages = 0;
  for (const leadsTo of directory.names.values()) {
    pages += leadsTo instanceof Directory ? pagesIn(leadsTo) : leadsTo.occupiedPages;
  }
  return pages;
}

function applyChanges(names: Map<string, Inode | Directory>, group: readonly Change[]): void {
  for (const { name, leadsTo } of group) {
    if (leadsTo === undefined) names.delete(name);
    else names.set(name, leadsTo);
  }
}

function nameOf(full: string): string {
  return full.slice(full.lastIndexOf('/') + 1);
}

function systemError(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}
