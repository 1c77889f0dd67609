/**
 * The seam to the file system. All file access of the store goes through it, so that faults can be
 * injected and unsynced writes can be lost on purpose. Calls are synchronous: they run in worker
 * threads, or inline in a simulation. Errors are the system's own, with `code` (`ENOSPC`, `EIO`, …).
 */
export interface Disk {
  /**
   * `direct` asks for writes that bypass the page cache and are durable on return, where possible.
   * All reads and writes of a direct file are aligned to 4 KiB: position, length and address.
   */
  open(path: string, options: OpenOptions): DiskFile;
  exists(path: string): boolean;
  /** Names in a directory, sorted. */
  list(path: string): string[];
  /**
   * Makes a directory in one that is there; durable once that one is synced. Nothing happens when it is
   * there. See `makeDirectories`.
   */
  makeDirectory(path: string): void;
  rename(from: string, to: string): void;
  remove(path: string): void;
  /** Makes created, renamed and removed names in a directory durable, those of directories too. */
  syncDirectory(path: string): void;
  readFile(path: string): Uint8Array;
  /** What may still be written on the file system of a directory: an estimate, where others write too. */
  freeBytes(directory: string): number;
}

export interface OpenOptions {
  readonly access: 'read' | 'write';
  /** Create the file; it must not exist. */
  readonly create?: boolean;
  readonly direct?: boolean;
}

export interface DiskFile {
  readonly path: string;
  /** True when every write is durable on return, so that `dataSync` has nothing to do. */
  readonly direct: boolean;
  size(): number;
  /** How many bytes of the disk it takes up: without holes, the length of the file. */
  blockBytes(): number;
  /** Reads until the view is full or the file ends; returns the bytes read. */
  read(view: Uint8Array, position: number): number;
  /** Writes all bytes or throws. */
  write(view: Uint8Array, position: number): void;
  /** Makes the file longer; what is new reads as zero and has no blocks yet. Needs `dataSync`. */
  extend(bytes: number): void;
  /** Makes the file shorter: what stood behind is given back to the disk. Needs `dataSync`. */
  shorten(bytes: number): void;
  /** Makes what was written durable (fdatasync). An error here is final for the file. */
  dataSync(): void;
  close(): void;
}
