import { SECTOR_BYTES } from '../wasm/layout.js';

export function alignToSector(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}
