/** The ABI: exports only. Their contract is src/wasm/abi.ts. */
import { hash } from './checksum';

export { describeBlock, encodeBlock, sealBatch, verifyBatch, verifyBlocks } from './batch';
export { writeConstants } from './checksum';
export {
  indexAppendBlocks,
  indexBytes,
  indexConflict,
  indexMoveBlocks,
  indexPlaceBlocks,
  indexPurge,
  indexScan,
  indexSkip,
  indexTerm,
  indexTruncateAfter,
} from './log-index';

export function copy(to: usize, from: usize, length: usize): void {
  memory.copy(to, from, length);
}

export function xxh3(pointer: usize, length: usize, out: usize): void {
  store<u64>(out, hash(pointer, length));
}
