/** The suite for state machines passes what is sound, and each fault of a machine fails its case. */
import { describe, expect, it } from 'vitest';
import { KeyValueMachine } from '../../dist/state-machine/key-value.js';
import type { Entry, StateMachine } from '../../dist/state-machine/state-machine.js';
import { type ConformanceCase, stateMachineCases } from '../../dist/testing/index.js';
import { Bank } from '../../examples/bank/bank.js';
import { failureOf } from './failure-of.js';

type Command = { readonly add: number } | { readonly tag: string };

const bytesOf = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

async function joined(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

/** A sum and a list of tags. */
class Tally implements StateMachine<Command, number, 'sum' | 'tags', unknown> {
  readonly version: number = 1;
  state: { sum: number; tags: string[] } = { sum: 0, tags: [] };

  apply(entries: readonly Entry<Command>[]): number[] {
    return entries.map(({ command }) => this.one(command));
  }

  one(command: Command): number {
    if (command === null || typeof command !== 'object') return -1;
    if ('add' in command) this.state.sum += command.add;
    else if ('tag' in command) this.state.tags.push(command.tag);
    return this.state.sum;
  }

  query(query: 'sum' | 'tags'): unknown {
    return this.state[query];
  }

  snapshot(): Iterable<Uint8Array> {
    return [bytesOf(this.state)];
  }

  async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    this.state = JSON.parse(new TextDecoder().decode(await joined(chunks)));
  }
}

const casesOf = (create: () => Tally): ConformanceCase[] =>
  stateMachineCases({
    create,
    commands: [{ add: 5 }, { tag: 'a' }, { add: -2 }],
    queries: ['sum', 'tags'],
    badCommands: [null, 7, {}],
  });

describe('a sound state machine', () => {
  for (const { name, run } of casesOf(() => new Tally())) it(name, run);
});

describe('the key-value machine', () => {
  const value = (text: string): Uint8Array => new TextEncoder().encode(text);
  const cases = stateMachineCases({
    create: () => new KeyValueMachine(),
    commands: [
      { op: 'put', key: 'a', value: value('one') },
      { op: 'put', key: 'b', value: value('two') },
      { op: 'put', key: 'a', value: value('three'), ifVersion: 1 },
      { op: 'delete', key: 'a' },
      { op: 'put', key: 'c', value: new Uint8Array(10_000).fill(3), ifVersion: 0 },
      { op: 'delete', key: 'b', ifVersion: 2 },
    ],
    queries: [{ op: 'range' }, { op: 'get', key: 'a' }, { op: 'get', key: 'b' }],
    badCommands: [null, 'put', { op: 'put', key: 'k' }, { op: 'no', key: 'k' }, { op: 'delete' }],
  });
  for (const { name, run } of cases) it(name, run);
});

describe('the bank of the guide', () => {
  const cases = stateMachineCases({
    create: () => new Bank(),
    commands: [
      { op: 'deposit', to: 'ann', amount: 5 },
      { op: 'move', from: 'ann', to: 'bob', amount: 2 },
    ],
    queries: [{ balance: 'ann' }, { balance: 'bob' }],
  });
  for (const { name, run } of cases) it(name, run);
});

const BROKEN: readonly (readonly [fault: string, failing: string, create: () => Tally])[] = [
  [
    'shows in a snapshot what was applied after its call',
    'gives the state of the call in a snapshot',
    () =>
      new (class extends Tally {
        readonly concurrentSnapshot = true;
        override *snapshot(): Iterable<Uint8Array> {
          yield bytesOf(this.state).subarray(0, 0);
          yield bytesOf(this.state);
        }
      })(),
  ],
  [
    'loses a response',
    'gives one response',
    () =>
      new (class extends Tally {
        override apply(entries: readonly Entry<Command>[]): number[] {
          return super.apply(entries).slice(0, 50);
        }
      })(),
  ],
  [
    'differs from the next one',
    'gives the same state and responses',
    () =>
      new (class extends Tally {
        readonly salt = ++made;
        override one(command: Command): number {
          this.state.sum += this.salt;
          return super.one(command);
        }
      })(),
  ],
  [
    'takes part of its state from chance',
    'takes neither clock nor chance',
    () =>
      new (class extends Tally {
        override one(command: Command): number {
          this.state.sum += Math.floor(Math.random() * 1e6);
          return super.one(command);
        }
      })(),
  ],
  [
    'takes part of its state from the clock',
    'takes neither clock nor chance',
    () =>
      new (class extends Tally {
        override one(command: Command): number {
          this.state.sum = Math.floor(Date.now() / 60_000_000);
          return super.one(command);
        }
      })(),
  ],
  [
    'sees how many entries a call brings',
    'does not care how entries are cut',
    () =>
      new (class extends Tally {
        override apply(entries: readonly Entry<Command>[]): number[] {
          this.state.sum += entries.length;
          return super.apply(entries);
        }
      })(),
  ],
  [
    'demands that indexes have no gaps',
    'bears gaps',
    () =>
      new (class extends Tally {
        last = 0;
        override apply(entries: readonly Entry<Command>[]): number[] {
          for (const { logId } of entries) {
            if (logId.index !== ++this.last) throw new Error('a gap');
          }
          return super.apply(entries);
        }
      })(),
  ],
  [
    'keeps views of what it is given',
    'keeps nothing of the bytes',
    () =>
      new (class extends Tally {
        readonly kept: Uint8Array[] = [];
        readonly codec = {
          encode: (command: Command): Uint8Array => bytesOf(command),
          decode: (bytes: Uint8Array): Command => {
            this.kept.push(bytes);
            return JSON.parse(new TextDecoder().decode(bytes));
          },
        };
        override query(): unknown {
          return this.kept.map((bytes) => [...bytes]);
        }
      })(),
  ],
  [
    'counts what it is asked',
    'does not change when it is asked',
    () =>
      new (class extends Tally {
        override query(query: 'sum' | 'tags'): unknown {
          this.state.sum++;
          return super.query(query);
        }
      })(),
  ],
  [
    'leaves something out of its snapshot',
    'is the same after its snapshot was restored',
    () =>
      new (class extends Tally {
        override snapshot(): Iterable<Uint8Array> {
          return [bytesOf({ ...this.state, tags: [] })];
        }
      })(),
  ],
  [
    'keeps something when it is restored',
    'whatever it held before',
    () =>
      new (class extends Tally {
        override async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
          const { tags } = this.state;
          await super.restore(chunks);
          this.state.tags.push(...tags);
        }
      })(),
  ],
  [
    'takes each chunk for a whole value',
    'whatever chunks it comes in',
    () =>
      new (class extends Tally {
        override async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
          for await (const chunk of chunks)
            this.state = JSON.parse(new TextDecoder().decode(chunk));
        }
      })(),
  ],
  [
    'cannot restore nothing',
    'snapshot of an empty state',
    () =>
      new (class extends Tally {
        override snapshot(): Iterable<Uint8Array> {
          return this.state.sum === 0 ? [] : super.snapshot();
        }
      })(),
  ],
  [
    'takes half of a snapshot for all of it',
    'from a source that fails',
    () =>
      new (class extends Tally {
        override async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
          await super.restore(chunks).catch(() => {});
        }
      })(),
  ],
  [
    'throws at what a client sends',
    'answers a bad command',
    () =>
      new (class extends Tally {
        override one(command: Command): number {
          if (command === null) throw new Error('no command');
          return super.one(command);
        }
      })(),
  ],
  [
    'has another version each time',
    'has one version',
    () => Object.assign(new Tally(), { version: ++made }),
  ],
];
let made = 0;

describe('a state machine that', () => {
  it.each(BROKEN)('%s fails the case "%s…"', async (_, failing, create) => {
    expect(await failureOf(casesOf(create), failing)).toBeInstanceOf(Error);
  });

  it('every case is failed by one', () => {
    const failing = BROKEN.map(([, name]) => name);
    const names = casesOf(() => new Tally()).map(({ name }) => name);
    const never = names.filter((name) => !failing.some((part) => name.includes(part)));
    expect(never).toEqual([]);
  });
});
