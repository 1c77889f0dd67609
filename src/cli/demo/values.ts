/**
 * Keys and values of the demo. A value follows from its key and the run, so that reading back can
 * compare every byte without remembering any.
 */
export const KEY_PREFIX = 'demo/';
const SEQUENCE_DIGITS = 9;

/** Fixed width, so that the keys of a writer are ordered as it wrote them. */
export function keyOf(writer: number, sequence: number): string {
  return `${writerPrefix(writer)}${String(sequence).padStart(SEQUENCE_DIGITS, '0')}`;
}

export function writerPrefix(writer: number): string {
  return `${KEY_PREFIX}${String(writer).padStart(4, '0')}/`;
}

export function sequenceOf(key: string): number {
  return Number(key.slice(-SEQUENCE_DIGITS));
}

export class Values {
  readonly valueBytes: number;
  private readonly run: string;

  constructor(valueBytes: number, run: string) {
    this.valueBytes = valueBytes;
    this.run = run;
  }

  of(key: string): Buffer {
    return Buffer.alloc(this.valueBytes, `${key} ${this.run} `);
  }
}
