/**
 * The exports of the one WASM module, as `assembly/index.ts` declares them. All pointers are byte
 * offsets into the shared memory. Indexes, terms and times cross as f64 (exact below 2^53), so that
 * no call needs a BigInt. Every instance is stateless: all state lives at pointers passed in.
 */
export interface KeelsonExports {
  /** Writes the constant tables to CONSTANTS; once, by the creator of the memory. */
  writeConstants(): void;

  /**
   * Copies `length` bytes; the ranges may overlap. Several times as fast as `copyWithin` of a view of shared
   * memory. Checks no bounds.
   */
  copy(to: number, from: number, length: number): void;

  /** XXH3-64 (seed 0) of `length` bytes at `pointer`; writes the u64 to `out`. Checks no bounds. */
  xxh3(pointer: number, length: number, out: number): void;

  /**
   * Completes a block whose payloads already stand behind its item table, and whose items already
   * hold the length of their payload (ITEM.offset.length): writes the block header, all other fields
   * and the checksums. Returns the bytes of the block, or 0 when it would leave [block, block + room).
   */
  encodeBlock(
    block: number,
    room: number,
    group: number,
    count: number,
    firstIndex: number,
    term: number,
    time: number,
    kind: number,
  ): number;

  /**
   * Verifies the consecutive blocks in [pointer, pointer + length): structure, every checksum, group,
   * consecutive indexes from `expectedFirst` on, terms that never decrease, kinds of log entries,
   * safe integers. Reads nothing outside. Writes a summary to `out` (see BLOCKS_SUMMARY), at most `maxRuns` term runs and
   * `maxMarks` marks of entries of kind membership. Returns 0, or an error code (see VERIFY_ERROR).
   */
  verifyBlocks(
    pointer: number,
    length: number,
    group: number,
    expectedFirst: number,
    out: number,
    maxRuns: number,
    maxMarks: number,
  ): number;

  /**
   * The summary of one block that `verifyBatch` has found sound, moved or not: as `verifyBlocks` writes it.
   * Its checksums are not made again.
   */
  describeBlock(
    pointer: number,
    length: number,
    out: number,
    maxRuns: number,
    maxMarks: number,
  ): number;

  /**
   * Seals the batch at `batch`: blocks and hard states already stand behind the header room; computes
   * the checksums, writes the header, zeroes the padding and writes the repeated hard states.
   * `lsn`, `segment` and `epoch` cross as f64. Also stamps `lsn` into each hard state and seals it.
   * Returns the padded total length, or 0 when it would leave [batch, batch + room) or a flag is
   * unknown.
   */
  sealBatch(
    batch: number,
    room: number,
    flags: number,
    lane: number,
    lsn: number,
    segment: number,
    epoch: number,
    blocks: number,
    items: number,
    blocksLength: number,
    hardStates: number,
  ): number;

  /**
   * Verifies one batch in [pointer, pointer + available): header, body checksum, every item, hard
   * states, padding. Blocks may be moved ones (BLOCK_FLAG), which `verifyBlocks` refuses. Does not require consecutive indexes between blocks or a single group. Returns 0
   * or an error code.
   */
  verifyBatch(pointer: number, available: number): number;

  // The log index of one group: see src/wasm/log-index.ts, which is its only caller.
  /**
   * Appends the entries of consecutive blocks which stand at `pointer` and start at file position
   * `position` of `segment`; entries of the index from their first index on are replaced, and what is
   * purged is left out. Returns the new last index; 0 when the blocks are malformed or leave a gap; -1 when there is no room,
   * and then the descriptor says how many entries and runs the index must have room for
   * (`wantedEntries`, `wantedRuns`). Nothing is changed unless it succeeds.
   */
  indexAppendBlocks(
    descriptor: number,
    pointer: number,
    length: number,
    segment: number,
    position: number,
  ): number;
  /**
   * Entries up to `lastIndex` are in the log, but not in the index: segment 0, term 0. Returns 1, or -1
   * when there is no room, as `indexAppendBlocks` does.
   */
  indexSkip(descriptor: number, lastIndex: number): number;
  /**
   * The blocks at `pointer`, which stood from `fromPosition` on in `fromSegment`, stand in `segment` from
   * `position` on: moves the entries that the index still has at the old place. Returns the last of
   * them, 0 if there is none.
   */
  indexMoveBlocks(
    descriptor: number,
    pointer: number,
    length: number,
    fromSegment: number,
    fromPosition: number,
    segment: number,
    position: number,
  ): number;
  /**
   * The blocks at `pointer`, entries that the log has, stand in `segment` from `position` on, too: moves
   * the entries that the index has there. Nothing is moved unless all of these are of the same term in
   * the index, or of none. Returns the last of them, 0 if nothing was moved.
   */
  indexPlaceBlocks(
    descriptor: number,
    pointer: number,
    length: number,
    segment: number,
    position: number,
  ): number;
  /** Bytes of items and payloads of the entries from `firstIndex` up to `lastIndex`, all in the index. */
  indexBytes(descriptor: number, firstIndex: number, lastIndex: number): number;
  indexTruncateAfter(descriptor: number, lastIndex: number): void;
  /** Forgets the entries up to `lastIndex`, which is in the index. */
  indexPurge(descriptor: number, lastIndex: number): void;
  /**
   * From `firstIndex` up to `lastIndex` and `maxBytes` (at least one entry), writes coalesced extents
   * (see EXTENT) to `out`, at most `maxExtents`. Returns their count.
   */
  indexScan(
    descriptor: number,
    firstIndex: number,
    lastIndex: number,
    maxBytes: number,
    out: number,
    maxExtents: number,
  ): number;
  /** Term of an entry, or 0 when it is not in the index. */
  indexTerm(descriptor: number, index: number): number;
  /**
   * First index of the blocks that the index holds under another term; 0 if none. The blocks must
   * have been verified: it stops at the first that is malformed.
   */
  indexConflict(descriptor: number, pointer: number, length: number): number;
}

/** Tables at fixed addresses, which the creator of the memory writes and every instance reads. */
export const CONSTANTS = {
  /** Everything below belongs to the tables; pointer 0 stays invalid. */
  bytes: 256,
  offset: {
    secret: 64, // the 192 bytes of the XXH3 secret
  },
} as const;

/** What `verifyBlocks` writes. */
export const BLOCKS_SUMMARY = {
  bytes: 48,
  offset: {
    firstIndex: 0, // f64
    lastIndex: 8, // f64
    lastTerm: 16, // f64
    lastTime: 24, // f64
    items: 32, // u32
    runs: 36, // u32, count; then follow the runs, 16 bytes each: f64 first index, f64 term
    marks: 40, // u32, count; behind the room for maxRuns: 16 bytes each: f64 index, u32 payload pointer, u32 length
    blocks: 44, // u32
  },
} as const;

/** One coalesced range of entries in a segment file: their items and their payloads. */
export const EXTENT = {
  bytes: 32,
  offset: {
    segment: 0, // u32
    items: 4, // u32, count
    firstIndex: 8, // f64
    itemPosition: 16, // u32, file position of the first item
    payloadPosition: 20, // u32, file position of the first payload
    payloadLength: 24, // u32, bytes of all payloads
    reserved: 28, // u32
  },
} as const;

/** Return codes of the verifying calls; 0 is success. */
export const VERIFY_ERROR = {
  truncated: 1,
  magic: 2,
  version: 3,
  lengths: 4,
  group: 5,
  index: 6,
  term: 7,
  kind: 8,
  reserved: 9,
  headerChecksum: 10,
  bodyChecksum: 11,
  entryChecksum: 12,
  hardState: 13,
  padding: 14,
  tooManyRuns: 15,
  unsafeInteger: 16,
  tooManyMarks: 17,
} as const;

/**
 * State of the log index of one group: 16 bytes for an entry, in chunks, and the terms beside them as
 * runs. Slot 0 of the first chunk belongs to `base`; the entries before `firstIndex` are purged.
 */
export const INDEX_DESCRIPTOR = {
  bytes: 64,
  offset: {
    firstIndex: 0, // u64
    nextIndex: 8, // u64, last index + 1
    directory: 16, // u32, pointer to one u32 pointer per chunk
    chunks: 20, // u32, count
    runs: 24, // u32, pointer to TERM_RUN
    runCount: 28, // u32
    runCapacity: 32, // u32
    wantedEntries: 36, // u32, from `base` on
    wantedRuns: 40, // u32
    base: 48, // u64, at most `firstIndex`
    addedBytes: 56, // f64, items and payloads that the last append has added
  },
} as const;

export const INDEX_ENTRY = {
  bytes: 16,
  offset: {
    segment: 0, // u32
    itemPosition: 4, // u32, file position of the item
    payloadPosition: 8, // u32, file position of the payload
    length: 12, // u32, bytes of the payload
  },
} as const;

/** So few that a log of a handful of entries takes little. */
export const INDEX_CHUNK_ENTRIES = 32;

export const TERM_RUN = {
  bytes: 16,
  offset: {
    firstIndex: 0, // u64
    term: 8, // u64
  },
} as const;
