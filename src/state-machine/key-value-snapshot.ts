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
/** A key of `MAX_KEY_LENGTH` has room in an empty one. */
const CHUNK_BYTES = 64 * 1024;
/** Of one UTF-16 unit. */
const MAX_UTF8_BYTES = 3;
const TWO_TO_32 = 4_294_967_296;

/** Each chunk is a view that ends with the next step: memory of its own for each would keep the collector busy. */
export function* writeSnapshot(
  count: number,
  entries: Iterable<KeyValueEntry | undefined>,
): Generator<Uint8Array, void> {
  const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let filled = writeHead(chunk, 0, MAGIC, FORMAT, count);
  for (const entry of entries) {
    if (entry === undefined) {
      // Whoever asks for chunks may look at the clock between two of them.
      yield chunk.subarray(0, filled);
      filled = 0;
      continue;
    }
    const { key, value, version } = entry;
    if (filled + HEAD_BYTES + key.length * MAX_UTF8_BYTES > CHUNK_BYTES) {
      yield chunk.subarray(0, filled);
      filled = 0;
    }
    const keyBytes = chunk.write(key, filled + HEAD_BYTES, 'utf8');
    filled = writeHead(chunk, filled, keyBytes, value.length, version) + keyBytes;
    if (value.length > CHUNK_BYTES - filled) {
      yield chunk.subarray(0, filled);
      filled = 0;
    }
    if (value.length > CHUNK_BYTES) yield value;
    else {
      chunk.set(value, filled);
      filled += value.length;
    }
  }
  if (filled > 0) yield chunk.subarray(0, filled);
}

/** Yields the records of each chunk together: one by one they would cost more than their work. */
export async function* readSnapshot(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly KeyValueEntry[], void> {
  const source = chunks[Symbol.asyncIterator]();
  const reader = new ChunkReader(source);
  const [magic, format, count] = parseHead(await reader.take(HEAD_BYTES));
  if (magic !== MAGIC || format !== FORMAT) throw broken('it does not begin as one of version 1');
  let left = count;
  while (left > 0) {
    const entries: KeyValueEntry[] = [];
    while (left > 0) {
      const entry = reader.record();
      if (entry === undefined) break;
      entries.push(entry);
      left--;
    }
    yield entries;
    if (left > 0) await reader.more();
  }
  if (!(await reader.atEnd())) throw broken('bytes follow its last record');
}

/** Gives bytes in the lengths that are asked for, however the chunks are cut. */
class ChunkReader {
  private readonly chunks: AsyncIterator<Uint8Array>;
  private chunk: Uint8Array = new Uint8Array(0);
  private at = 0;
  /** Bytes that the record which is cut off by the end of the chunk has at least. */
  private wanted = 0;

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.chunks = chunks;
  }

  async take(length: number): Promise<Uint8Array> {
    this.wanted = length;
    while (this.chunk.length - this.at < length) await this.more();
    this.at += length;
    return this.chunk.subarray(this.at - length, this.at);
  }

  /** The next record, with a value of its own; undefined when it is not all there. */
  record(): KeyValueEntry | undefined {
    const { chunk, at } = this;
    this.wanted = HEAD_BYTES;
    if (chunk.length - at < HEAD_BYTES) return undefined;
    const [keyLength, valueLength, version] = parseHead(chunk.subarray(at, at + HEAD_BYTES));
    this.wanted = HEAD_BYTES + keyLength + valueLength;
    if (chunk.length - at < this.wanted) return undefined;
    const valueAt = at + HEAD_BYTES + keyLength;
    const key = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString(
      'utf8',
      at + HEAD_BYTES,
      valueAt,
    );
    this.at = valueAt + valueLength;
    return { key, value: new Uint8Array(chunk.subarray(valueAt, this.at)), version };
  }

  /** Adds chunks to what is left, until it has what is wanted. */
  async more(): Promise<void> {
    const pieces = [this.chunk.subarray(this.at)];
    let bytes = pieces[0]!.length;
    do {
      const { done, value } = await this.chunks.next();
      if (done === true) throw broken('it ends too early');
      pieces.push(value);
      bytes += value.length;
    } while (bytes < this.wanted);
    this.chunk =
      pieces[0]!.length === 0 && pieces.length === 2 ? pieces[1]! : Buffer.concat(pieces);
    this.at = 0;
  }

  async atEnd(): Promise<boolean> {
    if (this.at < this.chunk.length) return false;
    for (;;) {
      const { done, value } = await this.chunks.next();
      if (done === true) return true;
      if (value.length > 0) return false;
    }
  }
}

/** Returns where it ends. */
function writeHead(into: Buffer, at: number, first: number, second: number, third: number): number {
  into.writeUInt32LE(first, at);
  into.writeUInt32LE(second, at + 4);
  into.writeUInt32LE(third % TWO_TO_32, at + 8);
  into.writeUInt32LE(Math.floor(third / TWO_TO_32), at + 12);
  return at + HEAD_BYTES;
}

function parseHead(bytes: Uint8Array): [first: number, second: number, third: number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEAD_BYTES);
  const third = view.getUint32(8, true) + view.getUint32(12, true) * TWO_TO_32;
  return [view.getUint32(0, true), view.getUint32(4, true), third];
}

function broken(what: string): KeelsonError {
  return new KeelsonError('KEELSON_STORAGE_CORRUPT', `the key-value snapshot is damaged: ${what}`);
}
