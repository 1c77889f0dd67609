/** How the cases for state machines make machines, apply to them, and compare them. */
import { msgpackCodec } from '../state-machine/codec.js';
import type { Codec, Entry, StateMachine } from '../state-machine/state-machine.js';

export interface StateMachineFixture<Command, Response, Query, Answer> {
  /** A new machine whose state is empty. */
  create():
    | Machine<Command, Response, Query, Answer>
    | Promise<Machine<Command, Response, Query, Answer>>;
  /** Commands that change the state, two at least; each is applied many times, in any order. */
  readonly commands: readonly Command[];
  /** Queries whose answers together show the state. */
  readonly queries: readonly Query[];
  /** What a client may send by mistake: it is answered, and changes nothing. */
  readonly badCommands?: readonly unknown[];
}

type Machine<Command, Response, Query, Answer> = StateMachine<Command, Response, Query, Answer>;

// biome-ignore lint/suspicious/noExplicitAny: matches every fixture, whatever its types
export type AnyFixture = StateMachineFixture<any, any, any, any>;
// biome-ignore lint/suspicious/noExplicitAny: matches every machine, whatever its types
export type AnyMachine = StateMachine<any, any, any, any>;

export interface Planned {
  readonly index: number;
  readonly term: number;
  readonly time: number;
  readonly command: unknown;
}

/** How a run of entries is applied. */
export interface ApplyOptions {
  /** Entries in one call; all of them when absent. */
  readonly together?: number;
  /** Overwrite the bytes that commands were decoded from when `apply` has returned, as the log does. */
  readonly poison?: boolean;
  /** Runs each call of `apply`. */
  readonly around?: (apply: () => unknown[]) => unknown[];
}

const POISON = 0xdd;

/** Applies entries as a node does: decoded from bytes of their own. Returns the responses. */
export function applyTo(
  machine: AnyMachine,
  planned: readonly Planned[],
  options: ApplyOptions = {},
): unknown[] {
  const {
    together = Math.max(1, planned.length),
    poison = false,
    around = (apply) => apply(),
  } = options;
  const codec: Codec<unknown> = machine.codec ?? msgpackCodec;
  const responses: unknown[] = [];
  for (let from = 0; from < planned.length; from += together) {
    const slice = planned.slice(from, from + together);
    const bytes = slice.map(({ command }) => Uint8Array.from(codec.encode(command)));
    const entries: Entry<unknown>[] = slice.map(({ index, term, time }, place) => ({
      logId: { index, term },
      time,
      command: codec.decode(bytes[place]!),
    }));
    responses.push(...around(() => machine.apply(entries)));
    if (poison) for (const each of bytes) each.fill(POISON);
  }
  return responses;
}

/** All that can be seen of a state. */
export async function stateOf(machine: AnyMachine, fixture: AnyFixture): Promise<unknown> {
  const answers: unknown[] = [];
  for (const query of fixture.queries) answers.push(structuredClone(await machine.query(query)));
  return { answers, digest: await machine.digest?.() };
}

export async function snapshotOf(machine: AnyMachine): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  // A chunk may be a view of memory that the machine uses again.
  for await (const chunk of machine.snapshot()) chunks.push(Uint8Array.from(chunk));
  return chunks;
}

/** The same bytes in chunks of that size. */
export async function* inChunks(
  chunks: readonly Uint8Array[],
  bytes: number,
): AsyncGenerator<Uint8Array> {
  const all = Buffer.concat(chunks);
  for (let at = 0; at < all.length; at += bytes)
    yield Uint8Array.from(all.subarray(at, at + bytes));
}
