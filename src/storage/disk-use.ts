/**
 * What the lanes of a store take of their one disk. Each must count what the others have queued and written: it
 * is not in the answer that it had from the disk before.
 */

/** A lane. */
export interface DiskUser {
  /** What it has taken and not yet written. */
  readonly queuedBytes: () => number;
  /** Another one has written something. */
  readonly othersTook: () => void;
}

export class DiskUse {
  /** By all lanes, in this run. */
  takenBytes = 0;
  private readonly users: DiskUser[] = [];

  get lanes(): number {
    return this.users.length;
  }

  /** In all lanes. */
  get queuedBytes(): number {
    let bytes = 0;
    for (const user of this.users) bytes += user.queuedBytes();
    return bytes;
  }

  join(user: DiskUser): void {
    this.users.push(user);
  }

  take(bytes: number, by: DiskUser): void {
    this.takenBytes += bytes;
    for (const user of this.users) if (user !== by) user.othersTook();
  }
}
