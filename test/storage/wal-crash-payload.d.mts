import type { WalLogStoreOptions } from '../../dist/storage/wal-log-store.js';

export const CRASH_OPTIONS: Omit<WalLogStoreOptions, 'directory'>;
export function crashPayload(index: number): Uint8Array;
