/**
 * Every layout that bytes have on disk, on the wire and in shared memory. One place defines them;
 * `assembly/`, the TypeScript readers and docs/storage-format.md agree because tests compare them.
 * All numbers are little-endian; u64 values are safe integers (below 2^53) and larger ones are
 * refused on decode.
 *
 * ```
 * batch    the unit of sync; starts on a 4 KiB boundary, zero-padded to one
 *          [batch header 128][block]…[hard state 64]…[zero padding][hard state 64, again]…[padding]
 * block    the unit of encoding: what one turn of the event loop brought; the same bytes go to disk
 *          and to the followers' sockets
 *          [block header 32][item 48]…[payload]…
 * ```
 *
 * A block is not padded and not aligned. The repeated hard states exist only when a vote changed;
 * they start on the last 4 KiB boundary that gives them a block (or blocks) of their own.
 */

export const SECTOR_BYTES = 4096;

/** Batch header. */
export const BATCH = {
  bytes: 128,
  magic: 0x31424c4b, // "KLB1"
  version: 1,
  offset: {
    magic: 0, // u32
    version: 4, // u16
    flags: 6, // u16, see BATCH_FLAG
    lane: 8, // u32
    hardStates: 12, // u32, count (each is written twice when REPEATED is set)
    lsn: 16, // u64, byte position in the lane
    segment: 24, // u64, sequence number of the segment
    epoch: 32, // u64, random, of this use of the segment (52 bits)
    blocksLength: 40, // u32, bytes of all blocks
    blocks: 44, // u32, count
    items: 48, // u32, count over all blocks
    totalLength: 52, // u32, bytes of the batch with padding
    reserved: 56, // u64, zero
    bodyChecksum: 64, // u64, of block headers, items and hard states, chained (see storage-format.md)
    // 72..119 zero
    headerChecksum: 120, // u64, XXH3-64 of [0, 120)
  },
} as const;

export const BATCH_FLAG = {
  /** Last batch of an orderly close: a bad tail behind it is proven loss. */
  cleanShutdown: 1,
  /** A vote changed: the hard states stand a second time in the last sector(s). */
  repeated: 2,
  /** Among its blocks are records that purge or reset a log. */
  records: 4,
} as const;

/** Header of a block. Not checksummed: its items verify alone, its lengths must add up exactly. */
export const BLOCK = {
  bytes: 32,
  magic: 0x314b4c4b, // "KLK1"
  offset: {
    magic: 0, // u32
    group: 4, // u32
    items: 8, // u32, count, at least 1
    payloadLength: 12, // u32, bytes of all payloads
    firstIndex: 16, // u64, index of the first item; items are consecutive
    flags: 24, // u32, see BLOCK_FLAG
    reserved: 28, // u32, zero
  },
} as const;

export const BLOCK_FLAG = {
  /** A second copy of entries that the log has: it takes their place, and nothing behind them goes. */
  moved: 1,
} as const;

/** One entry (or record): fixed size, verifies alone together with its payload. */
export const ITEM = {
  bytes: 48,
  offset: {
    index: 0, // u64
    term: 8, // u64, at least 1
    time: 16, // u64, ms since the epoch, assigned by the leader, never decreasing along the log
    group: 24, // u32
    length: 28, // u32, bytes of the payload
    kind: 32, // u32, see ENTRY_KIND
    reserved: 36, // u32, zero
    checksum: 40, // u64, XXH3-64 of [0, 40) followed by the XXH3-64 of the payload (48 bytes)
  },
} as const;

/** Kinds below 128 are log entries, others are records of the log itself. */
export const ENTRY_KIND = {
  blank: 1,
  application: 2,
  membership: 3,
  /** The log ends at `index`; a record, written where nothing is appended in its place. */
  truncateAfter: 128,
  /** The entries up to `index`, which has `term`, are purged: a snapshot holds them. */
  purge: 129,
  /** The log begins anew behind `index`, which has `term`: a snapshot took its place. */
  reset: 130,
} as const;

/** Term, vote and commit of one group; verifies alone. */
export const HARD_STATE = {
  bytes: 64,
  magic: 0x3148_4c4b, // "KLH1"
  offset: {
    magic: 0, // u32
    group: 4, // u32
    term: 8, // u64
    votedFor: 16, // u64, node id, 0 = nobody
    flags: 24, // u32, 1 = the vote is committed (that node leads the term)
    reserved: 28, // u32, zero
    committed: 32, // u64, never beyond the last index durable with it
    lsn: 40, // u64, of the batch that carries it
    epoch: 48, // u64, of the segment: what an earlier use of the file left is never believed
    checksum: 56, // u64, XXH3-64 of [0, 56)
  },
} as const;

/**
 * First sector of a segment file; the checkpoint follows in the next sectors, then the batches. LSN
 * of a batch = `startLsn` + its position in the file.
 */
export const SEGMENT = {
  bytes: 128,
  magic: 0x31534c4b, // "KLS1"
  version: 1,
  offset: {
    magic: 0, // u32
    version: 4, // u16
    flags: 6, // u16, see SEGMENT_FLAG
    lane: 8, // u32
    groups: 12, // u32, count of the checkpoint's records
    sequence: 16, // u64, of the segment in its lane, from 1
    epoch: 24, // u64, random (52 bits), renewed at each use of the file
    startLsn: 32, // u64
    prevEnd: 40, // u64, LSN at which the previous segment ended: bytes beyond it there are dead
    fileBytes: 48, // u64
    dataStart: 56, // u64, position of the first batch: behind the checkpoint, on a sector boundary
    oldest: 64, // u64, sequence of the oldest segment that is needed: those before it may be gone
    // 72..119 zero
    headerChecksum: 120, // u64, XXH3-64 of [0, 120)
  },
} as const;

export const SEGMENT_FLAG = {
  /** The file was a segment before: behind the batches stand bytes of that use, not zeros. */
  recycled: 1,
} as const;

/** State of one group after all earlier batches of the lane; verifies alone. */
export const CHECKPOINT = {
  bytes: 128,
  magic: 0x31434c4b, // "KLC1"
  offset: {
    magic: 0, // u32
    group: 4, // u32
    term: 8, // u64
    votedFor: 16, // u64, node id, 0 = nobody
    flags: 24, // u32, 1 = the vote is committed
    reserved: 28, // u32, zero
    committed: 32, // u64
    purgedIndex: 40, // u64, entry before the first one kept
    purgedTerm: 48, // u64
    snapshotIndex: 56, // u64, 0 = no snapshot
    snapshotTerm: 64, // u64
    snapshotId: 72, // 16 bytes
    // 88..119 zero
    checksum: 120, // u64, XXH3-64 of [0, 120)
  },
} as const;
