/**
 * One walk over what `snapshot()` of a machine yields, the same on the main thread and in a worker: in
 * pieces of bounded size and time, copied out at once, because a machine may yield a view of its state.
 */
import { KeelsonError } from '../base/errors.js';
import type { Scheduler } from '../base/scheduler.js';
import { machineThrew } from './machine-fault.js';
import type { AnyStateMachine } from './state-machine.js';

/** Applies wait that long for a piece. */
const SLICE_MS = 1;

type Step = IteratorResult<Uint8Array, unknown>;

export class SnapshotCursor {
  private readonly iterator: Iterator<Uint8Array> | AsyncIterator<Uint8Array>;
  /** The first step, until it is looked at. */
  private first: Step | Promise<Step> | undefined;
  /** What is left of the last chunk. */
  private rest: Uint8Array = NOTHING;
  /** The machine has no more to give. */
  private done = false;
  /** By `end`, or by an error: what was given is not whole. */
  private ended = false;

  /**
   * Asks for the first chunk at once: a generator runs up to its first `yield` only then, and its view of
   * the state is to be that of this moment.
   * @throws KeelsonError STATE_MACHINE_FAILED
   */
  constructor(machine: AnyStateMachine) {
    try {
      this.iterator = iteratorOf(machine.snapshot());
      this.first = this.iterator.next();
    } catch (error) {
      throw machineThrew('snapshot', error);
    }
    // It may fail before anybody waits for it; `advance` tells.
    if (this.first instanceof Promise) this.first.catch(toldLater);
  }

  /**
   * Fills `into`, or a part of it, even nothing, when a slice of time is over between two chunks of the
   * machine. Returns the bytes; undefined behind the end of what the machine yields.
   * @throws KeelsonError STATE_MACHINE_FAILED, ABORTED when it was ended before
   */
  async next(into: Uint8Array, clock: Pick<Scheduler, 'now'>): Promise<number | undefined> {
    const untilMs = clock.now() + SLICE_MS;
    let filled = 0;
    let asked = false;
    while (filled < into.length) {
      if (this.rest.length === 0) {
        if (asked && clock.now() >= untilMs) break;
        asked = true;
        if (!(await this.advance())) break;
      }
      const piece = this.rest.subarray(0, into.length - filled);
      into.set(piece, filled);
      this.rest = this.rest.subarray(piece.length);
      filled += piece.length;
    }
    if (this.ended) throw new KeelsonError('KEELSON_ABORTED', 'the snapshot was ended');
    return filled === 0 && this.done ? undefined : filled;
  }

  /** The machine may drop its view. @throws KeelsonError STATE_MACHINE_FAILED */
  async end(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    this.rest = NOTHING;
    if (this.done) return;
    this.done = true;
    try {
      await this.iterator.return?.();
    } catch (error) {
      throw machineThrew('snapshot', error);
    }
  }

  private async advance(): Promise<boolean> {
    if (this.done) return false;
    try {
      const step = await (this.first ?? this.iterator.next());
      this.first = undefined;
      if (this.done || step.done === true) {
        this.done = true;
        return false;
      }
      checkChunk(step.value);
      this.rest = step.value;
      return true;
    } catch (error) {
      this.done = true;
      this.ended = true;
      throw machineThrew('snapshot', error);
    }
  }
}

const NOTHING: Uint8Array = new Uint8Array(0);

function toldLater(): void {}

function iteratorOf(
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Iterator<Uint8Array> | AsyncIterator<Uint8Array> {
  if (Symbol.asyncIterator in chunks) return chunks[Symbol.asyncIterator]();
  return chunks[Symbol.iterator]();
}

function checkChunk(chunk: unknown): void {
  if (chunk instanceof Uint8Array) return;
  throw new TypeError(`it must yield Uint8Array, and yielded ${typeof chunk}`);
}
