/**
 * Runs a machine that was given as an object, on the main thread. It applies in slices, so that
 * heartbeats and sockets live beside a long queue: a slice ends after `applySliceMs`, and the rest goes
 * to the end of the scheduler's run queue. One `apply` call of the machine is sized by what earlier
 * calls took, between one entry and `maxApplyEntries`.
 *
 * An idle host applies within the call, so `events.applied` may come before `apply` returns.
 */
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import type { EntriesLease } from '../storage/log-store.js';
import { applyNext } from './apply-step.js';
import { msgpackCodec } from './codec.js';
import { EntryCursor, spansOf } from './entry-decoder.js';
import { machineThrew } from './machine-fault.js';
import type { MachineEvents, MachineHost, MachineSnapshot } from './machine-host.js';
import { queryFailed } from './query-error.js';
import { RestoreGate } from './restore-gate.js';
import { SnapshotCursor } from './snapshot-cursor.js';
import type { AnyStateMachine, Codec } from './state-machine.js';

export interface ApplyLimits {
  /** Entries in one `apply` call of the machine. */
  readonly maxApplyEntries: number;
  /** Payload bytes in one `apply` call of the machine (at least one entry). */
  readonly maxApplyBytes: number;
  /** Time after which the main thread yields, ms. */
  readonly applySliceMs: number;
}

export interface MainThreadHostOptions {
  readonly group: number;
  readonly events: MachineEvents;
  readonly scheduler: Scheduler;
  readonly limits: ApplyLimits;
  /** In place of the machine's own codec. */
  readonly codec?: Codec<unknown> | undefined;
}

const FIRST_CALL_ENTRIES = 64;
const UNTIMED_ENTRIES = 4;
/** After a piece of a snapshot that took long, as one does whose machine waits for something. */
const MAX_REST_MS = 4;

export class MainThreadHost implements MachineHost {
  private readonly machine: AnyStateMachine;
  private readonly group: number;
  private readonly events: MachineEvents;
  private readonly scheduler: Scheduler;
  private readonly limits: ApplyLimits;
  private readonly codec: Codec<unknown>;
  private readonly resume: () => void;
  /** In the first range of the queue. */
  private readonly cursor: EntryCursor<unknown>;
  private readonly gate = new RestoreGate();
  private queue: QueuedApply[] = [];
  private lastAccepted = 0;
  /** The last entry of the last range that is applied to its end. */
  private lastApplied = 0;
  /** A snapshot that begins behind the range that is being applied. */
  private wanted: WantedSnapshot | undefined;
  /** Snapshots by whose end applies wait in the queue. */
  private readonly holds = new Set<SnapshotCursor>();
  private callEntries: number;
  /** A slice runs, or one is in the run queue. */
  private busy = false;
  private failure: KeelsonError | undefined;
  private closed = false;

  constructor(machine: AnyStateMachine, options: MainThreadHostOptions) {
    this.machine = machine;
    this.group = options.group;
    this.events = options.events;
    this.scheduler = options.scheduler;
    this.limits = options.limits;
    this.codec = options.codec ?? machine.codec ?? msgpackCodec;
    this.cursor = new EntryCursor(this.codec);
    this.callEntries = Math.min(FIRST_CALL_ENTRIES, options.limits.maxApplyEntries);
    this.resume = () => this.runSlice();
  }

  get version(): number {
    return this.machine.version ?? 1;
  }

  async open(): Promise<number> {
    let lastApplied: unknown;
    try {
      lastApplied = await this.machine.open?.();
    } catch (error) {
      throw machineThrew('open', error);
    }
    this.lastAccepted = checkLastApplied(lastApplied ?? 0);
    this.lastApplied = this.lastAccepted;
    return this.lastAccepted;
  }

  apply(lease: EntriesLease, firstIndex: number, lastIndex: number): void {
    if (this.closed || this.failure !== undefined) return;
    if (firstIndex !== this.lastAccepted + 1 || lastIndex < firstIndex) {
      invariant(false, `apply of ${firstIndex}…${lastIndex} must follow ${this.lastAccepted}`);
    }
    this.lastAccepted = lastIndex;
    lease.retain();
    this.queue.push({ lease, firstIndex, lastIndex, responses: undefined });
    if (this.busy || this.held) return;
    if (this.queue.length === 1 && lastIndex - firstIndex < UNTIMED_ENTRIES) this.runUntimed();
    else this.runSlice();
  }

  query(query: unknown): unknown {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (this.closed) return Promise.reject(closedError(this.group));
    if (this.gate.isShut) return this.gate.pass().then(() => this.query(query));
    try {
      const answer: unknown = this.machine.query(query);
      return isThenable(answer) ? later(answer) : answer;
    } catch (error) {
      return Promise.reject(queryFailed(error));
    }
  }

  snapshot(): Promise<MachineSnapshot> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (this.closed) return Promise.reject(closedError(this.group));
    this.wanted?.reject(replacedError());
    return new Promise((resolve, reject) => {
      this.wanted = { resolve, reject };
      if (!this.busy) this.beginSnapshot(this.wanted);
    });
  }

  async restore(chunks: AsyncIterable<Uint8Array>, lastIndex: number): Promise<void> {
    invariant(this.queue.length === 0, 'a machine is restored between applies');
    const message = 'the state machine is restored from a snapshot';
    this.wanted?.reject(new KeelsonError('KEELSON_ABORTED', message));
    this.wanted = undefined;
    await this.gate.during(async () => {
      try {
        await this.machine.restore(chunks);
      } catch (error) {
        throw machineThrew('restore', error);
      }
    });
    this.lastAccepted = lastIndex;
    this.lastApplied = lastIndex;
  }

  encode(command: unknown): Uint8Array {
    return this.codec.encode(command);
  }

  /** Digest of the machine's state, or undefined if it has none. */
  async digest(): Promise<string | undefined> {
    return await this.machine.digest?.();
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.releaseAll();
    try {
      await this.machine.close?.();
    } catch (error) {
      throw machineThrew('close', error);
    }
  }

  private get held(): boolean {
    return this.holds.size > 0;
  }

  /** A few entries for an idle host: reading the clock would cost as much as applying them. */
  private runUntimed(): void {
    this.busy = true;
    try {
      this.step(this.queue[0]!);
    } finally {
      this.busy = false;
    }
    if (this.queue.length > 0 && !this.held) this.runSlice();
  }

  private runSlice(): void {
    this.busy = true;
    const { limits, scheduler, queue } = this;
    const started = scheduler.now();
    let before = started;
    try {
      while (queue.length > 0 && !this.held) {
        this.step(queue[0]!);
        const now = scheduler.now();
        this.adapt(now - before);
        before = now;
        if (queue.length > 0 && now - started >= limits.applySliceMs) {
          scheduler.enqueue(this.resume);
          return;
        }
      }
      this.busy = false;
    } catch (error) {
      this.busy = false;
      throw error;
    }
  }

  private step(queued: QueuedApply): void {
    const { cursor } = this;
    const { lease, firstIndex, lastIndex } = queued;
    if (cursor.done) cursor.begin(lease.spans ?? spansOf(lease.parts), firstIndex, lastIndex);
    let responses: unknown[];
    try {
      const { machine, group, limits } = this;
      responses = applyNext(
        machine,
        cursor,
        group,
        this.callEntries,
        limits.maxApplyBytes,
      ).responses;
    } catch (error) {
      this.failure = error as KeelsonError;
      this.releaseAll();
      this.events.failed(this.failure);
      return;
    }
    if (queued.responses === undefined) queued.responses = responses;
    else for (const response of responses) queued.responses.push(response);
    if (!cursor.done) return;
    // Mostly it was the only one, and `pop` keeps the room for the next.
    if (this.queue.length === 1) this.queue.pop();
    else this.queue.shift();
    lease.release();
    this.lastApplied = lastIndex;
    this.events.applied(firstIndex, lastIndex, queued.responses);
    if (this.wanted !== undefined) this.beginSnapshot(this.wanted);
  }

  private beginSnapshot({ resolve, reject }: WantedSnapshot): void {
    this.wanted = undefined;
    let cursor: SnapshotCursor;
    try {
      cursor = new SnapshotCursor(this.machine);
    } catch (error) {
      reject(error as KeelsonError);
      return;
    }
    if (this.machine.concurrentSnapshot !== true) this.holds.add(cursor);
    resolve({
      lastIndex: this.lastApplied,
      next: (into) => this.nextPiece(cursor, into),
      end: () => {
        this.goOn(cursor);
        return cursor.end();
      },
    });
  }

  /** Then everything else has the thread for as long: a write takes several turns of the event loop. */
  private async nextPiece(cursor: SnapshotCursor, into: Uint8Array): Promise<number | undefined> {
    const { scheduler } = this;
    const startedMs = scheduler.now();
    const filled = await cursor.next(into, scheduler);
    const tookMs = Math.min(scheduler.now() - startedMs, MAX_REST_MS);
    await new Promise<void>((resolve) => scheduler.setTimer(tookMs, resolve));
    return filled;
  }

  /** The snapshot has ended. */
  private goOn(cursor: SnapshotCursor): void {
    if (!this.holds.delete(cursor) || this.held) return;
    if (this.queue.length > 0 && !this.busy) this.runSlice();
  }

  /** Keeps one call well within a slice, whatever an entry costs this machine. */
  private adapt(elapsedMs: number): void {
    const { applySliceMs, maxApplyEntries } = this.limits;
    if (elapsedMs > applySliceMs) this.callEntries = Math.max(1, this.callEntries >> 1);
    else if (elapsedMs * 4 < applySliceMs && this.callEntries < maxApplyEntries) {
      this.callEntries = Math.min(maxApplyEntries, this.callEntries * 2);
    }
  }

  private releaseAll(): void {
    for (const { lease } of this.queue.splice(0)) lease.release();
    this.wanted?.reject(this.failure ?? closedError(this.group));
    this.wanted = undefined;
  }
}

interface WantedSnapshot {
  readonly resolve: (snapshot: MachineSnapshot) => void;
  readonly reject: (error: KeelsonError) => void;
}

interface QueuedApply {
  readonly lease: EntriesLease;
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** Of the slices so far. */
  responses: unknown[] | undefined;
}

function isThenable(answer: unknown): answer is PromiseLike<unknown> {
  return typeof (answer as { readonly then?: unknown } | null | undefined)?.then === 'function';
}

async function later(answer: PromiseLike<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (error) {
    throw queryFailed(error);
  }
}

/** What a machine's `open` returned must be an index. */
export function checkLastApplied(lastApplied: unknown): number {
  if (Number.isSafeInteger(lastApplied) && (lastApplied as number) >= 0)
    return lastApplied as number;
  throw new KeelsonError(
    'KEELSON_STATE_MACHINE_FAILED',
    `open of the state machine must return the index of its last applied entry, and returned ${lastApplied}`,
  );
}

/** Nobody but a build that was given up waited for it. */
function replacedError(): KeelsonError {
  return new KeelsonError('KEELSON_ABORTED', 'a later snapshot was asked for before it had begun');
}

export function closedError(group: number): KeelsonError {
  return new KeelsonError('KEELSON_CLOSED', `the state machine of group ${group} is closed`);
}
