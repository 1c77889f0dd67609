import { KeelsonError } from '../base/errors.js';
import type { Replicate } from '../engine/commands.js';
import type { Engine } from '../engine/engine.js';
import type { AppendRequest } from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import type { Network, OutgoingEntries } from '../network/network.js';
import type { EntriesLease, LogStore } from '../storage/log-store.js';

/**
 * Runs `Replicate` commands: reads the entries, from memory or from segments, and gives their bytes
 * to the network untouched. A command that the network cannot take yet is held, one per target, until
 * that target is writable; a command of an older term is dropped, and nobody waits for it any more.
 *
 * Every command of the present term is answered in the end: the engine gives a target no other while
 * one is open, so one that is forgotten would leave its target behind for ever.
 */
export class ReplicateLane {
  private readonly group: number;
  private readonly engine: Engine;
  private readonly store: LogStore;
  private readonly network: Network;
  private readonly onFailure: (error: unknown) => void;
  private readonly onProgress: () => void;
  private readonly held = new Map<NodeId, Replicate>();

  constructor(
    group: number,
    engine: Engine,
    store: LogStore,
    network: Network,
    onProgress: () => void,
    onFailure: (error: unknown) => void,
  ) {
    this.group = group;
    this.engine = engine;
    this.store = store;
    this.network = network;
    this.onProgress = onProgress;
    this.onFailure = onFailure;
  }

  replicate(command: Replicate): void {
    const firstIndex = command.prevLogId.index + 1;
    if (firstIndex <= this.engine.purgedIndex) {
      // It was held while they were purged: the engine finds another way.
      this.engine.replicateFailed(command.target, command.session);
      return;
    }
    if (command.lastIndex < firstIndex) {
      this.send(command, NO_ENTRIES, command.prevLogId.index);
      return;
    }
    const read = this.store.read(this.group, firstIndex, command.lastIndex, command.maxBytes);
    if (read instanceof Promise) {
      read.then(
        (lease) => {
          if (this.isCurrent(command)) this.sendLease(command, lease);
          else lease.release();
          this.onProgress();
        },
        (error: unknown) => this.readFailed(command, error),
      );
      return;
    }
    this.sendLease(command, read);
  }

  /** The target takes appends again. */
  writable(target: NodeId): void {
    const command = this.held.get(target);
    if (command === undefined) return;
    this.held.delete(target);
    if (this.isCurrent(command)) this.replicate(command);
  }

  /** The connection is gone, and with it whoever would have said that the target is writable. */
  disconnected(target: NodeId): void {
    const command = this.held.get(target);
    if (command === undefined) return;
    this.held.delete(target);
    this.engine.replicateFailed(target, command.session);
  }

  /** Entries that were truncated, or memory that is short, are no failure of the disk: try again later. */
  private readFailed(command: Replicate, error: unknown): void {
    const passes =
      error instanceof KeelsonError &&
      (error.code === 'KEELSON_ABORTED' || error.code === 'KEELSON_OVERLOADED');
    if (!passes) {
      this.onFailure(error);
      return;
    }
    this.engine.replicateFailed(command.target, command.session);
    this.onProgress();
  }

  private isCurrent(command: Replicate): boolean {
    return this.engine.role === 'leader' && this.engine.term === command.term;
  }

  private sendLease(command: Replicate, lease: EntriesLease): void {
    if (!this.send(command, lease, lease.lastIndex)) lease.release();
  }

  private send(command: Replicate, entries: OutgoingEntries, lastIndex: number): boolean {
    const message: AppendRequest = {
      type: 'AppendRequest',
      term: command.term,
      session: command.session,
      prevLogId: command.prevLogId,
      lastIndex,
      committed: command.committed,
    };
    if (this.network.sendAppend(command.target, message, entries)) {
      this.engine.replicated(command.target, command.session, lastIndex, entries.bytes);
      return true;
    }
    this.held.set(command.target, command);
    return false;
  }
}

const NO_ENTRIES: OutgoingEntries = { parts: [], bytes: 0, release: () => {} };
