/**
 * A disk as someone sees it who looks while a store writes: each call, and each sector of a read, meets it
 * at a later moment. An open file stays the same file, whatever its name is by then.
 */
import type { SeededRandom } from '../../dist/base/random.js';
import type { Disk, DiskFile, OpenOptions } from '../../dist/storage/disk.js';
import type { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { SECTOR_BYTES } from '../../dist/wasm/layout.js';

interface Moment {
  readonly disk: MemoryDisk;
  /** What the call before it has renamed. */
  readonly renamed: readonly [from: string, to: string] | undefined;
}

/** Passes calls on to a disk, and keeps what is on it after each one that changes it. */
export class RecordingDisk implements Disk {
  readonly moments: Moment[] = [];
  private readonly disk: MemoryDisk;

  constructor(disk: MemoryDisk) {
    this.disk = disk;
    this.note();
  }

  open(path: string, options: OpenOptions): DiskFile {
    const file = this.disk.open(path, options);
    if (options.access === 'read') return file;
    this.note();
    const note = (): void => this.note();
    return {
      path,
      direct: file.direct,
      size: () => file.size(),
      blockBytes: () => file.blockBytes(),
      read: (view, position) => file.read(view, position),
      write(view, position) {
        file.write(view, position);
        note();
      },
      extend(bytes) {
        file.extend(bytes);
        note();
      },
      shorten(bytes) {
        file.shorten(bytes);
        note();
      },
      dataSync: () => file.dataSync(),
      close: () => file.close(),
    };
  }

  exists(path: string): boolean {
    return this.disk.exists(path);
  }

  list(path: string): string[] {
    return this.disk.list(path);
  }

  makeDirectory(path: string): void {
    this.disk.makeDirectory(path);
    this.note();
  }

  rename(from: string, to: string): void {
    this.disk.rename(from, to);
    this.note([from, to]);
  }

  remove(path: string): void {
    this.disk.remove(path);
    this.note();
  }

  syncDirectory(path: string): void {
    this.disk.syncDirectory(path);
  }

  readFile(path: string): Uint8Array {
    return this.disk.readFile(path);
  }

  freeBytes(directory: string): number {
    return this.disk.freeBytes(directory);
  }

  private note(renamed?: Moment['renamed']): void {
    this.moments.push({ disk: this.disk.imageAfterKill(), renamed });
  }
}

export class PassingDisk implements Disk {
  private readonly moments: readonly Moment[];
  private readonly random: SeededRandom;
  /** The most moments that pass at once. */
  private readonly haste: number;
  private now: number;

  constructor(moments: readonly Moment[], random: SeededRandom, haste: number) {
    this.moments = moments;
    this.random = random;
    this.haste = haste;
    this.now = random.integer(moments.length);
  }

  open(path: string, options: OpenOptions): DiskFile {
    if (options.access !== 'read') return this.refuse();
    this.pass();
    const probe = this.disk.open(path, options);
    probe.close();
    return new PassingFile(this, path, this.now);
  }

  exists(path: string): boolean {
    this.pass();
    return this.disk.exists(path);
  }

  list(path: string): string[] {
    this.pass();
    return this.disk.list(path);
  }

  readFile(path: string): Uint8Array {
    this.pass();
    return this.disk.readFile(path);
  }

  makeDirectory(): void {
    this.refuse();
  }

  rename(): void {
    this.refuse();
  }

  remove(): void {
    this.refuse();
  }

  syncDirectory(): void {
    this.refuse();
  }

  freeBytes(): number {
    return this.refuse();
  }

  /** Some time goes by; the moment that it is then. */
  pass(): number {
    this.now = Math.min(this.now + this.random.integer(this.haste + 1), this.moments.length - 1);
    return this.now;
  }

  moment(at: number): Moment {
    return this.moments[at]!;
  }

  private get disk(): MemoryDisk {
    return this.moment(this.now).disk;
  }

  private refuse(): never {
    throw new Error('whoever looks changes nothing');
  }
}

class PassingFile implements DiskFile {
  readonly direct: boolean = false;
  readonly path: string;
  private readonly disk: PassingDisk;
  private name: string;
  private at: number;

  constructor(disk: PassingDisk, path: string, at: number) {
    this.disk = disk;
    this.path = path;
    this.name = path;
    this.at = at;
  }

  size(): number {
    return this.content().length;
  }

  blockBytes(): number {
    return this.size();
  }

  read(view: Uint8Array, position: number): number {
    let done = 0;
    while (done < view.length) {
      const bytes = this.content();
      const from = position + done;
      const to = Math.min(
        (Math.floor(from / SECTOR_BYTES) + 1) * SECTOR_BYTES,
        position + view.length,
        bytes.length,
      );
      if (to <= from) break;
      view.set(bytes.subarray(from, to), done);
      done += to - from;
    }
    return done;
  }

  write(): void {
    throw new Error('whoever looks writes nothing');
  }

  extend(): void {
    this.write();
  }

  shorten(): void {
    this.write();
  }

  dataSync(): void {
    this.write();
  }

  close(): void {}

  /** Of the file a little later, under the name that it has then; once it is removed, as it was. */
  private content(): Uint8Array {
    const until = this.disk.pass();
    while (this.at < until) {
      const next = this.disk.moment(this.at + 1);
      const { renamed } = next;
      const name = renamed?.[0] === this.name ? renamed[1] : this.name;
      if (!next.disk.exists(name)) break;
      this.name = name;
      this.at++;
    }
    return this.disk.moment(this.at).disk.readFile(this.name);
  }
}
