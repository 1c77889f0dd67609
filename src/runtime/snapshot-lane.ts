import type { SnapshotOptions, SnapshotResult } from '../api.js';
import { invariant } from '../base/assert.js';
import { type ErrorCode, KeelsonError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Scheduler, Timer } from '../base/scheduler.js';
import type { Engine } from '../engine/engine.js';
import type { LogIndex } from '../engine/types.js';
import type { MachineHost } from '../state-machine/machine-host.js';
import type { SnapshotHeader, SnapshotInfo } from '../storage/snapshot-format.js';
import type { SnapshotStore } from '../storage/snapshot-store.js';
import { CallScope } from './call-scope.js';
import { encodeMembership } from './membership-codec.js';
import { SnapshotBuild } from './snapshot-build.js';

/**
 * When a snapshot is built, and the `BuildSnapshot` commands of the engine. One is due when so many
 * entries, or bytes of them, were applied since the last one, and when somebody asks for one. One is
 * built at a time, and one that is due waits until the last one is a second ago, and four times as long as
 * that took: however fast entries come, most of the time belongs to them. A build that fails costs nothing
 * but itself: the log stays, and it is tried again when a tenth as much was applied.
 */
export interface SnapshotLaneParts {
  readonly group: number;
  readonly engine: Engine;
  readonly machine: MachineHost;
  readonly snapshots: SnapshotStore;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly limits: SnapshotLimits;
  /** Bytes of the entries that were given to the machine, in this run of the node. */
  appliedBytes(): number;
  /** No entry that was applied has a later time. */
  lastTime(): number;
  /** The engine was told something. */
  progress(): void;
  /** A broken invariant. */
  fail(error: unknown): void;
}

export interface SnapshotLimits {
  /** 0: never for this. */
  readonly everyEntries: number;
  readonly everyBytes: number;
  readonly chunkBytes: number;
  readonly buildTimeoutMs: number;
}

interface Waiter {
  /** The snapshot must hold this entry. */
  readonly atLeast: LogIndex;
  readonly resolve: (result: SnapshotResult) => void;
  readonly reject: (error: unknown) => void;
  readonly onProgress: SnapshotOptions['onProgress'];
}

const MAX_WAITERS = 64;
const RETRY_SHARE = 1 / 10;
const LEAST_REST_MS = 1_000;
const REST_SHARE = 4;
const NEVER = Number.POSITIVE_INFINITY;

export class SnapshotLane {
  private readonly parts: SnapshotLaneParts;
  private readonly engine: Engine;
  private readonly limits: SnapshotLimits;
  private readonly waiters = new Set<Waiter>();
  private build: SnapshotBuild | undefined;
  /** Nobody but callers wants the present build. */
  private onlyForCallers = false;
  /** The present build was given up because it is not needed any more, which is no failure. */
  private abandoned = false;
  private timer: Timer | undefined;
  /** After a build: what is due waits. */
  private rest: Timer | undefined;
  private dueIndex: LogIndex = NEVER;
  private dueBytes = NEVER;
  private stopped: KeelsonError | undefined;

  constructor(parts: SnapshotLaneParts) {
    this.parts = parts;
    this.engine = parts.engine;
    this.limits = parts.limits;
    this.arm(this.engine.snapshots.newest.index, 0, 1);
  }

  /** Everything up to `index` is applied. */
  applied(index: LogIndex): void {
    if (index < this.dueIndex && this.parts.appliedBytes() < this.dueBytes) return;
    if (this.build !== undefined) this.onlyForCallers = false;
    else if (this.rest === undefined) {
      this.onlyForCallers = false;
      this.engine.snapshots.build();
    }
  }

  /** The machine was restored from a snapshot that the leader has sent: the next one is counted from there. */
  installed(index: LogIndex): void {
    this.arm(index, this.parts.appliedBytes(), 1);
  }

  /** The newest snapshot turned out to be damaged: another one takes its place at once. */
  lost(): void {
    if (this.stopped !== undefined) return;
    this.engine.snapshots.lost();
    this.onlyForCallers = false;
    this.engine.snapshots.build();
    this.parts.progress();
  }

  /** Resolves with a snapshot that holds all that is applied now. See `Raft.snapshot`. */
  request(options: SnapshotOptions | undefined): Promise<SnapshotResult> {
    const { engine, parts, limits } = this;
    const scope = new CallScope(parts.scheduler, options, limits.buildTimeoutMs);
    scope.check();
    const atLeast = engine.appliedIndex;
    const newest = parts.snapshots.newest;
    if (newest !== undefined && newest.lastIncluded.index >= atLeast) {
      return Promise.resolve(resultOf(newest));
    }
    if (atLeast === 0) {
      return rejected(
        'KEELSON_INVALID_ARGUMENT',
        'nothing is applied yet that a snapshot could hold',
      );
    }
    if (this.waiters.size >= MAX_WAITERS) {
      return rejected('KEELSON_OVERLOADED', `${MAX_WAITERS} calls wait for a snapshot already`);
    }
    if (this.build === undefined) this.onlyForCallers = true;
    invariant(engine.snapshots.build(), 'what no snapshot holds can be built');
    let waiter: Waiter | undefined;
    const promise = new Promise<SnapshotResult>((resolve, reject) => {
      waiter = { atLeast, resolve, reject, onProgress: options?.onProgress };
      this.waiters.add(waiter);
    });
    parts.progress();
    return scope.race(promise, 'unknown', () => this.leave(waiter as Waiter));
  }

  /** Runs a `BuildSnapshot` command. */
  begin(): void {
    if (this.onlyForCallers && this.waiters.size === 0) {
      // They have left already.
      this.engine.snapshots.buildFailed();
      return;
    }
    const { scheduler, machine, snapshots, logger } = this.parts;
    const { chunkBytes, buildTimeoutMs } = this.limits;
    const startedMs = scheduler.now();
    const bytesBefore = this.parts.appliedBytes();
    const build = new SnapshotBuild({
      machine,
      snapshots,
      chunkBytes,
      describe: (index) => this.describe(index),
      onProgress: (bytes) => this.tellProgress(bytes),
      onLate: (info) => this.late(info),
      onLeftover: (err) => {
        logger.warn(
          { event: 'snapshot.leftover', err },
          'a build of a snapshot left something open',
        );
      },
    });
    this.build = build;
    this.abandoned = false;
    this.timer = scheduler.setTimer(buildTimeoutMs, () =>
      build.giveUp(
        new KeelsonError('KEELSON_TIMEOUT', `the snapshot took longer than ${buildTimeoutMs} ms`),
      ),
    );
    build.run().then(
      (info) => {
        if (info !== undefined) {
          const { lastIncluded, bytes } = info;
          const tookMs = Math.round(scheduler.now() - startedMs);
          logger.info(
            { event: 'snapshot.built', index: lastIncluded.index, bytes, tookMs },
            'a snapshot was built',
          );
        }
        this.ended(startedMs, () => this.built(info, bytesBefore));
      },
      (error: unknown) => this.ended(startedMs, () => this.failed(error)),
    );
  }

  /** The leader has sent a newer snapshot, which the machine is restored from. */
  superseded(): void {
    if (this.build === undefined) return;
    this.abandoned = true;
    const message = 'the leader has sent a newer snapshot';
    this.build.giveUp(new KeelsonError('KEELSON_ABORTED', message));
  }

  stop(reason: KeelsonError): void {
    this.stopped = reason;
    this.timer?.cancel();
    this.rest?.cancel();
    this.build?.giveUp(reason);
    this.rejectAll(reason);
  }

  private describe(index: LogIndex): SnapshotHeader | undefined {
    const { engine, parts } = this;
    if (this.stopped !== undefined) return undefined;
    const meta = engine.snapshots.describe(index);
    if (meta === undefined) return undefined;
    return {
      group: parts.group,
      lastIncluded: meta.lastIncluded,
      membershipIndex: meta.membership.index,
      membership: encodeMembership(meta.membership.membership),
      time: parts.lastTime(),
      created: parts.scheduler.wallTime(),
      machineVersion: parts.machine.version,
      id: this.randomId(),
    };
  }

  private ended(startedMs: number, tell: () => void): void {
    this.build = undefined;
    this.timer?.cancel();
    if (this.stopped !== undefined) return;
    this.restAfter(this.parts.scheduler.now() - startedMs);
    try {
      tell();
    } catch (error) {
      this.parts.fail(error);
      return;
    }
    this.parts.progress();
  }

  private built(info: SnapshotInfo | undefined, bytesBefore: number): void {
    const { engine, parts } = this;
    if (info === undefined) engine.snapshots.buildFailed();
    else {
      const { oldestKept } = parts.snapshots;
      engine.snapshots.built(info.lastIncluded, oldestKept?.lastIncluded.index ?? 0);
    }
    const { newest } = parts.snapshots;
    if (newest !== undefined) this.answer(newest);
    this.arm(engine.snapshots.newest.index, bytesBefore, 1);
    this.next();
  }

  /** The one that was given up last may be begun anew already. */
  private late(info: SnapshotInfo): void {
    if (this.stopped !== undefined) return;
    const { engine, parts } = this;
    try {
      engine.snapshots.durable(
        info.lastIncluded,
        parts.snapshots.oldestKept?.lastIncluded.index ?? 0,
      );
      this.answer(info);
    } catch (error) {
      parts.fail(error);
      return;
    }
    parts.progress();
  }

  private failed(error: unknown): void {
    const { engine, parts } = this;
    engine.snapshots.buildFailed();
    if (!(error instanceof KeelsonError)) throw error;
    const { newest } = parts.snapshots;
    if (this.abandoned) {
      if (newest !== undefined) this.answer(newest);
    } else {
      const { code, message } = error;
      parts.logger.error(
        { event: 'snapshot.failed', code, reason: message },
        'a snapshot could not be built; the log is kept',
      );
      this.rejectAll(error);
      this.arm(engine.appliedIndex, parts.appliedBytes(), RETRY_SHARE);
    }
    this.next();
  }

  private restAfter(tookMs: number): void {
    const { scheduler } = this.parts;
    this.rest?.cancel();
    this.rest = scheduler.setTimer(Math.max(LEAST_REST_MS, tookMs * REST_SHARE), () => {
      this.rest = undefined;
      this.applied(this.engine.appliedIndex);
      this.parts.progress();
    });
  }

  /** What was applied, or asked for, during the last build. */
  private next(): void {
    this.onlyForCallers = true;
    if (this.waiters.size > 0) this.engine.snapshots.build();
    this.applied(this.engine.appliedIndex);
  }

  private arm(index: LogIndex, bytes: number, share: number): void {
    const { everyEntries, everyBytes } = this.limits;
    this.dueIndex = everyEntries === 0 ? NEVER : index + Math.ceil(everyEntries * share);
    this.dueBytes = everyBytes === 0 ? NEVER : bytes + Math.ceil(everyBytes * share);
  }

  private answer(info: SnapshotInfo): void {
    for (const waiter of this.waiters) {
      if (waiter.atLeast > info.lastIncluded.index) continue;
      this.waiters.delete(waiter);
      waiter.resolve(resultOf(info));
    }
  }

  private rejectAll(error: unknown): void {
    for (const waiter of this.waiters) waiter.reject(error);
    this.waiters.clear();
  }

  /** A build that nobody waits for any more, and that was not due, is given up. */
  private leave(waiter: Waiter): void {
    this.waiters.delete(waiter);
    if (this.waiters.size > 0 || !this.onlyForCallers) return;
    this.abandoned = true;
    this.build?.giveUp(
      new KeelsonError('KEELSON_ABORTED', 'nobody waits for the snapshot any more'),
    );
  }

  private tellProgress(bytes: number): void {
    for (const waiter of this.waiters) {
      try {
        waiter.onProgress?.(Object.freeze({ bytes }));
      } catch (error) {
        // It is the caller's own, and ends its call alone.
        waiter.reject(error);
        this.leave(waiter);
      }
    }
  }

  private randomId(): string {
    const word = (): string =>
      Math.floor(this.parts.scheduler.random() * 0x1_0000_0000)
        .toString(16)
        .padStart(8, '0');
    return word() + word() + word() + word();
  }
}

function resultOf({ lastIncluded, bytes, id, created }: SnapshotInfo): SnapshotResult {
  return Object.freeze({ logId: Object.freeze({ ...lastIncluded }), bytes, id, created });
}

function rejected(code: ErrorCode, message: string): Promise<never> {
  return Promise.reject(new KeelsonError(code, message));
}
