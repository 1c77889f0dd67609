/**
 * The layouts of src/wasm/layout.ts and src/wasm/abi.ts once more, as constants that compile into
 * immediates. A test compares every one of them with its original: `ITEM.offset.index` is
 * `ITEM_OFFSET_INDEX`, `ITEM.bytes` is `ITEM_BYTES`.
 */

export const SECTOR_BYTES: u32 = 4096;
export const MAX_SAFE_INTEGER: u64 = 9007199254740991;

export const BATCH_BYTES: u32 = 128;
export const BATCH_MAGIC: u32 = 0x31424c4b;
export const BATCH_VERSION: u16 = 1;
export const BATCH_OFFSET_MAGIC: usize = 0;
export const BATCH_OFFSET_VERSION: usize = 4;
export const BATCH_OFFSET_FLAGS: usize = 6;
export const BATCH_OFFSET_LANE: usize = 8;
export const BATCH_OFFSET_HARD_STATES: usize = 12;
export const BATCH_OFFSET_LSN: usize = 16;
export const BATCH_OFFSET_SEGMENT: usize = 24;
export const BATCH_OFFSET_EPOCH: usize = 32;
export const BATCH_OFFSET_BLOCKS_LENGTH: usize = 40;
export const BATCH_OFFSET_BLOCKS: usize = 44;
export const BATCH_OFFSET_ITEMS: usize = 48;
export const BATCH_OFFSET_TOTAL_LENGTH: usize = 52;
export const BATCH_OFFSET_RESERVED: usize = 56;
export const BATCH_OFFSET_BODY_CHECKSUM: usize = 64;
export const BATCH_OFFSET_HEADER_CHECKSUM: usize = 120;

export const BATCH_FLAG_CLEAN_SHUTDOWN: u16 = 1;
export const BATCH_FLAG_REPEATED: u16 = 2;
export const BATCH_FLAG_RECORDS: u16 = 4;

export const BLOCK_BYTES: u32 = 32;
export const BLOCK_MAGIC: u32 = 0x314b4c4b;
export const BLOCK_OFFSET_MAGIC: usize = 0;
export const BLOCK_OFFSET_GROUP: usize = 4;
export const BLOCK_OFFSET_ITEMS: usize = 8;
export const BLOCK_OFFSET_PAYLOAD_LENGTH: usize = 12;
export const BLOCK_OFFSET_FIRST_INDEX: usize = 16;
export const BLOCK_OFFSET_FLAGS: usize = 24;
export const BLOCK_OFFSET_RESERVED: usize = 28;

export const BLOCK_FLAG_MOVED: u32 = 1;

export const ITEM_BYTES: u32 = 48;
export const ITEM_OFFSET_INDEX: usize = 0;
export const ITEM_OFFSET_TERM: usize = 8;
export const ITEM_OFFSET_TIME: usize = 16;
export const ITEM_OFFSET_GROUP: usize = 24;
export const ITEM_OFFSET_LENGTH: usize = 28;
export const ITEM_OFFSET_KIND: usize = 32;
export const ITEM_OFFSET_RESERVED: usize = 36;
export const ITEM_OFFSET_CHECKSUM: usize = 40;

export const ENTRY_KIND_BLANK: u32 = 1;
export const ENTRY_KIND_APPLICATION: u32 = 2;
export const ENTRY_KIND_MEMBERSHIP: u32 = 3;
export const ENTRY_KIND_TRUNCATE_AFTER: u32 = 128;
export const ENTRY_KIND_PURGE: u32 = 129;
export const ENTRY_KIND_RESET: u32 = 130;

export const HARD_STATE_BYTES: u32 = 64;
export const HARD_STATE_MAGIC: u32 = 0x31484c4b;
export const HARD_STATE_OFFSET_MAGIC: usize = 0;
export const HARD_STATE_OFFSET_GROUP: usize = 4;
export const HARD_STATE_OFFSET_TERM: usize = 8;
export const HARD_STATE_OFFSET_VOTED_FOR: usize = 16;
export const HARD_STATE_OFFSET_FLAGS: usize = 24;
export const HARD_STATE_OFFSET_RESERVED: usize = 28;
export const HARD_STATE_OFFSET_COMMITTED: usize = 32;
export const HARD_STATE_OFFSET_LSN: usize = 40;
export const HARD_STATE_OFFSET_EPOCH: usize = 48;
export const HARD_STATE_OFFSET_CHECKSUM: usize = 56;

export const BLOCKS_SUMMARY_BYTES: u32 = 48;
export const BLOCKS_SUMMARY_OFFSET_FIRST_INDEX: usize = 0;
export const BLOCKS_SUMMARY_OFFSET_LAST_INDEX: usize = 8;
export const BLOCKS_SUMMARY_OFFSET_LAST_TERM: usize = 16;
export const BLOCKS_SUMMARY_OFFSET_LAST_TIME: usize = 24;
export const BLOCKS_SUMMARY_OFFSET_ITEMS: usize = 32;
export const BLOCKS_SUMMARY_OFFSET_RUNS: usize = 36;
export const BLOCKS_SUMMARY_OFFSET_MARKS: usize = 40;
export const BLOCKS_SUMMARY_OFFSET_BLOCKS: usize = 44;

export const EXTENT_BYTES: u32 = 32;
export const EXTENT_OFFSET_SEGMENT: usize = 0;
export const EXTENT_OFFSET_ITEMS: usize = 4;
export const EXTENT_OFFSET_FIRST_INDEX: usize = 8;
export const EXTENT_OFFSET_ITEM_POSITION: usize = 16;
export const EXTENT_OFFSET_PAYLOAD_POSITION: usize = 20;
export const EXTENT_OFFSET_PAYLOAD_LENGTH: usize = 24;
export const EXTENT_OFFSET_RESERVED: usize = 28;

export const INDEX_DESCRIPTOR_BYTES: u32 = 64;
export const INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX: usize = 0;
export const INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX: usize = 8;
export const INDEX_DESCRIPTOR_OFFSET_DIRECTORY: usize = 16;
export const INDEX_DESCRIPTOR_OFFSET_CHUNKS: usize = 20;
export const INDEX_DESCRIPTOR_OFFSET_RUNS: usize = 24;
export const INDEX_DESCRIPTOR_OFFSET_RUN_COUNT: usize = 28;
export const INDEX_DESCRIPTOR_OFFSET_RUN_CAPACITY: usize = 32;
export const INDEX_DESCRIPTOR_OFFSET_WANTED_ENTRIES: usize = 36;
export const INDEX_DESCRIPTOR_OFFSET_WANTED_RUNS: usize = 40;
export const INDEX_DESCRIPTOR_OFFSET_BASE: usize = 48;
export const INDEX_DESCRIPTOR_OFFSET_ADDED_BYTES: usize = 56;

export const INDEX_ENTRY_BYTES: u32 = 16;
export const INDEX_ENTRY_OFFSET_SEGMENT: usize = 0;
export const INDEX_ENTRY_OFFSET_ITEM_POSITION: usize = 4;
export const INDEX_ENTRY_OFFSET_PAYLOAD_POSITION: usize = 8;
export const INDEX_ENTRY_OFFSET_LENGTH: usize = 12;
export const INDEX_CHUNK_ENTRIES: u32 = 32;

export const TERM_RUN_BYTES: u32 = 16;
export const TERM_RUN_OFFSET_FIRST_INDEX: usize = 0;
export const TERM_RUN_OFFSET_TERM: usize = 8;

export const CONSTANTS_OFFSET_SECRET: usize = 64;

export const VERIFY_ERROR_TRUNCATED: u32 = 1;
export const VERIFY_ERROR_MAGIC: u32 = 2;
export const VERIFY_ERROR_VERSION: u32 = 3;
export const VERIFY_ERROR_LENGTHS: u32 = 4;
export const VERIFY_ERROR_GROUP: u32 = 5;
export const VERIFY_ERROR_INDEX: u32 = 6;
export const VERIFY_ERROR_TERM: u32 = 7;
export const VERIFY_ERROR_KIND: u32 = 8;
export const VERIFY_ERROR_RESERVED: u32 = 9;
export const VERIFY_ERROR_HEADER_CHECKSUM: u32 = 10;
export const VERIFY_ERROR_BODY_CHECKSUM: u32 = 11;
export const VERIFY_ERROR_ENTRY_CHECKSUM: u32 = 12;
export const VERIFY_ERROR_HARD_STATE: u32 = 13;
export const VERIFY_ERROR_PADDING: u32 = 14;
export const VERIFY_ERROR_TOO_MANY_RUNS: u32 = 15;
export const VERIFY_ERROR_UNSAFE_INTEGER: u32 = 16;
export const VERIFY_ERROR_TOO_MANY_MARKS: u32 = 17;
