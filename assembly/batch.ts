/**
 * Encodes and verifies blocks and batches (layouts: src/wasm/layout.ts, contract: src/wasm/abi.ts).
 *
 * Whatever is verified came from a disk or a peer and is hostile until proven: sums of lengths are
 * u64, so that they cannot wrap, and nothing is read before its range is known to lie inside.
 * Checksums are compared before meanings, so that `kind` or `version` tells of newer software, not
 * of damage.
 */
import { hash, hash8And8, hash40And8 } from './checksum';
import * as L from './layout';

const KNOWN_FLAGS: u16 = L.BATCH_FLAG_CLEAN_SHUTDOWN | L.BATCH_FLAG_REPEATED | L.BATCH_FLAG_RECORDS;

/**
 * The end of what may be touched: of the given range, or of the memory when that ends before. Never
 * 2^32, so that every position up to it fits a pointer.
 */
export function rangeEnd(pointer: usize, length: u32): u64 {
  const memoryEnd = min<u64>((<u64>memory.size()) << 16, u32.MAX_VALUE);
  return min<u64>(<u64>pointer + <u64>length, memoryEnd);
}

export function encodeBlock(
  block: usize,
  room: u32,
  group: u32,
  count: u32,
  firstIndex: f64,
  term: f64,
  time: f64,
  kind: u32,
): u32 {
  const end = rangeEnd(block, room);
  let next = <u64>block + L.BLOCK_BYTES + <u64>count * L.ITEM_BYTES;
  if (count === 0 || next > end) return 0;
  const payloads = next;
  let index = <u64>firstIndex;
  let item = block + L.BLOCK_BYTES;
  for (let i: u32 = 0; i < count; i++) {
    const length = load<u32>(item, L.ITEM_OFFSET_LENGTH);
    const payload = <usize>next;
    next += length;
    if (next > end) return 0;
    store<u64>(item, index, L.ITEM_OFFSET_INDEX);
    store<u64>(item, <u64>term, L.ITEM_OFFSET_TERM);
    store<u64>(item, <u64>time, L.ITEM_OFFSET_TIME);
    store<u32>(item, group, L.ITEM_OFFSET_GROUP);
    store<u32>(item, kind, L.ITEM_OFFSET_KIND);
    store<u32>(item, 0, L.ITEM_OFFSET_RESERVED);
    store<u64>(item, hash40And8(item, hash(payload, length)), L.ITEM_OFFSET_CHECKSUM);
    index++;
    item += L.ITEM_BYTES;
  }
  store<u32>(block, L.BLOCK_MAGIC, L.BLOCK_OFFSET_MAGIC);
  store<u32>(block, group, L.BLOCK_OFFSET_GROUP);
  store<u32>(block, count, L.BLOCK_OFFSET_ITEMS);
  store<u32>(block, <u32>(next - payloads), L.BLOCK_OFFSET_PAYLOAD_LENGTH);
  store<u64>(block, <u64>firstIndex, L.BLOCK_OFFSET_FIRST_INDEX);
  store<u32>(block, 0, L.BLOCK_OFFSET_FLAGS);
  store<u32>(block, 0, L.BLOCK_OFFSET_RESERVED);
  return <u32>(next - block);
}

/** Where the block at `block` ends by its own word, or 0 when that is not before `end`. */
export function blockEnd(block: usize, end: u64): u64 {
  if (<u64>block + L.BLOCK_BYTES > end) return 0;
  const blockEnd =
    <u64>block +
    L.BLOCK_BYTES +
    <u64>load<u32>(block, L.BLOCK_OFFSET_ITEMS) * L.ITEM_BYTES +
    <u64>load<u32>(block, L.BLOCK_OFFSET_PAYLOAD_LENGTH);
  return blockEnd > end ? 0 : blockEnd;
}

/** Structure of the block header; its lengths have been checked by `blockEnd`. */
function verifyBlockHeader(block: usize, knownFlags: u32): u32 {
  if (load<u32>(block, L.BLOCK_OFFSET_MAGIC) !== L.BLOCK_MAGIC) return L.VERIFY_ERROR_MAGIC;
  if (load<u32>(block, L.BLOCK_OFFSET_FLAGS) & ~knownFlags) return L.VERIFY_ERROR_RESERVED;
  if (load<u32>(block, L.BLOCK_OFFSET_RESERVED) !== 0) return L.VERIFY_ERROR_RESERVED;
  if (load<u32>(block, L.BLOCK_OFFSET_ITEMS) === 0) return L.VERIFY_ERROR_LENGTHS;
  if (load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX) > L.MAX_SAFE_INTEGER) {
    return L.VERIFY_ERROR_UNSAFE_INTEGER;
  }
  return 0;
}

/** One item, whose payload of the length it states lies inside. */
function verifyItem(item: usize, payload: usize, group: u32, index: u64): u32 {
  const checksum = hash40And8(item, hash(payload, load<u32>(item, L.ITEM_OFFSET_LENGTH)));
  if (checksum !== load<u64>(item, L.ITEM_OFFSET_CHECKSUM)) return L.VERIFY_ERROR_ENTRY_CHECKSUM;
  if (load<u32>(item, L.ITEM_OFFSET_RESERVED) !== 0) return L.VERIFY_ERROR_RESERVED;
  if (load<u32>(item, L.ITEM_OFFSET_GROUP) !== group) return L.VERIFY_ERROR_GROUP;
  if (load<u64>(item, L.ITEM_OFFSET_INDEX) !== index) return L.VERIFY_ERROR_INDEX;
  // Term 0 is before every entry.
  if (load<u64>(item, L.ITEM_OFFSET_TERM) === 0) return L.VERIFY_ERROR_TERM;
  const unsafe =
    i32(index > L.MAX_SAFE_INTEGER) |
    i32(load<u64>(item, L.ITEM_OFFSET_TERM) > L.MAX_SAFE_INTEGER) |
    i32(load<u64>(item, L.ITEM_OFFSET_TIME) > L.MAX_SAFE_INTEGER);
  return unsafe ? L.VERIFY_ERROR_UNSAFE_INTEGER : 0;
}

export function verifyBlocks(
  pointer: usize,
  length: u32,
  group: u32,
  expectedFirst: f64,
  out: usize,
  maxRuns: u32,
  maxMarks: u32,
): u32 {
  return readBlocks(pointer, length, group, expectedFirst, out, maxRuns, maxMarks, false);
}

export function describeBlock(
  pointer: usize,
  length: u32,
  out: usize,
  maxRuns: u32,
  maxMarks: u32,
): u32 {
  const group = load<u32>(pointer, L.BLOCK_OFFSET_GROUP);
  const first = <f64>load<u64>(pointer, L.BLOCK_OFFSET_FIRST_INDEX);
  return readBlocks(pointer, length, group, first, out, maxRuns, maxMarks, true);
}

/** Of verified blocks no checksum is made. */
function readBlocks(
  pointer: usize,
  length: u32,
  group: u32,
  expectedFirst: f64,
  out: usize,
  maxRuns: u32,
  maxMarks: u32,
  verified: bool,
): u32 {
  const end = <u64>pointer + <u64>length;
  if (length === 0 || end !== rangeEnd(pointer, length)) return L.VERIFY_ERROR_TRUNCATED;
  const marksOut = out + L.BLOCKS_SUMMARY_BYTES + <usize>maxRuns * L.TERM_RUN_BYTES;
  let index = <u64>expectedFirst;
  let term: u64 = 0;
  let time: u64 = 0;
  let runs: u32 = 0;
  let marks: u32 = 0;
  let blocks: u32 = 0;
  let items: u32 = 0;
  let block = pointer;
  while (<u64>block < end) {
    const nextBlock = blockEnd(block, end);
    if (nextBlock === 0) return L.VERIFY_ERROR_TRUNCATED;
    if (!verified) {
      const headerError = verifyBlockHeader(block, 0);
      if (headerError) return headerError;
    }
    if (load<u32>(block, L.BLOCK_OFFSET_GROUP) !== group) return L.VERIFY_ERROR_GROUP;
    if (load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX) !== index) return L.VERIFY_ERROR_INDEX;
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    let item = block + L.BLOCK_BYTES;
    let payload = item + <usize>count * L.ITEM_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      const payloadLength = load<u32>(item, L.ITEM_OFFSET_LENGTH);
      if (<u64>payload + <u64>payloadLength > nextBlock) return L.VERIFY_ERROR_LENGTHS;
      if (!verified) {
        const itemError = verifyItem(item, payload, group, index);
        if (itemError) return itemError;
      }
      const itemTerm = load<u64>(item, L.ITEM_OFFSET_TERM);
      if (itemTerm !== term) {
        if (itemTerm < term) return L.VERIFY_ERROR_TERM;
        if (runs === maxRuns) return L.VERIFY_ERROR_TOO_MANY_RUNS;
        writePair(out + L.BLOCKS_SUMMARY_BYTES + <usize>runs * L.TERM_RUN_BYTES, index, itemTerm);
        runs++;
        term = itemTerm;
      }
      const kind = load<u32>(item, L.ITEM_OFFSET_KIND);
      if (kind !== L.ENTRY_KIND_APPLICATION) {
        if (kind === L.ENTRY_KIND_MEMBERSHIP) {
          if (marks === maxMarks) return L.VERIFY_ERROR_TOO_MANY_MARKS;
          const mark = marksOut + ((<usize>marks) << 4);
          store<f64>(mark, <f64>index, 0);
          store<u32>(mark, <u32>payload, 8);
          store<u32>(mark, payloadLength, 12);
          marks++;
        } else if (kind !== L.ENTRY_KIND_BLANK) {
          return L.VERIFY_ERROR_KIND;
        }
      }
      time = load<u64>(item, L.ITEM_OFFSET_TIME);
      payload += payloadLength;
      item += L.ITEM_BYTES;
      index++;
      items++;
    }
    if (<u64>payload !== nextBlock) return L.VERIFY_ERROR_LENGTHS;
    blocks++;
    block = <usize>nextBlock;
  }
  store<f64>(out, expectedFirst, L.BLOCKS_SUMMARY_OFFSET_FIRST_INDEX);
  store<f64>(out, <f64>(index - 1), L.BLOCKS_SUMMARY_OFFSET_LAST_INDEX);
  store<f64>(out, <f64>term, L.BLOCKS_SUMMARY_OFFSET_LAST_TERM);
  store<f64>(out, <f64>time, L.BLOCKS_SUMMARY_OFFSET_LAST_TIME);
  store<u32>(out, items, L.BLOCKS_SUMMARY_OFFSET_ITEMS);
  store<u32>(out, runs, L.BLOCKS_SUMMARY_OFFSET_RUNS);
  store<u32>(out, marks, L.BLOCKS_SUMMARY_OFFSET_MARKS);
  store<u32>(out, blocks, L.BLOCKS_SUMMARY_OFFSET_BLOCKS);
  return 0;
}

function writePair(out: usize, first: u64, second: u64): void {
  store<f64>(out, <f64>first, 0);
  store<f64>(out, <f64>second, 8);
}

function padded(length: u64): u64 {
  return (length + L.SECTOR_BYTES - 1) & ~(<u64>L.SECTOR_BYTES - 1);
}

/** Bytes of a batch whose blocks and hard states take `body` bytes. */
function paddedBatchLength(body: u64, hardStates: u32, repeated: bool): u64 {
  const once = padded(L.BATCH_BYTES + body);
  return repeated ? once + padded(<u64>hardStates * L.HARD_STATE_BYTES) : once;
}

/**
 * Of the headers and items of all blocks, and of the hard states behind them. The checksums of the
 * items cover the payloads: hashing them here would read every byte of the log a second time. It
 * ends early at a block that leaves its room, which `verifyBatchBlocks` refuses.
 */
function bodyChecksum(batch: usize, blocksLength: u32, stateBytes: usize): u64 {
  let block = batch + L.BATCH_BYTES;
  const states = block + blocksLength;
  let chained: u64 = 0;
  while (block < states) {
    const nextBlock = blockEnd(block, states);
    if (nextBlock === 0) break;
    const payloads = <usize>nextBlock - load<u32>(block, L.BLOCK_OFFSET_PAYLOAD_LENGTH);
    chained = hash8And8(chained, hash(block, payloads - block));
    block = <usize>nextBlock;
  }
  return hash8And8(chained, hash(states, stateBytes));
}

export function sealBatch(
  batch: usize,
  room: u32,
  flags: u32,
  lane: u32,
  lsn: f64,
  segment: f64,
  epoch: f64,
  blocks: u32,
  items: u32,
  blocksLength: u32,
  hardStates: u32,
): u32 {
  if (flags & ~(<u32>KNOWN_FLAGS)) return 0;
  const repeated = (flags & L.BATCH_FLAG_REPEATED) !== 0;
  const stateBytes = <u64>hardStates * L.HARD_STATE_BYTES;
  const body = <u64>blocksLength + stateBytes;
  const total = paddedBatchLength(body, hardStates, repeated);
  if (total > u32.MAX_VALUE || <u64>batch + total > rangeEnd(batch, room)) return 0;

  const states = batch + L.BATCH_BYTES + blocksLength;
  for (let i: u32 = 0; i < hardStates; i++) {
    const state = states + <usize>i * L.HARD_STATE_BYTES;
    store<u64>(state, <u64>lsn, L.HARD_STATE_OFFSET_LSN);
    store<u64>(state, <u64>epoch, L.HARD_STATE_OFFSET_EPOCH);
    store<u64>(state, hash(state, L.HARD_STATE_OFFSET_CHECKSUM), L.HARD_STATE_OFFSET_CHECKSUM);
  }

  memory.fill(batch, 0, L.BATCH_BYTES);
  store<u32>(batch, L.BATCH_MAGIC, L.BATCH_OFFSET_MAGIC);
  store<u16>(batch, L.BATCH_VERSION, L.BATCH_OFFSET_VERSION);
  store<u16>(batch, <u16>flags, L.BATCH_OFFSET_FLAGS);
  store<u32>(batch, lane, L.BATCH_OFFSET_LANE);
  store<u32>(batch, hardStates, L.BATCH_OFFSET_HARD_STATES);
  store<u64>(batch, <u64>lsn, L.BATCH_OFFSET_LSN);
  store<u64>(batch, <u64>segment, L.BATCH_OFFSET_SEGMENT);
  store<u64>(batch, <u64>epoch, L.BATCH_OFFSET_EPOCH);
  store<u32>(batch, blocksLength, L.BATCH_OFFSET_BLOCKS_LENGTH);
  store<u32>(batch, blocks, L.BATCH_OFFSET_BLOCKS);
  store<u32>(batch, items, L.BATCH_OFFSET_ITEMS);
  store<u32>(batch, <u32>total, L.BATCH_OFFSET_TOTAL_LENGTH);
  const checksum = bodyChecksum(batch, blocksLength, <usize>stateBytes);
  store<u64>(batch, checksum, L.BATCH_OFFSET_BODY_CHECKSUM);
  store<u64>(batch, hash(batch, L.BATCH_OFFSET_HEADER_CHECKSUM), L.BATCH_OFFSET_HEADER_CHECKSUM);

  const bodyEnd = batch + L.BATCH_BYTES + <usize>body;
  const once = <usize>padded(L.BATCH_BYTES + body);
  memory.fill(bodyEnd, 0, batch + once - bodyEnd);
  if (repeated) {
    memory.copy(batch + once, states, <usize>stateBytes);
    memory.fill(batch + once + <usize>stateBytes, 0, <usize>(total - once - stateBytes));
  }
  return <u32>total;
}

export function verifyBatch(batch: usize, available: u32): u32 {
  const end = rangeEnd(batch, available);
  if (<u64>batch + L.BATCH_BYTES > end) return L.VERIFY_ERROR_TRUNCATED;
  if (load<u32>(batch, L.BATCH_OFFSET_MAGIC) !== L.BATCH_MAGIC) return L.VERIFY_ERROR_MAGIC;
  const headerChecksum = hash(batch, L.BATCH_OFFSET_HEADER_CHECKSUM);
  if (headerChecksum !== load<u64>(batch, L.BATCH_OFFSET_HEADER_CHECKSUM)) {
    return L.VERIFY_ERROR_HEADER_CHECKSUM;
  }
  const headerError = verifyBatchHeader(batch);
  if (headerError) return headerError;

  const hardStates = load<u32>(batch, L.BATCH_OFFSET_HARD_STATES);
  const blocksLength = load<u32>(batch, L.BATCH_OFFSET_BLOCKS_LENGTH);
  const stateBytes = <u64>hardStates * L.HARD_STATE_BYTES;
  const body = <u64>blocksLength + stateBytes;
  const repeated = (load<u16>(batch, L.BATCH_OFFSET_FLAGS) & L.BATCH_FLAG_REPEATED) !== 0;
  const total = <u64>load<u32>(batch, L.BATCH_OFFSET_TOTAL_LENGTH);
  if (total !== paddedBatchLength(body, hardStates, repeated)) return L.VERIFY_ERROR_LENGTHS;
  if (<u64>batch + total > end) return L.VERIFY_ERROR_TRUNCATED;

  const checksum = bodyChecksum(batch, blocksLength, <usize>stateBytes);
  if (checksum !== load<u64>(batch, L.BATCH_OFFSET_BODY_CHECKSUM)) {
    return L.VERIFY_ERROR_BODY_CHECKSUM;
  }
  const blocksError = verifyBatchBlocks(batch, blocksLength);
  if (blocksError) return blocksError;

  const states = batch + L.BATCH_BYTES + blocksLength;
  const lsn = load<u64>(batch, L.BATCH_OFFSET_LSN);
  const epoch = load<u64>(batch, L.BATCH_OFFSET_EPOCH);
  for (let i: u32 = 0; i < hardStates; i++) {
    const stateError = verifyHardState(states + <usize>i * L.HARD_STATE_BYTES, lsn, epoch);
    if (stateError) return stateError;
  }
  const once = <usize>padded(L.BATCH_BYTES + body);
  const bodyEnd = <usize>L.BATCH_BYTES + <usize>body;
  if (!isZero(batch + bodyEnd, once - bodyEnd)) return L.VERIFY_ERROR_PADDING;
  if (repeated) {
    const length = <usize>stateBytes;
    if (memory.compare(batch + once, states, length) !== 0) return L.VERIFY_ERROR_HARD_STATE;
    if (!isZero(batch + once + length, <usize>total - once - length)) return L.VERIFY_ERROR_PADDING;
  }
  return 0;
}

/** What the header says of itself; its checksum has been verified. */
function verifyBatchHeader(batch: usize): u32 {
  if (load<u16>(batch, L.BATCH_OFFSET_VERSION) !== L.BATCH_VERSION) {
    return L.VERIFY_ERROR_VERSION;
  }
  if (load<u16>(batch, L.BATCH_OFFSET_FLAGS) & ~KNOWN_FLAGS) return L.VERIFY_ERROR_RESERVED;
  if (load<u64>(batch, L.BATCH_OFFSET_RESERVED) !== 0) return L.VERIFY_ERROR_RESERVED;
  const behindChecksum = L.BATCH_OFFSET_BODY_CHECKSUM + 8;
  if (!isZero(batch + behindChecksum, L.BATCH_OFFSET_HEADER_CHECKSUM - behindChecksum)) {
    return L.VERIFY_ERROR_RESERVED;
  }
  const unsafe =
    i32(load<u64>(batch, L.BATCH_OFFSET_LSN) > L.MAX_SAFE_INTEGER) |
    i32(load<u64>(batch, L.BATCH_OFFSET_SEGMENT) > L.MAX_SAFE_INTEGER) |
    i32(load<u64>(batch, L.BATCH_OFFSET_EPOCH) > L.MAX_SAFE_INTEGER);
  return unsafe ? L.VERIFY_ERROR_UNSAFE_INTEGER : 0;
}

/** The blocks of a batch: each consistent in itself, their counts as the header has them. */
function verifyBatchBlocks(batch: usize, blocksLength: u32): u32 {
  let block = batch + L.BATCH_BYTES;
  const end = <u64>block + <u64>blocksLength;
  let blocks: u32 = 0;
  let items: u64 = 0;
  while (<u64>block < end) {
    const nextBlock = blockEnd(block, end);
    if (nextBlock === 0) return L.VERIFY_ERROR_LENGTHS;
    const headerError = verifyBlockHeader(block, L.BLOCK_FLAG_MOVED);
    if (headerError) return headerError;
    const group = load<u32>(block, L.BLOCK_OFFSET_GROUP);
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    let index = load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX);
    let term: u64 = 0;
    let item = block + L.BLOCK_BYTES;
    let payload = item + <usize>count * L.ITEM_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      const payloadLength = load<u32>(item, L.ITEM_OFFSET_LENGTH);
      if (<u64>payload + <u64>payloadLength > nextBlock) return L.VERIFY_ERROR_LENGTHS;
      const itemError = verifyItem(item, payload, group, index);
      if (itemError) return itemError;
      const itemTerm = load<u64>(item, L.ITEM_OFFSET_TERM);
      if (itemTerm < term) return L.VERIFY_ERROR_TERM;
      if (!isKnownKind(load<u32>(item, L.ITEM_OFFSET_KIND))) return L.VERIFY_ERROR_KIND;
      term = itemTerm;
      payload += payloadLength;
      item += L.ITEM_BYTES;
      index++;
    }
    if (<u64>payload !== nextBlock) return L.VERIFY_ERROR_LENGTHS;
    items += count;
    blocks++;
    block = <usize>nextBlock;
  }
  const asStated =
    blocks === load<u32>(batch, L.BATCH_OFFSET_BLOCKS) &&
    items === <u64>load<u32>(batch, L.BATCH_OFFSET_ITEMS);
  return asStated ? 0 : L.VERIFY_ERROR_LENGTHS;
}

function isKnownKind(kind: u32): bool {
  return (
    (kind >= L.ENTRY_KIND_BLANK && kind <= L.ENTRY_KIND_MEMBERSHIP) ||
    (kind >= L.ENTRY_KIND_TRUNCATE_AFTER && kind <= L.ENTRY_KIND_RESET)
  );
}

function verifyHardState(state: usize, lsn: u64, epoch: u64): u32 {
  const damaged =
    load<u32>(state, L.HARD_STATE_OFFSET_MAGIC) !== L.HARD_STATE_MAGIC ||
    hash(state, L.HARD_STATE_OFFSET_CHECKSUM) !== load<u64>(state, L.HARD_STATE_OFFSET_CHECKSUM) ||
    load<u64>(state, L.HARD_STATE_OFFSET_LSN) !== lsn ||
    load<u64>(state, L.HARD_STATE_OFFSET_EPOCH) !== epoch;
  if (damaged) return L.VERIFY_ERROR_HARD_STATE;
  const reserved =
    (load<u32>(state, L.HARD_STATE_OFFSET_FLAGS) & ~1) |
    load<u32>(state, L.HARD_STATE_OFFSET_RESERVED);
  if (reserved !== 0) return L.VERIFY_ERROR_RESERVED;
  const unsafe =
    i32(load<u64>(state, L.HARD_STATE_OFFSET_TERM) > L.MAX_SAFE_INTEGER) |
    i32(load<u64>(state, L.HARD_STATE_OFFSET_VOTED_FOR) > L.MAX_SAFE_INTEGER) |
    i32(load<u64>(state, L.HARD_STATE_OFFSET_COMMITTED) > L.MAX_SAFE_INTEGER);
  return unsafe ? L.VERIFY_ERROR_UNSAFE_INTEGER : 0;
}

function isZero(pointer: usize, length: usize): bool {
  let bits: u64 = 0;
  const words = length & ~7;
  for (let offset: usize = 0; offset < words; offset += 8) bits |= load<u64>(pointer + offset);
  for (let offset = words; offset < length; offset++) bits |= <u64>load<u8>(pointer + offset);
  return bits === 0;
}
