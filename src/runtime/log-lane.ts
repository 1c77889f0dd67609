import type { Logger } from '../base/logger.js';
import type { AppendEntries, ResetLog, TruncateAfter } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { IoId, LogId, LogIndex } from '../engine/types.js';
import type { LogStore } from '../storage/log-store.js';
import type { EntryStaging } from './entry-staging.js';
import { FlushWatch } from './flush-watch.js';
import type { Proposer } from './proposer.js';

export interface LogLaneParts {
  readonly group: number;
  readonly engine: Engine;
  readonly store: LogStore;
  readonly staging: EntryStaging;
  readonly proposer: Proposer;
  readonly logger: Logger;
  /** `storage.flushStallMs` */
  readonly flushStallMs: number;
}

/**
 * Carries out the engine's commands on the log, in their order, and watches that they become durable.
 * Whoever waits for an entry that is taken away is told before the log is cut.
 */
export class LogLane {
  private readonly parts: LogLaneParts;
  private readonly group: number;
  private readonly store: LogStore;
  private readonly flushWatch: FlushWatch;
  private stallTold = false;

  constructor(parts: LogLaneParts) {
    this.parts = parts;
    this.group = parts.group;
    this.store = parts.store;
    this.flushWatch = new FlushWatch(parts.flushStallMs);
  }

  append(command: AppendEntries): void {
    const staged = this.parts.staging.stagedFor(command);
    this.flushWatch.submittedUpTo(command.io.sequence);
    this.store.append(this.group, staged, command.firstIndex, command.io);
  }

  saveVote(io: IoId): void {
    this.flushWatch.submittedUpTo(io.sequence);
    this.store.saveVote(this.group, io);
  }

  truncateAfter({ index, io }: TruncateAfter): void {
    this.failAfter(index);
    this.flushWatch.submittedUpTo(io.sequence);
    this.store.truncateAfter(this.group, index, io);
  }

  reset({ lastIncluded, io }: ResetLog): void {
    this.failAfter(0);
    this.flushWatch.submittedUpTo(io.sequence);
    this.store.resetLog(this.group, lastIncluded, io);
  }

  advanceIo(io: IoId): void {
    this.flushWatch.submittedUpTo(io.sequence);
    this.store.advanceIo(this.group, io);
  }

  purge(upTo: LogId): void {
    this.store.purge(this.group, upTo);
  }

  committed(index: LogIndex): void {
    this.store.recordCommitted(this.group, index);
  }

  flushedUpTo(sequence: number): void {
    this.flushWatch.flushedUpTo(sequence);
    this.stallTold = false;
  }

  /** Tells of a disk that hangs. A leader hands over then: its followers would wait for it for ever. */
  checkDisk(nowMs: number): void {
    const { engine, logger } = this.parts;
    const stalledMs = this.flushWatch.stalledMs(nowMs);
    if (stalledMs === 0) return;
    if (!this.stallTold) {
      this.stallTold = true;
      logger.error(
        { event: 'storage.stalled', stalledMs: Math.round(stalledMs), role: engine.role },
        'nothing has become durable for longer than storage.flushStallMs: a leader hands over',
      );
    }
    if (engine.role === 'leader') engine.stepDown();
  }

  private failAfter(index: LogIndex): void {
    const { proposer } = this.parts;
    // First the slots that have no place yet: they stand behind those that are overwritten.
    proposer.lostOffice();
    proposer.overwrittenAfter(index);
  }
}
