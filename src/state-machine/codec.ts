/**
 * How commands become bytes. A codec's `decode` gets a view that ends with the call, usually on shared
 * memory that is recycled later, so whatever it returns must be a copy.
 *
 * The msgpack codec is stateless: no record structures are learnt, so any entry decodes alone, on any
 * node, after any restart.
 */
import { Packr } from 'msgpackr';
import { checkPlainData } from './plain-data.js';
import type { Codec } from './state-machine.js';

/** Payloads up to this size are decoded through one reused buffer. */
const SCRATCH_BYTES = 64 * 1024;

const packr = new Packr({ useRecords: false, mapsAsObjects: true, copyBuffers: true });
const scratch = new Uint8Array(SCRATCH_BYTES);

/**
 * The default codec: any structured value, binary fields as Uint8Array. Binary fields of decoded
 * values are copies that the machine may keep. `encode` throws for what would not arrive (`checkPlainData`).
 */
export const msgpackCodec: Codec<unknown> = {
  encode(value: unknown): Uint8Array {
    checkPlainData(value);
    return packr.pack(value);
  },
  decode(bytes: Uint8Array): unknown {
    // The native string reader of msgpackr refuses shared memory with an exception for each string,
    // which costs 20 µs; a copy into private memory costs 0.1 µs.
    if (bytes.length > SCRATCH_BYTES) return packr.unpack(new Uint8Array(bytes));
    scratch.set(bytes);
    return packr.unpack(scratch, bytes.length);
  },
};

const EMPTY = new Uint8Array(0);

/** Commands are bytes already. `encode` passes them through, `decode` returns a copy. */
export const rawCodec: Codec<Uint8Array> = {
  encode(value: Uint8Array): Uint8Array {
    return value;
  },
  decode(bytes: Uint8Array): Uint8Array {
    return bytes.length === 0 ? EMPTY : new Uint8Array(bytes);
  },
};
