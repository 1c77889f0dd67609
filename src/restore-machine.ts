/**
 * Brings a state machine at a start to the newest snapshot that it can be restored from; the log behind it
 * follows by itself. What is damaged is told of and passed over, as long as an older snapshot and the log
 * behind it hold the same. The store has read the newest one to its end before: no machine is to be given half
 * of a state, least of all when nothing but the log is left to start from. Of a log that has lost something,
 * the machine gets what is whole; nothing is changed on the disk then.
 */
import { KeelsonError } from './base/errors.js';
import type { Logger } from './base/logger.js';
import type { Scheduler } from './base/scheduler.js';
import type { GroupLoss, RecoveredLog } from './engine/types.js';
import { readableLog } from './readable-log.js';
import { decodeMembership } from './runtime/membership-codec.js';
import type { MachineHost } from './state-machine/machine-host.js';
import { checkMachineVersion, type SnapshotInfo } from './storage/snapshot-format.js';
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
  /** The start may be over already. @throws KeelsonError */
  readonly check?: () => void;
}

/**
 * @throws KeelsonError STORAGE_CORRUPT when what is purged is in no snapshot that verifies, STORAGE_VERSION
 * for one of a newer machine, STATE_MACHINE_FAILED when the machine can be restored from none
 */
export async function restoreMachine(
  parts: RestoreParts,
  log: RecoveredLog,
  machineApplied: number,
  loss?: GroupLoss,
): Promise<StartingPoint> {
  const { snapshots, machine } = parts;
  const purgedIndex = log.purged.index;
  // A node that is known to have lost something only reads, and never votes.
  if (loss === undefined) for (const info of snapshots.snapshots) checkLog(log, info);
  let failure: unknown;
  for (;;) {
    const { newest } = snapshots;
    const reaches = newest !== undefined && newest.lastIncluded.index >= purgedIndex;
    if (!reaches) {
      // The machine may hold a part of it, which the log does not lead on from.
      if (failure !== undefined) throw failure;
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
    if (machineApplied < index) {
      checkMachineVersion(newest.file, newest.machineVersion, machine.version);
      try {
        await restore(parts, newest);
      } catch (error) {
        parts.check?.();
        if (snapshots.passOver(newest, error)) failure = error;
        else if (purgedIndex > 0) failure = snapshots.unusable(purgedIndex);
        else failure = halfRestored(newest.file);
        continue;
      }
    }
    const applied = Math.max(machineApplied, index);
    const whole = startingFrom(log, newest, applied);
    if (loss !== undefined) {
      return { recovered: readableLog(whole, loss, applied), applied, time: newest.time };
    }
    await snapshots.removeBelow(purgedIndex);
    return { recovered: whole, applied, time: newest.time };
  }
}

async function restore(parts: RestoreParts, info: SnapshotInfo): Promise<void> {
  const { snapshots, machine, scheduler, logger } = parts;
  const { lastIncluded, bytes } = info;
  const { index } = lastIncluded;
  const startedMs = scheduler.now();
  await machine.restore(chunksOf(parts, info), index);
  if (!snapshots.snapshots.includes(info)) {
    const message = 'restore of the state machine has ended well although the snapshot is damaged';
    throw new KeelsonError('KEELSON_STATE_MACHINE_FAILED', message);
  }
  const tookMs = Math.round(scheduler.now() - startedMs);
  logger.info(
    { event: 'snapshot.restored', index, bytes, tookMs },
    'the state machine was restored from a snapshot',
  );
}

async function* chunksOf(
  { snapshots, check }: RestoreParts,
  info: SnapshotInfo,
): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of snapshots.payload(info)) {
    check?.();
    yield chunk;
  }
}

/**
 * A snapshot is built of what is applied, and that is durable in the log. A log that does not lead to it has
 * lost what this node has acknowledged, perhaps votes too: with another log the node must not go on.
 */
function checkLog(log: RecoveredLog, { file, lastIncluded, received }: SnapshotInfo): void {
  const { term, index } = lastIncluded;
  if (received || index <= log.purged.index) return;
  if (index <= log.lastIndex && termAt(log, index) === term) return;
  const found =
    index > log.lastIndex
      ? `the log ends at index ${log.lastIndex}`
      : `the log holds another entry at index ${index}`;
  throw new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `${found}, and the snapshot ${file} was built here from a log that was durable up to ${index}: entries are lost. ` +
      'Restore the whole directory from a backup, or replace the node: remove it from the cluster and add it ' +
      'again with an empty directory',
    { details: { file, index, lastIndex: log.lastIndex } },
  );
}

function termAt({ termRuns }: RecoveredLog, index: number): number | undefined {
  return termRuns.findLast(({ firstIndex }) => firstIndex <= index)?.term;
}

/** The next start finds the damage before its machine is given anything. */
function halfRestored(file: string): KeelsonError {
  return new KeelsonError(
    'KEELSON_STORAGE_CORRUPT',
    `the snapshot ${file} turned out to be damaged while the state machine was restored from it: start the node again, and it is rebuilt from the log`,
    { details: { file } },
  );
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
