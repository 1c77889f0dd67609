/**
 * The disk of the operating system, through synchronous `node:fs` calls.
 *
 * Rules kept here: a write is complete or it throws; a failed sync is never tried again, because the
 * kernel may have dropped the dirty pages and would report success the second time.
 *
 * `direct` files are opened with O_DIRECT|O_DSYNC: positions, lengths and memory addresses must then
 * be multiples of 4 KiB (memory of the WASM module is page-aligned). A file system that refuses
 * O_DIRECT gives a plain file with `direct: false`, written through the page cache.
 */
import {
  accessSync,
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
  statfsSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import type { Disk, DiskFile, OpenOptions } from './disk.js';

/** Zero where the platform has no direct I/O; such a platform writes through the page cache. */
const DIRECT_FLAGS: number =
  process.platform === 'linux' ? constants.O_DIRECT | constants.O_DSYNC : 0;
/** `stat` counts blocks in these, whatever the file system has. */
const STAT_BLOCK_BYTES = 512;
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
    try {
      mkdirSync(path, { mode: NEW_DIRECTORY_MODE });
    } catch (error) {
      if (codeOf(error) !== 'EEXIST' || !statSync(path).isDirectory()) throw error;
    }
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
    let descriptor: number;
    try {
      descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    } catch (error) {
      // Where this process may make no names, none of its are to be made durable.
      if (codeOf(error) === 'EACCES' && !isWritable(path)) return;
      throw error;
    }
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  }

  readFile(path: string): Uint8Array {
    return readFileSync(path);
  }

  freeBytes(directory: string): number {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  }
}

/** Undefined when the file system refuses direct I/O. */
function openDirect(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags | DIRECT_FLAGS, NEW_FILE_MODE);
  } catch (error) {
    if (codeOf(error) === 'EINVAL') return undefined;
    throw error;
  }
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EACCES') return false;
    throw error;
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
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

  blockBytes(): number {
    this.check();
    return fstatSync(this.descriptor).blocks * STAT_BLOCK_BYTES;
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

  shorten(bytes: number): void {
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
