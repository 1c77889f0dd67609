/**
 * The disk of the operating system, through synchronous `node:fs` calls.
 *
 * Rules kept here: a write is complete or it throws; a failed sync is never tried again, because the
 * kernel may have dropped the dirty pages and would report success the second time; a directory that
 * was made is durable with all its parents.
 *
 * `direct` files are opened with O_DIRECT|O_DSYNC: positions, lengths and memory addresses must then
 * be multiples of 4 KiB (memory of the WASM module is page-aligned). A file system that refuses
 * O_DIRECT gives a plain file with `direct: false`, written through the page cache.
 */
import {
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Disk, DiskFile, OpenOptions } from './disk.js';

/** Zero where the platform has no direct I/O; such a platform writes through the page cache. */
const DIRECT_FLAGS: number =
  process.platform === 'linux' ? constants.O_DIRECT | constants.O_DSYNC : 0;
const NEW_FILE_MODE = 0o640;
const NEW_DIRECTORY_MODE = 0o750;

export class NodeDisk implements Disk {
  open(path: string, options: OpenOptions): DiskFile {
    const flags =
      (options.access === 'write' ? constants.O_RDWR : constants.O_RDONLY) |
      (options.create === true ? constants.O_CREAT | constants.O_EXCL : 0);
    if (options.direct === true && options.access === 'write' && DIRECT_FLAGS !== 0) {
      const descriptor = openDirect(path, flags);
      if (descriptor !== undefined) return new NodeDiskFile(path, descriptor, true);
      // The refused open may have created the file already: Linux checks O_DIRECT after O_CREAT.
      const retryFlags = existsSync(path) ? flags & ~constants.O_EXCL : flags;
      return new NodeDiskFile(path, openSync(path, retryFlags, NEW_FILE_MODE), false);
    }
    return new NodeDiskFile(path, openSync(path, flags, NEW_FILE_MODE), false);
  }

  exists(path: string): boolean {
    return existsSync(path);
  }

  list(path: string): string[] {
    return readdirSync(path).sort();
  }

  makeDirectory(path: string): void {
    const firstMade = mkdirSync(path, { recursive: true, mode: NEW_DIRECTORY_MODE });
    if (firstMade === undefined) return;
    const top = dirname(resolve(firstMade));
    let parent = dirname(resolve(path));
    while (parent.length > top.length) {
      this.syncDirectory(parent);
      parent = dirname(parent);
    }
    this.syncDirectory(top);
  }

  rename(from: string, to: string): void {
    renameSync(from, to);
  }

  remove(path: string): void {
    unlinkSync(path);
  }

  syncDirectory(path: string): void {
    // Windows cannot open a directory; NTFS journals names by itself.
    if (process.platform === 'win32') return;
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  }

  readFile(path: string): Uint8Array {
    return readFileSync(path);
  }
}

/** Undefined when the file system refuses direct I/O. */
function openDirect(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags | DIRECT_FLAGS, NEW_FILE_MODE);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw error;
  }
}

class NodeDiskFile implements DiskFile {
  readonly path: string;
  readonly direct: boolean;
  private readonly descriptor: number;
  private open = true;
  private syncFailure: unknown;

  constructor(path: string, descriptor: number, direct: boolean) {
    this.path = path;
    this.descriptor = descriptor;
    this.direct = direct;
  }

  size(): number {
    this.check();
    return fstatSync(this.descriptor).size;
  }

  read(view: Uint8Array, position: number): number {
    this.check();
    let done = 0;
    while (done < view.length) {
      const count = readSync(this.descriptor, view, done, view.length - done, position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  write(view: Uint8Array, position: number): void {
    this.check();
    let done = 0;
    while (done < view.length) {
      const count = writeSync(this.descriptor, view, done, view.length - done, position + done);
      if (count === 0) throw systemError('EIO', `write to ${this.path} made no progress`);
      done += count;
    }
  }

  extend(bytes: number): void {
    this.check();
    ftruncateSync(this.descriptor, bytes);
  }

  dataSync(): void {
    this.check();
    if (this.direct) return;
    try {
      fdatasyncSync(this.descriptor);
    } catch (error) {
      this.syncFailure = error;
      throw error;
    }
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    closeSync(this.descriptor);
  }

  private check(): void {
    // A descriptor number is reused by the next open file: a late call would hit a stranger's bytes.
    if (!this.open) throw systemError('EBADF', `${this.path} is closed`);
    if (this.syncFailure !== undefined) throw this.syncFailure;
  }
}

function systemError(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}
