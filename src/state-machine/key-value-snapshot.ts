/**
 * The snapshot of the key-value machine, in chunks of about 64 KiB that may be cut anywhere.
 * All numbers are little-endian.
 *
 * | part   | layout                                                                    |
 * |--------|---------------------------------------------------------------------------|
 * | header | u32 magic "KLV1", u32 version, u64 count of records                       |
 * | record | u32 key bytes, u32 value bytes, u64 version, key in UTF-8, value; by key  |
 */
import { KeelsonError } from '../base/errors.js';
import type { KeyValueEntry } from './key-value.js';

const MAGIC = 0x3156_4c4b;
const FORMAT = 1;
const HEAD_BYTES = 16;
const CHUNK_BYTES = 64 * 1024;
const TWO_TO_32 = 4_294_967_296;

export function* writeSnapshot(
  count: number,
  entries: Iterable<KeyValueEntry>,
): Generator<Uint8Array, void> {
  let pieces: Uint8Array[] = [head(MAGIC, FORMAT, count)];
  let bytes = HEAD_BYTES;
  for (const { key, value, version } of entries) {
    const keyBytes = Buffer.from(key, 'utf8');
    pieces.push(head(keyBytes.length, value.length, version), keyBytes, value);
    bytes += HEAD_BYTES + keyBytes.length + value.length;
    if (bytes >= CHUNK_BYTES) {
      yield Buffer.concat(pieces);
      pieces = [];
      bytes = 0;
    }
  }
  if (bytes > 0) yield Buffer.concat(pieces);
}

export async function* readSnapshot(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<KeyValueEntry, void> {
  const reader = new ChunkReader(chunks);
  const [magic, format, count] = parseHead(await reader.take(HEAD_BYTES));
  if (magic !== MAGIC || format !== FORMAT) throw broken('it does not begin as one of version 1');
  for (let record = 0; record < count; record++) {
    const [keyLength, valueLength, version] = parseHead(await reader.take(HEAD_BYTES));
    const key = Buffer.from(await reader.take(keyLength)).toString('utf8');
    const value = new Uint8Array(await reader.take(valueLength));
    yield { key, value, version };
  }
  if (!(await reader.atEnd())) throw broken('bytes follow its last record');
}

/** Gives bytes in the lengths that are asked for, however the chunks are cut. */
class ChunkReader {
  private readonly chunks: AsyncIterator<Uint8Array>;
  private chunk: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.chunks = chunks[Symbol.asyncIterator]();
  }

  /** A view, or bytes put together from several chunks. */
  async take(length: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let missing = length;
    while (missing > this.chunk.length) {
      pieces.push(this.chunk);
      missing -= this.chunk.length;
      if (!(await this.advance())) throw broken('it ends too early');
    }
    const piece = this.chunk.subarray(0, missing);
    this.chunk = this.chunk.subarray(missing);
    return pieces.length === 0 ? piece : Buffer.concat([...pieces, piece]);
  }

  async atEnd(): Promise<boolean> {
    while (this.chunk.length === 0) if (!(await this.advance())) return true;
    return false;
  }

  private async advance(): Promise<boolean> {
    const { done, value } = await this.chunks.next();
    if (done !== true) this.chunk = value;
    return done !== true;
  }
}

function head(first: number, second: number, third: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEAD_BYTES);
  bytes.writeUInt32LE(first, 0);
  bytes.writeUInt32LE(second, 4);
  bytes.writeUInt32LE(third % TWO_TO_32, 8);
  bytes.writeUInt32LE(Math.floor(third / TWO_TO_32), 12);
  return bytes;
}

function parseHead(bytes: Uint8Array): [first: number, second: number, third: number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEAD_BYTES);
  const third = view.getUint32(8, true) + view.getUint32(12, true) * TWO_TO_32;
  return [view.getUint32(0, true), view.getUint32(4, true), third];
}

function broken(what: string): KeelsonError {
  return new KeelsonError('KEELSON_STORAGE_CORRUPT', `the key-value snapshot is damaged: ${what}`);
}
