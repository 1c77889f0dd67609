/**
 * The bytes of one file of the disk in memory: durable pages of 4 KiB and a durable size, and over
 * them the pages and the size that were written since the last sync.
 *
 * A durable page is never changed in place, so a crash image shares pages with its origin.
 */
import type { Survival } from './crash-survival.js';

export const PAGE_BYTES = 4096;
/** What a disk writes as a whole; a page that was under way may be torn at one of these. */
const SECTOR_BYTES = 512;

/** Most pages of a segment are zero: they share this one. */
const ZERO_PAGE: Uint8Array = new Uint8Array(PAGE_BYTES);

export class Inode {
  size = 0;
  /** Pages that have been written; the others are a hole. */
  occupiedPages = 0;
  private durableSize = 0;
  private durable: Map<number, Uint8Array> = new Map();
  private unsynced: Map<number, Uint8Array> = new Map();
  /** Pages whose sync failed: read as written while the system runs, gone after a crash. */
  private lost: Map<number, Uint8Array> = new Map();

  read(view: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(view.length, this.size - position));
    let done = 0;
    while (done < length) {
      const place = position + done;
      const offset = place % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - offset, length - done);
      const page = this.page((place - offset) / PAGE_BYTES);
      view.set(page.subarray(offset, offset + count), done);
      done += count;
    }
    return length;
  }

  /** Writes as far as there is room; returns whether all was written. */
  write(view: Uint8Array, position: number, roomBytes: number): boolean {
    let room = roomBytes;
    let done = 0;
    while (done < view.length) {
      const place = position + done;
      const offset = place % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - offset, view.length - done);
      const number = (place - offset) / PAGE_BYTES;
      if (!this.isOccupied(number)) {
        if (room < PAGE_BYTES) break;
        room -= PAGE_BYTES;
        this.occupiedPages++;
      }
      this.writePage(number, offset, view.subarray(done, done + count));
      done += count;
    }
    if (done > 0) this.size = Math.max(this.size, position + done);
    return done === view.length;
  }

  /** What stood behind is gone once that is durable. */
  shorten(bytes: number): void {
    this.size = bytes;
    for (const pages of [this.unsynced, this.lost]) deleteFrom(pages, bytes);
    this.occupiedPages = [...this.durable.keys()].filter(
      (number) =>
        number * PAGE_BYTES < bytes && !this.unsynced.has(number) && !this.lost.has(number),
    ).length;
    this.occupiedPages += new Set([...this.unsynced.keys(), ...this.lost.keys()]).size;
  }

  makeDurable(): void {
    for (const number of this.unsynced.keys()) this.makePageDurable(number);
    if (this.size < this.durableSize) deleteFrom(this.durable, this.size);
    this.durableSize = this.size;
  }

  /** What a direct write does: nothing else of the file becomes durable with it. */
  makeRangeDurable(from: number, to: number): void {
    const end = Math.min(to, this.size);
    for (let number = Math.floor(from / PAGE_BYTES); number * PAGE_BYTES < end; number++) {
      this.makePageDurable(number);
    }
    this.durableSize = Math.max(this.durableSize, end);
  }

  forgetUnsynced(): void {
    for (const [number, page] of this.unsynced) this.lost.set(number, page);
    this.unsynced = new Map();
  }

  /** The file as it is found after power loss. */
  afterCrash(survival: Survival): Inode {
    const copy = new Inode();
    copy.durable = new Map(this.durable);
    copy.durableSize = survival.size() ? this.size : this.durableSize;
    copy.size = copy.durableSize;
    for (const [number, page] of this.unsynced) {
      const fate = survival.page();
      if (fate === 'lost') continue;
      copy.durable.set(number, fate === 'torn' ? this.torn(number, page, survival) : copyOf(page));
    }
    // What lies beyond the size that survived does not come back when the file grows again.
    deleteFrom(copy.durable, copy.size);
    copy.occupiedPages = copy.durable.size;
    return copy;
  }

  /** The same, unsynced pages included; what is changed in one is not changed in the other. */
  copy(): Inode {
    const copy = new Inode();
    copy.size = this.size;
    copy.occupiedPages = this.occupiedPages;
    copy.durableSize = this.durableSize;
    copy.durable = new Map(this.durable);
    for (const [number, page] of this.unsynced) copy.unsynced.set(number, changeable(page));
    copy.lost = new Map(this.lost);
    return copy;
  }

  private torn(number: number, page: Uint8Array, survival: Survival): Uint8Array {
    const mixed = copyOf(this.durable.get(number) ?? ZERO_PAGE);
    for (let offset = 0; offset < PAGE_BYTES; offset += SECTOR_BYTES) {
      if (survival.sector()) mixed.set(page.subarray(offset, offset + SECTOR_BYTES), offset);
    }
    return mixed;
  }

  private makePageDurable(number: number): void {
    const page = this.unsynced.get(number);
    if (page === undefined) return;
    this.durable.set(number, page);
    this.lost.delete(number);
    this.unsynced.delete(number);
  }

  private isOccupied(number: number): boolean {
    return this.unsynced.has(number) || this.lost.has(number) || this.durable.has(number);
  }

  private page(number: number): Uint8Array {
    return (
      this.unsynced.get(number) ?? this.lost.get(number) ?? this.durable.get(number) ?? ZERO_PAGE
    );
  }

  private writePage(number: number, offset: number, bytes: Uint8Array): void {
    if (bytes.length === PAGE_BYTES) {
      this.unsynced.set(number, Buffer.compare(bytes, ZERO_PAGE) === 0 ? ZERO_PAGE : copyOf(bytes));
      return;
    }
    let page = this.unsynced.get(number);
    if (page === undefined || page === ZERO_PAGE) {
      page = copyOf(this.page(number));
      this.unsynced.set(number, page);
    }
    page.set(bytes, offset);
  }
}

/** Forgets the pages that begin at `bytes` or behind. */
function deleteFrom(pages: Map<number, Uint8Array>, bytes: number): void {
  for (const number of pages.keys()) if (number * PAGE_BYTES >= bytes) pages.delete(number);
}

/** The page of zeros is shared and never changed. */
function changeable(page: Uint8Array): Uint8Array {
  return page === ZERO_PAGE ? page : copyOf(page);
}

function copyOf(bytes: Uint8Array): Uint8Array {
  // Not `slice`: on a Buffer that is a view of the same bytes.
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return copy;
}
