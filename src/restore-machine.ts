/**
 * Brings a state machine at a start to the newest snapshot that verifies; the log behind it follows by
 * itself. What is damaged is told of and passed over, as long as an older snapshot and the log behind
 * it hold the same. Of a log that has lost something, the machine gets what is whole; nothing is
 * changed on the disk then.
 */
import { KeelsonError } from './base/errors.js';
import type { Logger } from './base/logger.js';
import type { Scheduler } from './base/scheduler.js';
import type { GroupLoss, RecoveredLog } from './engine/types.js';
import { readableLog } from './readable-log.js';
import { decodeMembership } from './runtime/membership-codec.js';
import type { MachineHost } from './state-machine/machine-host.js';
import type { SnapshotInfo } from './storage/snapshot-format.js';
import type { SnapshotStore } from './storage/snapshot-store.js';

export interface StartingPoint {
  /** What the engine starts from. */
  readonly recovered: RecoveredLog;
  /** What the machine holds. */
  readonly applied: number;
  /** No entry before has a later time, ms since the epoch; 0 without a snapshot. */
  readonly time: number;
}

export interface RestoreParts {
  readonly snapshots: SnapshotStore;
  readonly machine: MachineHost;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
}

/**
 * @throws KeelsonError STORAGE_CORRUPT when what is purged is in no snapshot that verifies, STORAGE_VERSION
 * for one of a newer machine, STATE_MACHINE_FAILED when the machine cannot be restored
 */
export async function restoreMachine(
  parts: RestoreParts,
  log: RecoveredLog,
  machineApplied: number,
  loss?: GroupLoss,
): Promise<StartingPoint> {
  const { snapshots } = parts;
  const purgedIndex = log.purged.index;
  for (;;) {
    const { newest } = snapshots;
    const reaches = newest !== undefined && newest.lastIncluded.index >= purgedIndex;
    if (!reaches) {
      if (purgedIndex > 0) throw snapshots.unusable(purgedIndex);
      if (loss !== undefined) {
        const recovered = readableLog(log, loss, machineApplied);
        return { recovered, applied: machineApplied, time: 0 };
      }
      checkApplied(log, machineApplied, 0);
      return { recovered: { ...log, applied: machineApplied }, applied: machineApplied, time: 0 };
    }
    const { index } = newest.lastIncluded;
    if (loss === undefined) checkApplied(log, machineApplied, index);
    if (machineApplied < index && !(await restored(parts, newest))) continue;
    const applied = Math.max(machineApplied, index);
    const whole = startingFrom(log, newest, applied);
    if (loss !== undefined) {
      return { recovered: readableLog(whole, loss, applied), applied, time: newest.time };
    }
    await snapshots.removeBelow(purgedIndex);
    return { recovered: whole, applied, time: newest.time };
  }
}

/** False when the file turned out to be damaged: the store does not have it any more. */
async function restored(parts: RestoreParts, info: SnapshotInfo): Promise<boolean> {
  const { snapshots, machine, scheduler, logger } = parts;
  const { file, machineVersion, lastIncluded, bytes } = info;
  if (machineVersion > machine.version) {
    throw new KeelsonError(
      'KEELSON_STORAGE_VERSION',
      `the snapshot ${file} is of version ${machineVersion} of the state machine, and this is version ${machine.version}`,
      { details: { file, version: machineVersion } },
    );
  }
  const startedMs = scheduler.now();
  try {
    await machine.restore(snapshots.payload(info), lastIncluded.index);
  } catch (error) {
    if (snapshots.snapshots.includes(info)) throw error;
    return false;
  }
  if (!snapshots.snapshots.includes(info)) return false;
  const tookMs = Math.round(scheduler.now() - startedMs);
  const { index } = lastIncluded;
  logger.info(
    { event: 'snapshot.restored', index, bytes, tookMs },
    'the state machine was restored from a snapshot',
  );
  return true;
}

/** The disk lost what the machine has seen. */
function checkApplied(log: RecoveredLog, applied: number, snapshotIndex: number): void {
  const lastIndex = Math.max(log.lastIndex, snapshotIndex);
  if (applied <= lastIndex) return;
  throw new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `the state machine has applied index ${applied}, but the log ends at ${lastIndex}: entries are lost`,
    { details: { applied, lastIndex } },
  );
}

function startingFrom(log: RecoveredLog, info: SnapshotInfo, applied: number): RecoveredLog {
  const { lastIncluded, membershipIndex: index } = info;
  const membership = decodeMembership(info.membership, index);
  return { ...log, applied, snapshot: { lastIncluded, membership: { index, membership } } };
}
