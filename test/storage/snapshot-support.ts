/** Snapshot stores over a disk in memory, and snapshots to put into them. */
import { type Logger, silentLogger } from '../../dist/base/logger.js';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { InlineSnapshotExecutor } from '../../dist/storage/snapshot-executor.js';
import type { SnapshotHeader, SnapshotInfo } from '../../dist/storage/snapshot-format.js';
import { SnapshotStore } from '../../dist/storage/snapshot-store.js';

export const DIRECTORY = '/data/snapshots/group-0';

export const scheduler: SystemScheduler = new SystemScheduler();

export function headerAt(index: number, id = String(index)): SnapshotHeader {
  return {
    group: 0,
    lastIncluded: { term: 3, index },
    membershipIndex: 1,
    membership: Uint8Array.of(1, 2, 3),
    time: 1_700_000_000_000,
    created: 1_700_000_000_001,
    machineVersion: 7,
    id: id.padStart(32, '0'),
  };
}

export interface OpenOptions {
  readonly keep?: number;
  readonly chunkBytes?: number;
  readonly logger?: Logger;
}

export function openSnapshots(disk: MemoryDisk, options: OpenOptions = {}): Promise<SnapshotStore> {
  return SnapshotStore.open({
    directory: DIRECTORY,
    group: 0,
    keep: options.keep ?? 2,
    chunkBytes: options.chunkBytes ?? 64,
    executor: new InlineSnapshotExecutor(disk, scheduler),
    logger: options.logger ?? silentLogger,
  });
}

/** `bytes` of a pattern that tells its position. */
export function patternOf(bytes: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, place) => (place * 31 + seed) & 0xff);
}

export async function build(
  store: SnapshotStore,
  index: number,
  payload: Uint8Array = patternOf(300, index),
): Promise<SnapshotInfo> {
  const writer = await store.create(headerAt(index));
  for (let at = 0; at < payload.length; at += 50) await writer.append(payload.slice(at, at + 50));
  return writer.publish();
}

export async function payloadOf(store: SnapshotStore, info: SnapshotInfo): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const bytes of store.payload(info)) parts.push(bytes);
  return Uint8Array.from(Buffer.concat(parts));
}

export const newDisk = (): MemoryDisk => new MemoryDisk();
