/**
 * The parts of a snapshot file, the one place that defines them. Little-endian; docs/storage-format.md
 * is compared with these tables.
 *
 * ```
 * [header 96][membership][chunk 0][chunk 1]…[footer 40]
 * chunk: [head 24][payload][checksum 8]
 * ```
 *
 * Every chunk carries its number and the checksum of the part before it (the header, or the chunk
 * before), so that one that is missing, doubled, swapped or of another file is found. The footer tells
 * how many there are, so that a file that was cut between two chunks is found too.
 */
export const SNAPSHOT_HEADER = {
  bytes: 96,
  magic: 0x314e4c4b, // "KLN1"
  version: 1,
  offset: {
    magic: 0, // u32
    version: 4, // u16
    reserved: 6, // u16
    group: 8, // u32
    membershipBytes: 12, // u32
    term: 16, // u64
    index: 24, // u64
    membershipIndex: 32, // u64
    time: 40, // u64
    created: 48, // u64
    machineVersion: 56, // u64
    id: 64, // 16 bytes
    membershipChecksum: 80, // u64
    checksum: 88, // u64
  },
} as const;

export const SNAPSHOT_CHUNK = {
  bytes: 24,
  magic: 0x31444c4b, // "KLD1"
  /** Behind the payload. */
  checksumBytes: 8,
  offset: {
    magic: 0, // u32
    length: 4, // u32
    number: 8, // u64
    previous: 16, // u64
  },
} as const;

export const SNAPSHOT_FOOTER = {
  bytes: 40,
  magic: 0x31454c4b, // "KLE1"
  offset: {
    magic: 0, // u32
    reserved: 4, // u32
    chunks: 8, // u64
    payloadBytes: 16, // u64
    previous: 24, // u64
    checksum: 32, // u64
  },
} as const;

/** Largest payload of a chunk, written or read. */
export const MAX_SNAPSHOT_CHUNK_BYTES: number = 1024 * 1024;
export const MAX_SNAPSHOT_MEMBERSHIP_BYTES: number = 256 * 1024;
/** Header and footer, and nothing between them. */
export const MIN_SNAPSHOT_FILE_BYTES: number = SNAPSHOT_HEADER.bytes + SNAPSHOT_FOOTER.bytes;
