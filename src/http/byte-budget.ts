/**
 * Bytes that all requests together may hold, because many allowed ones at once are too much as well.
 */
import { HttpFailure, RETRY_AFTER } from './errors.js';

export class ByteBudget {
  private readonly what: string;
  private readonly maxBytes: number;
  private heldBytes = 0;

  /** `what` is held, in the plural. */
  constructor(what: string, maxBytes: number) {
    this.what = what;
    this.maxBytes = maxBytes;
  }

  /** @throws HttpFailure 429; nothing is taken then */
  take(bytes: number): void {
    if (this.heldBytes + bytes > this.maxBytes) {
      const message = `${this.what} would exceed ${this.maxBytes} bytes`;
      throw new HttpFailure(429, 'KEELSON_OVERLOADED', message, { headers: RETRY_AFTER });
    }
    this.heldBytes += bytes;
  }

  giveBack(bytes: number): void {
    this.heldBytes -= bytes;
  }
}
