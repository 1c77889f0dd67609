/** Numbers and bytes in the bodies of frames. A u64 is a safe integer; larger ones are refused. */
import { corruptFrame } from './frame.js';

export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, (value / 0x1_0000_0000) >>> 0, true);
}

export function readU64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  if (high > 0x1f_ffff) throw corruptFrame('an integer beyond 2^53');
  return high * 0x1_0000_0000 + view.getUint32(at, true);
}

export function bytesOf(view: DataView, at: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + at, length);
}
