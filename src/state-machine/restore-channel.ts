/**
 * The chunks of a snapshot on their way into `restore()` of a machine in a worker: one at a time, the next
 * is asked for only when the machine has taken the one before.
 */
import { machineThrew } from './machine-fault.js';
import type { AnyStateMachine } from './state-machine.js';

export class RestoreChannel {
  private readonly restored: Promise<void>;
  private chunk: Uint8Array | undefined;
  /** The source has no more chunks, or failed. */
  private ended = false;
  private failure: Error | undefined;
  /** The machine waits for a chunk. */
  private wake: (() => void) | undefined;
  /** Whoever gave the last chunk waits until the machine has taken it. */
  private taken: (() => void) | undefined;

  constructor(machine: AnyStateMachine) {
    this.restored = this.restore(machine);
    // `push` or `finish` tells.
    this.restored.catch(toldLater);
  }

  /** Resolves when the machine has asked for it. @throws KeelsonError STATE_MACHINE_FAILED */
  async push(bytes: Uint8Array): Promise<void> {
    const taken = new Promise<void>((resolve) => {
      this.taken = resolve;
    });
    this.chunk = bytes;
    this.wake?.();
    await Promise.race([taken, this.restored]);
  }

  /** There is no more. Resolves when the machine is restored. @throws KeelsonError STATE_MACHINE_FAILED */
  async finish(): Promise<void> {
    this.ended = true;
    this.wake?.();
    await this.restored;
  }

  /** The source has failed; the machine hears of it, and holds nothing that can be used. */
  async fail(failure: Error): Promise<void> {
    this.failure = failure;
    this.ended = true;
    this.wake?.();
    await this.restored.catch(toldLater);
  }

  private async restore(machine: AnyStateMachine): Promise<void> {
    try {
      await machine.restore(this.chunks());
    } catch (error) {
      throw machineThrew('restore', error);
    }
  }

  private async *chunks(): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      if (this.chunk !== undefined) {
        const { chunk } = this;
        this.chunk = undefined;
        this.taken?.();
        yield chunk;
      } else if (this.ended) {
        if (this.failure !== undefined) throw this.failure;
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    }
  }
}

function toldLater(): void {}
