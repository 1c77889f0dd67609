import type { LogIndex } from '../engine/types.js';
import type { MachineHost } from '../state-machine/machine-host.js';
import type { EntriesLease, LogStore } from '../storage/log-store.js';

/**
 * Runs `Apply` commands: reads committed entries and hands them to the state machine, in order, with
 * a bounded number of batches under way. An entry is handed over once; entries that a durable machine
 * has applied in an earlier life are skipped.
 */
export interface ApplyLimits {
  readonly maxApplyEntries: number;
  readonly maxApplyBytes: number;
  readonly maxQueuedApplies: number;
}

export class ApplyLane {
  private readonly group: number;
  private readonly store: LogStore;
  private readonly machine: MachineHost;
  private readonly limits: ApplyLimits;
  private readonly onFailure: (error: unknown) => void;
  /** About how many bytes of entries were handed over. */
  handedBytes = 0;
  private next: LogIndex;
  private target: LogIndex;
  private underWay = 0;
  private reading = false;
  /** Reads that were begun before the last install are of a log that is gone. */
  private installs = 0;
  /** Restores the machine from an installed snapshot, when it has ended what it was given. */
  private restore: (() => void) | undefined;
  /** Nothing is handed over until the machine is restored. */
  private restoring = false;
  private stopped = false;

  constructor(
    group: number,
    store: LogStore,
    machine: MachineHost,
    limits: ApplyLimits,
    lastApplied: LogIndex,
    onFailure: (error: unknown) => void,
  ) {
    this.group = group;
    this.store = store;
    this.machine = machine;
    this.limits = limits;
    this.next = lastApplied + 1;
    this.target = lastApplied;
    this.onFailure = onFailure;
  }

  /** Everything up to `lastIndex` is committed and durable here. */
  extend(lastIndex: LogIndex): void {
    if (lastIndex > this.target) this.target = lastIndex;
    this.pump();
  }

  /** The machine has completed one batch. */
  completed(): void {
    this.underWay--;
    this.pump();
  }

  /**
   * A snapshot takes the place of all entries up to `index`. What was not handed over never will be;
   * `restore` is called when the machine has completed the rest, and `installed` follows.
   */
  install(index: LogIndex, restore: () => void): void {
    this.installs++;
    this.reading = false;
    this.next = index + 1;
    this.target = index;
    this.restore = restore;
    this.pump();
  }

  /** The machine is restored. */
  installed(): void {
    this.restoring = false;
    this.pump();
  }

  stop(): void {
    this.stopped = true;
  }

  private pump(): void {
    if (this.restore !== undefined) this.beginRestore(this.restore);
    while (
      !this.stopped &&
      !this.reading &&
      !this.restoring &&
      this.restore === undefined &&
      this.next <= this.target &&
      this.underWay < this.limits.maxQueuedApplies
    ) {
      const last = Math.min(this.target, this.next + this.limits.maxApplyEntries - 1);
      const read = this.store.read(this.group, this.next, last, this.limits.maxApplyBytes);
      if (read instanceof Promise) {
        this.reading = true;
        const { installs } = this;
        read.then(
          (lease) => {
            if (installs !== this.installs) {
              lease.release();
              return;
            }
            this.reading = false;
            this.dispatch(lease, last);
            this.pump();
          },
          (error: unknown) => {
            if (installs === this.installs) this.onFailure(error);
          },
        );
        return;
      }
      this.dispatch(read, last);
    }
  }

  private beginRestore(restore: () => void): void {
    if (this.stopped || this.restoring || this.underWay > 0) return;
    this.restore = undefined;
    this.restoring = true;
    restore();
  }

  private dispatch(lease: EntriesLease, lastWanted: LogIndex): void {
    if (!this.stopped) {
      const first = this.next;
      const last = Math.min(lease.lastIndex, lastWanted);
      this.next = last + 1;
      this.underWay++;
      this.handedBytes +=
        (lease.bytes * (last - first + 1)) / (lease.lastIndex - lease.firstIndex + 1);
      this.machine.apply(lease, first, last);
    }
    lease.release();
  }
}
