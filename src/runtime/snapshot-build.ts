/**
 * One build of a snapshot: from the machine, piece by piece through one buffer that threads share, into
 * a file. It can be given up at any time, whatever hangs. A file that was being published then may still become
 * durable, and is told of.
 */
import type { KeelsonError } from '../base/errors.js';
import type { LogIndex } from '../engine/types.js';
import type { MachineHost, MachineSnapshot } from '../state-machine/machine-host.js';
import type { SnapshotHeader, SnapshotInfo } from '../storage/snapshot-format.js';
import type { SnapshotStore, SnapshotWriter } from '../storage/snapshot-store.js';

export interface SnapshotBuildParts {
  readonly machine: MachineHost;
  readonly snapshots: SnapshotStore;
  readonly chunkBytes: number;
  /** What the file is to say of itself; undefined when a newer snapshot has come meanwhile. */
  describe(lastIndex: LogIndex): SnapshotHeader | undefined;
  /** Bytes of the state that are written. */
  onProgress(bytes: number): void;
  /** It became durable after it was given up. */
  onLate(info: SnapshotInfo): void;
  /** What did not end as it should, beside the build or after it. */
  onLeftover(error: unknown): void;
}

export class SnapshotBuild {
  private readonly parts: SnapshotBuildParts;
  private reason: KeelsonError | undefined;
  /** Ends the wait for the present step. */
  private interrupt: ((reason: KeelsonError) => void) | undefined;

  constructor(parts: SnapshotBuildParts) {
    this.parts = parts;
  }

  /** `run` throws this. */
  giveUp(reason: KeelsonError): void {
    this.reason ??= reason;
    this.interrupt?.(this.reason);
  }

  /** Undefined when it is not needed any more. */
  async run(): Promise<SnapshotInfo | undefined> {
    const { machine, snapshots, describe } = this.parts;
    const begun = machine.snapshot();
    let created: Promise<SnapshotWriter> | undefined;
    let published: Promise<SnapshotInfo> | undefined;
    try {
      try {
        const source = await this.orGivenUp(begun);
        const header = describe(source.lastIndex);
        if (header === undefined) return undefined;
        created = snapshots.create(header);
        await this.copy(source, await this.orGivenUp(created));
      } finally {
        // Before the file is synced: applies may be waiting for it.
        begun.then((source) => source.end().catch(this.parts.onLeftover), toldByRun);
      }
      published = (await created).publish();
      return await this.orGivenUp(published);
    } catch (error) {
      if (error === this.reason) published?.then(this.parts.onLate, toldByRun);
      created?.then((writer) => writer.abort().catch(this.parts.onLeftover), toldByRun);
      throw error;
    }
  }

  private async copy(source: MachineSnapshot, writer: SnapshotWriter): Promise<void> {
    const { chunkBytes, onProgress } = this.parts;
    const buffer = new Uint8Array(new SharedArrayBuffer(chunkBytes));
    let bytes = 0;
    for (;;) {
      const filled = await this.orGivenUp(source.next(buffer));
      if (filled === undefined) return;
      if (filled === 0) continue;
      await this.orGivenUp(writer.append(buffer.subarray(0, filled)));
      bytes += filled;
      onProgress(bytes);
    }
  }

  private orGivenUp<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.interrupt = reject;
      work.then(resolve, reject);
      if (this.reason !== undefined) reject(this.reason);
    });
  }
}

/** It was given up, or `run` has thrown the same. */
function toldByRun(): void {}
