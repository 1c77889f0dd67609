/**
 * What goes wrong at which call of the disk in memory: calls that fail, writes that lie, and the call
 * at which the power fails. Every call has a number, so that a run can be cut at each of them in turn.
 */

export type DiskOperation =
  | 'open'
  | 'size'
  | 'list'
  | 'read'
  | 'write'
  | 'extend'
  | 'shorten'
  | 'dataSync'
  | 'rename'
  | 'remove'
  | 'makeDirectory'
  | 'syncDirectory'
  | 'freeBytes';

interface FaultPlace {
  /** Strikes the nth matching call from now on; 1 is the next one. */
  readonly nth: number;
  /** Only calls on paths that contain this count. */
  readonly pathIncludes?: string;
  /** Later matching calls are struck as well. */
  readonly sticky?: boolean;
}

/** The call throws. */
export interface DiskFault extends FaultPlace {
  readonly operation: DiskOperation;
  /** Code of the system error: `EIO`, `ENOSPC`, … */
  readonly code: string;
  /** For writes: that many bytes are written before the error. */
  readonly partialBytes?: number;
}

/** A write reports success, and yet its bytes did not all arrive where they belong. */
export interface LyingWrite extends FaultPlace {
  /** Misdirected: they stand that many bytes further on in the file, or before. */
  readonly movedBytes?: number;
  /** Misdirected: they stand in that file, which is there. */
  readonly intoPath?: string;
  /** Short: only so many of them were written. */
  readonly arrivingBytes?: number;
}

export interface DiskCall {
  /** From 1, over all calls of the disk. */
  readonly number: number;
  readonly operation: DiskOperation;
  readonly path: string;
  /** False when the disk is the same before and after it: no use in cutting a run there. */
  readonly changes: boolean;
}

/** What a write does that is not left alone; nothing of it is durable when it has an error. */
export interface WriteFate {
  readonly bytes: number;
  readonly movedBytes: number;
  readonly intoPath?: string | undefined;
  readonly error: NodeJS.ErrnoException | undefined;
}

interface Pending<T> {
  readonly fault: T;
  remaining: number;
}

export class DiskFaults {
  readonly calls: Record<DiskOperation, number> = {
    open: 0,
    size: 0,
    list: 0,
    read: 0,
    write: 0,
    extend: 0,
    shorten: 0,
    dataSync: 0,
    rename: 0,
    remove: 0,
    makeDirectory: 0,
    syncDirectory: 0,
    freeBytes: 0,
  };
  /** All calls so far, while they are recorded. */
  record: DiskCall[] | undefined;
  private callNumber = 0;
  private failing: Pending<DiskFault>[] = [];
  private lying: Pending<LyingWrite>[] = [];
  private crashNumber = Number.POSITIVE_INFINITY;
  private dead: string | undefined;

  fail(fault: DiskFault): void {
    this.failing.push({ fault, remaining: fault.nth });
  }

  lie(fault: LyingWrite): void {
    this.lying.push({ fault, remaining: fault.nth });
  }

  clear(): void {
    this.failing = [];
    this.lying = [];
  }

  /** The power fails at the call of that number, before it has done anything. */
  crashAt(number: number): void {
    this.crashNumber = number;
  }

  /** Every later call fails. */
  die(reason: string): void {
    this.dead ??= reason;
  }

  /** True once the power has failed. */
  get isDead(): boolean {
    return this.dead !== undefined;
  }

  checkAlive(): void {
    if (this.dead !== undefined) throw systemError('EIO', this.dead);
  }

  /** Counts a call; throws when it is to fail. */
  begin(operation: DiskOperation, path: string, changes: boolean): void {
    const powerFailure = this.count(operation, path, changes);
    if (powerFailure !== undefined) throw powerFailure;
    const fault = take(this.failing, path, (each) => each.operation === operation);
    if (fault !== undefined) throw systemError(fault.code, path);
  }

  /** Counts a write; says what is to become of its bytes, or undefined when it is left alone. */
  beginWrite(path: string, bytes: number): WriteFate | undefined {
    const powerFailure = this.count('write', path, true);
    if (powerFailure !== undefined) return { bytes, movedBytes: 0, error: powerFailure };
    const { failing, lying } = this;
    if (failing.length === 0 && lying.length === 0) return undefined;
    const fault = take(failing, path, (each) => each.operation === 'write');
    if (fault !== undefined) {
      const error = systemError(fault.code, path);
      return { bytes: Math.min(bytes, fault.partialBytes ?? 0), movedBytes: 0, error };
    }
    const lie = take(lying, path, () => true);
    if (lie === undefined) return undefined;
    const arriving = Math.min(bytes, lie.arrivingBytes ?? bytes);
    const { movedBytes = 0, intoPath } = lie;
    return { bytes: arriving, movedBytes, intoPath, error: undefined };
  }

  /** Returns what is thrown when the power fails at this call. */
  private count(
    operation: DiskOperation,
    path: string,
    changes: boolean,
  ): NodeJS.ErrnoException | undefined {
    this.checkAlive();
    this.calls[operation]++;
    this.callNumber++;
    const number = this.callNumber;
    this.record?.push({ number, operation, path, changes });
    if (number < this.crashNumber) return undefined;
    this.die(`the power failed at call ${number}, ${operation} ${path}`);
    return systemError('EIO', this.dead!);
  }
}

export function systemError(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}

/** The first that is due, which then goes unless it is sticky; those that match come closer. */
function take<T extends FaultPlace>(
  pending: Pending<T>[],
  path: string,
  matches: (fault: T) => boolean,
): T | undefined {
  for (const entry of pending) {
    const { fault } = entry;
    if (!matches(fault) || !path.includes(fault.pathIncludes ?? '')) continue;
    entry.remaining--;
    if (entry.remaining > 0) continue;
    if (fault.sticky !== true) pending.splice(pending.indexOf(entry), 1);
    return fault;
  }
  return undefined;
}
