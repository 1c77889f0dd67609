import { KeelsonError } from '../base/errors.js';

/**
 * Holds queries while a machine is restored, because half a state is none: they are answered from the
 * new one. When the restore fails, nothing is answered until another one has succeeded.
 */
const MAX_WAITING = 65_536;

export class RestoreGate {
  private restoring: Promise<void> | undefined;
  private waiting = 0;

  /** Whether queries are to `pass` first. */
  get isShut(): boolean {
    return this.restoring !== undefined;
  }

  async during(restore: () => Promise<void>): Promise<void> {
    const restoring = restore();
    this.restoring = restoring;
    await restoring;
    this.restoring = undefined;
  }

  /** @throws KeelsonError OVERLOADED, or why the restore failed */
  async pass(): Promise<void> {
    if (this.waiting >= MAX_WAITING) {
      const message = `${MAX_WAITING} queries wait until the state machine is restored`;
      throw new KeelsonError('KEELSON_OVERLOADED', `${message}; try again later`);
    }
    this.waiting++;
    try {
      await this.restoring;
    } finally {
      this.waiting--;
    }
  }
}
