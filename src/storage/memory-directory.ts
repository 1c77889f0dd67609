/**
 * The names in one directory of the disk in memory: those that programs see, those that are durable,
 * and the changes between them. What a lost name led to is lost with it.
 */
import type { Survival } from './crash-survival.js';
import type { Inode } from './memory-inode.js';

interface Change {
  readonly name: string;
  /** Undefined when the name goes. */
  readonly leadsTo: Inode | Directory | undefined;
}

export class Directory {
  readonly names: Map<string, Inode | Directory> = new Map();
  private durableNames: Map<string, Inode | Directory> = new Map();
  /** Since the last sync, in order; a rename is one group of two. */
  private unsynced: (readonly Change[])[] = [];

  change(...group: readonly Change[]): void {
    applyChanges(this.names, group);
    this.unsynced.push(group);
  }

  sync(): void {
    for (const group of this.unsynced) applyChanges(this.durableNames, group);
    this.unsynced = [];
  }

  /** Pages of all files that have a name. */
  pages(): number {
    let pages = 0;
    for (const leadsTo of this.names.values()) {
      pages += leadsTo instanceof Directory ? leadsTo.pages() : leadsTo.occupiedPages;
    }
    return pages;
  }

  /** The directory as it is found after power loss. */
  afterCrash(survival: Survival): Directory {
    const found = new Map(this.durableNames);
    const survivors = survival.names(this.unsynced.length);
    for (const [place, group] of this.unsynced.entries()) {
      if (survivors[place] === true) applyChanges(found, group);
    }
    const copy = new Directory();
    const copies = new Map<Inode, Inode>();
    for (const [name, leadsTo] of found) {
      let survivor: Inode | Directory | undefined;
      if (leadsTo instanceof Directory) {
        survivor = leadsTo.afterCrash(survival);
      } else {
        // Only with a removal lost and a creation not, one file has two names.
        survivor = copies.get(leadsTo) ?? leadsTo.afterCrash(survival);
        copies.set(leadsTo, survivor);
      }
      copy.names.set(name, survivor);
      copy.durableNames.set(name, survivor);
    }
    return copy;
  }

  /** The same, unsynced changes included; what is changed in one is not changed in the other. */
  copy(copies: Map<Inode | Directory, Inode | Directory> = new Map()): Directory {
    const copyOf = (original: Inode | Directory): Inode | Directory => {
      let copy = copies.get(original);
      if (copy === undefined) {
        copy = original instanceof Directory ? original.copy(copies) : original.copy();
        copies.set(original, copy);
      }
      return copy;
    };
    const result = new Directory();
    for (const [name, leadsTo] of this.names) result.names.set(name, copyOf(leadsTo));
    for (const [name, leadsTo] of this.durableNames) {
      result.durableNames.set(name, copyOf(leadsTo));
    }
    result.unsynced = this.unsynced.map((group) =>
      group.map(({ name, leadsTo }) => ({
        name,
        leadsTo: leadsTo === undefined ? undefined : copyOf(leadsTo),
      })),
    );
    return result;
  }
}

function applyChanges(names: Map<string, Inode | Directory>, group: readonly Change[]): void {
  for (const { name, leadsTo } of group) {
    if (leadsTo === undefined) names.delete(name);
    else names.set(name, leadsTo);
  }
}
