/**
 * A disk in memory that forgets what was not synced and fails on command, for simulations and tests.
 *
 * Files are durable up to their last `dataSync` (see memory-inode.ts), names up to the last
 * `syncDirectory` (memory-directory.ts). `crash` ends this disk, every later call on it or its files
 * throws, and returns the disk that is found after the power came back (crash-survival.ts). Calls fail,
 * lie or end the disk as disk-faults.ts says.
 */
import { dirname, resolve } from 'node:path';
import { invariant } from '../base/assert.js';
import type { CrashMode } from './crash-survival.js';
import { survivalOf } from './crash-survival.js';
import type { Disk, DiskFile, OpenOptions } from './disk.js';
import type { DiskCall, DiskFault, DiskOperation, LyingWrite } from './disk-faults.js';
import { DiskFaults, systemError } from './disk-faults.js';
import { Directory } from './memory-directory.js';
import { Inode, PAGE_BYTES } from './memory-inode.js';

export type { CrashMode } from './crash-survival.js';
export type { DiskCall, DiskFault, DiskOperation, LyingWrite } from './disk-faults.js';

export interface MemoryDiskOptions {
  /** False: a disk that refuses direct I/O. True by default. */
  readonly allowDirect?: boolean;
  /** Bytes that files may occupy; writes beyond fail with ENOSPC. Unlimited by default. */
  readonly capacityBytes?: number;
}

export class MemoryDisk implements Disk {
  /** Syncs report success and make nothing durable: a test of durability must fail with this on. */
  ignoreDataSync = false;
  /** The same for `syncDirectory`. */
  ignoreDirectorySync = false;
  /** May shrink, below what is occupied too, and grow again. */
  capacityBytes: number;
  readonly faults: DiskFaults = new DiskFaults();
  private readonly options: MemoryDiskOptions;
  private root: Directory = new Directory();

  constructor(options: MemoryDiskOptions = {}) {
    this.options = options;
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
  }

  /** How often each operation was called. */
  get calls(): Readonly<Record<DiskOperation, number>> {
    return this.faults.calls;
  }

  /** Makes a later call fail. */
  fail(fault: DiskFault): void {
    this.faults.fail(fault);
  }

  /** Makes a later write report success without having written what it was told, where it was told. */
  lie(fault: LyingWrite): void {
    this.faults.lie(fault);
  }

  clearFaults(): void {
    this.faults.clear();
  }

  /** From now on calls are recorded in the list that is returned. */
  recordCalls(): readonly DiskCall[] {
    this.faults.record = [];
    return this.faults.record;
  }

  /**
   * The power fails at the call of that number, counted from 1 over all calls of this disk: it and all
   * later ones throw. A write that was under way is among what is not synced, a direct one too.
   */
  crashAt(call: number): void {
    this.faults.crashAt(call);
  }

  /** Bytes in pages of all visible files; a hole has none. */
  usedBytes(): number {
    return this.root.pages() * PAGE_BYTES;
  }

  /** Power loss: this disk is dead afterwards, the result is what is found on it. */
  crash(mode: CrashMode = 'discard', seed = 1): MemoryDisk {
    this.faults.checkAlive();
    const image = this.imageAfterCrash(mode, seed);
    this.faults.die('this disk has crashed');
    return image;
  }

  /** The process dies, the machine goes on: the result has all that was written, synced or not. */
  kill(): MemoryDisk {
    this.faults.checkAlive();
    const image = this.imageAfterKill();
    this.faults.die('this disk has crashed');
    return image;
  }

  /** What would be found if the power failed now, or when it did; this disk is as before. */
  imageAfterCrash(mode: CrashMode = 'discard', seed = 1): MemoryDisk {
    return this.withRoot(this.root.afterCrash(survivalOf(mode, seed)));
  }

  /** What the next process would find if this one died now, or when it did. */
  imageAfterKill(): MemoryDisk {
    return this.withRoot(this.root.copy());
  }

  open(path: string, options: OpenOptions): DiskFile {
    const full = resolve(path);
    this.faults.begin('open', full, options.create === true);
    const directory = this.directory(dirname(full));
    const name = nameOf(full);
    let inode = directory.names.get(name);
    if (options.create === true) {
      if (inode !== undefined) throw systemError('EEXIST', full);
      inode = new Inode();
      directory.change({ name, leadsTo: inode });
    }
    if (inode === undefined) throw systemError('ENOENT', full);
    if (inode instanceof Directory) throw systemError('EISDIR', full);
    const writable = options.access === 'write';
    const direct = writable && options.direct === true && this.options.allowDirect !== false;
    return new MemoryDiskFile(this, full, inode, writable, direct);
  }

  exists(path: string): boolean {
    this.faults.checkAlive();
    return this.find(resolve(path)) !== undefined;
  }

  list(path: string): string[] {
    const full = resolve(path);
    this.faults.begin('list', full, false);
    return [...this.directory(full).names.keys()].sort();
  }

  makeDirectory(path: string): void {
    const full = resolve(path);
    this.faults.begin('makeDirectory', full, true);
    const found = this.find(full);
    if (found instanceof Directory) return;
    if (found !== undefined) throw systemError('EEXIST', full);
    this.directory(dirname(full)).change({ name: nameOf(full), leadsTo: new Directory() });
  }

  rename(from: string, to: string): void {
    const source = resolve(from);
    const target = resolve(to);
    this.faults.begin('rename', source, true);
    const directory = this.directory(dirname(source));
    const leadsTo = directory.names.get(nameOf(source));
    if (leadsTo === undefined) throw systemError('ENOENT', source);
    // Across directories a crash could show both names or none; nothing in the store needs it.
    invariant(dirname(source) === dirname(target), 'files are renamed within their directory');
    directory.change(
      { name: nameOf(source), leadsTo: undefined },
      { name: nameOf(target), leadsTo },
    );
  }

  remove(path: string): void {
    const full = resolve(path);
    this.faults.begin('remove', full, true);
    const directory = this.directory(dirname(full));
    if (!directory.names.has(nameOf(full))) throw systemError('ENOENT', full);
    directory.change({ name: nameOf(full), leadsTo: undefined });
  }

  syncDirectory(path: string): void {
    const full = resolve(path);
    this.faults.begin('syncDirectory', full, true);
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
    const inode = this.inodeOf(path);
    const bytes = new Uint8Array(length);
    inode.read(bytes, position);
    change(bytes);
    inode.write(bytes, position, Number.POSITIVE_INFINITY);
    inode.makeDurable();
  }

  freeBytes(directory = '/'): number {
    this.faults.begin('freeBytes', resolve(directory), false);
    return this.roomBytes();
  }

  /** Bytes that may still be occupied. */
  roomBytes(): number {
    if (this.capacityBytes === Number.POSITIVE_INFINITY) return this.capacityBytes;
    return Math.max(0, this.capacityBytes - this.usedBytes());
  }

  /** The bytes that a path leads to, whatever is told to fail. */
  inodeOf(path: string): Inode {
    const full = resolve(path);
    const inode = this.find(full);
    if (!(inode instanceof Inode)) throw systemError('ENOENT', full);
    return inode;
  }

  private withRoot(root: Directory): MemoryDisk {
    const image = new MemoryDisk({ ...this.options, capacityBytes: this.capacityBytes });
    image.root = root;
    return image;
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
}

class MemoryDiskFile implements DiskFile {
  readonly path: string;
  readonly direct: boolean;
  private readonly disk: MemoryDisk;
  private readonly inode: Inode;
  private readonly writable: boolean;
  private open = true;

  constructor(disk: MemoryDisk, path: string, inode: Inode, writable: boolean, direct: boolean) {
    this.disk = disk;
    this.path = path;
    this.inode = inode;
    this.writable = writable;
    this.direct = direct;
  }

  size(): number {
    this.check();
    this.disk.faults.begin('size', this.path, false);
    return this.inode.size;
  }

  blockBytes(): number {
    this.check();
    return this.inode.occupiedPages * PAGE_BYTES;
  }

  read(view: Uint8Array, position: number): number {
    this.check();
    this.disk.faults.begin('read', this.path, false);
    return this.inode.read(view, position);
  }

  write(view: Uint8Array, position: number): void {
    this.check();
    if (!this.writable) throw systemError('EBADF', this.path);
    if (this.direct && (position % PAGE_BYTES !== 0 || view.length % PAGE_BYTES !== 0)) {
      throw systemError('EINVAL', `${this.path}: direct writes are aligned to ${PAGE_BYTES} bytes`);
    }
    const { disk, path } = this;
    const fate = disk.faults.beginWrite(path, view.length);
    const inode = fate?.intoPath === undefined ? this.inode : disk.inodeOf(fate.intoPath);
    const bytes = fate === undefined ? view : view.subarray(0, fate.bytes);
    const place = position + (fate?.movedBytes ?? 0);
    const complete = inode.write(bytes, place, disk.roomBytes());
    if (fate?.error !== undefined) throw fate.error;
    if (this.direct && !disk.ignoreDataSync) inode.makeRangeDurable(place, place + bytes.length);
    if (!complete) throw systemError('ENOSPC', path);
  }

  extend(bytes: number): void {
    this.check();
    if (!this.writable) throw systemError('EBADF', this.path);
    this.disk.faults.begin('extend', this.path, true);
    this.inode.size = Math.max(this.inode.size, bytes);
  }

  shorten(bytes: number): void {
    this.check();
    if (!this.writable) throw systemError('EBADF', this.path);
    this.disk.faults.begin('shorten', this.path, true);
    if (bytes < this.inode.size) this.inode.shorten(bytes);
  }

  dataSync(): void {
    this.check();
    if (this.direct) return;
    try {
      this.disk.faults.begin('dataSync', this.path, true);
    } catch (error) {
      // As Linux does it: the pages are marked clean although they never reached the disk, and the
      // next sync reports success.
      if (!this.disk.faults.isDead) this.inode.forgetUnsynced();
      throw error;
    }
    if (!this.disk.ignoreDataSync) this.inode.makeDurable();
  }

  close(): void {
    this.open = false;
  }

  private check(): void {
    if (!this.open) throw systemError('EBADF', `${this.path} is closed`);
  }
}

function nameOf(full: string): string {
  return full.slice(full.lastIndexOf('/') + 1);
}
