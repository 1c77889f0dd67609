/**
 * The channel between the main thread and the one long task that writes a lane: words of shared
 * memory, so that handing over a batch costs one store and one wake-up.
 *
 * ```
 * word 0  SUBMITTED  batches handed over, counted by the main thread
 * word 1  EVENT      counted up by the lane's thread on every change; the main thread waits on it
 * word 2  COMPLETED  batches that are durable
 * word 3  RUNNING    1 once the first segment is durable
 * word 4  STOP       1: end behind what was submitted
 * word 5  BELL       counted up by the main thread on every change; the lane's thread sleeps on it
 * word 8  place of the carried batch (3 words, length 0: none)
 * word 16 slots of 16 words: 8 words of command, 3 words of place
 * ```
 */
import type { BatchPlace, SealCommand } from './lane-writer.js';
import { LANE_QUEUE_LIMIT } from './storage-executor.js';

export const SUBMITTED = 0;
export const EVENT = 1;
export const COMPLETED = 2;
export const RUNNING = 3;
export const STOP = 4;
const BELL = 5;
const CARRIED = 8;
const SLOTS = 16;
const SLOT_WORDS = 16;
const PLACE = 8;

export const LANE_CHANNEL_WORDS: number = SLOTS + LANE_QUEUE_LIMIT * SLOT_WORDS;

/** Keeps a busy lane from sleeping between two batches; about 20 µs, then it sleeps. */
const SPIN_ROUNDS = 4_000;

export function writeCommand(words: Int32Array, count: number, command: SealCommand): void {
  const at = SLOTS + (count % LANE_QUEUE_LIMIT) * SLOT_WORDS;
  words[at] = command.pointer;
  words[at + 1] = command.flags;
  words[at + 2] = command.blocks;
  words[at + 3] = command.items;
  words[at + 4] = command.blocksLength;
  words[at + 5] = command.hardStates;
  words[at + 6] = command.oldestSegment;
  words[at + 7] = command.roll ? 1 : 0;
}

export function readCommand(words: Int32Array, count: number): SealCommand {
  const at = SLOTS + (count % LANE_QUEUE_LIMIT) * SLOT_WORDS;
  return {
    pointer: words[at]! >>> 0,
    flags: words[at + 1]!,
    blocks: words[at + 2]!,
    items: words[at + 3]!,
    blocksLength: words[at + 4]!,
    hardStates: words[at + 5]!,
    oldestSegment: words[at + 6]! >>> 0,
    roll: words[at + 7] === 1,
  };
}

export function writePlace(words: Int32Array, count: number, place: BatchPlace): void {
  writePlaceAt(words, SLOTS + (count % LANE_QUEUE_LIMIT) * SLOT_WORDS + PLACE, place);
}

export function readPlace(words: Int32Array, count: number): BatchPlace {
  return readPlaceAt(words, SLOTS + (count % LANE_QUEUE_LIMIT) * SLOT_WORDS + PLACE);
}

export function writeCarriedPlace(words: Int32Array, place: BatchPlace | undefined): void {
  writePlaceAt(words, CARRIED, place ?? { segment: 0, position: 0, totalLength: 0 });
}

export function readCarriedPlace(words: Int32Array): BatchPlace | undefined {
  const place = readPlaceAt(words, CARRIED);
  return place.totalLength === 0 ? undefined : place;
}

/** In the lane's thread: returns when more than `taken` batches are submitted, or on stop. */
export function awaitCommand(words: Int32Array, taken: number): 'command' | 'stop' {
  let rounds = 0;
  for (;;) {
    const bell = Atomics.load(words, BELL);
    if (Atomics.load(words, SUBMITTED) !== (taken | 0)) return 'command';
    if (Atomics.load(words, STOP) === 1) return 'stop';
    if (rounds < SPIN_ROUNDS) rounds++;
    else Atomics.wait(words, BELL, bell);
  }
}

/** Tells the lane's thread that a command, or STOP, is there. */
export function ring(words: Int32Array): void {
  Atomics.add(words, BELL, 1);
  Atomics.notify(words, BELL);
}

export function announce(words: Int32Array): void {
  Atomics.add(words, EVENT, 1);
  Atomics.notify(words, EVENT);
}

function writePlaceAt(words: Int32Array, at: number, place: BatchPlace): void {
  words[at] = place.segment;
  words[at + 1] = place.position;
  words[at + 2] = place.totalLength;
}

function readPlaceAt(words: Int32Array, at: number): BatchPlace {
  return {
    segment: words[at]! >>> 0,
    position: words[at + 1]! >>> 0,
    totalLength: words[at + 2]! >>> 0,
  };
}
