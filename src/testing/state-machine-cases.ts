/**
 * What every state machine must do to be replicated: the same entries give the same state and the same
 * responses on every node, however they are cut into calls, and a snapshot is the whole state.
 */
import assert from 'node:assert/strict';
import { SeededRandom } from '../base/random.js';
import { type ConformanceCase, same } from './conformance.js';
import { elsewhere } from './elsewhere.js';
import {
  type AnyFixture,
  type AnyMachine,
  applyTo,
  inChunks,
  type Planned,
  type StateMachineFixture,
  snapshotOf,
  stateOf,
} from './state-machine-fixture.js';

const ENTRIES = 60;
const SEED = 17;

type Body = (fixture: AnyFixture, open: () => Promise<AnyMachine>) => Promise<void>;

const CASES: readonly (readonly [name: string, body: Body])[] = [
  ['gives one response for each entry', respondsToEach],
  ['gives the same state and responses for the same entries', isDeterministic],
  ['does not care how entries are cut into calls', doesNotSeeCalls],
  ['bears gaps between indexes, where entries are not its own', bearsGaps],
  ['takes neither clock nor chance into its state', usesNoClock],
  ['keeps nothing of the bytes that commands came from', keepsNoBytes],
  ['does not change when it is asked', queriesChangeNothing],
  ['is the same after its snapshot was restored, and goes on alike', restores],
  ['restores a snapshot whatever it held before', replacesState],
  ['restores a snapshot whatever chunks it comes in', restoresAnyChunks],
  ['restores the snapshot of an empty state', restoresEmpty],
  ['gives the state of the call in a snapshot that applies go on beside', isConcurrent],
  ['refuses to be restored from a source that fails', refusesBrokenSource],
  ['answers a bad command, and does not change', bearsBadCommands],
  ['has one version, a whole number from 1', hasVersion],
];

export function stateMachineCases<Command, Response, Query, Answer>(
  fixture: StateMachineFixture<Command, Response, Query, Answer>,
): ConformanceCase[] {
  assert.ok(fixture.commands.length >= 2, 'a fixture has two commands at least');
  assert.ok(fixture.queries.length > 0, 'a fixture has a query');
  return CASES.map(([name, body]) => ({
    name,
    run: async () => {
      const machines: AnyMachine[] = [];
      const open = async (): Promise<AnyMachine> => {
        const machine = await fixture.create();
        await machine.open?.();
        machines.push(machine);
        return machine;
      };
      try {
        await body(fixture, open);
      } finally {
        for (const machine of machines) await machine.close?.();
      }
    },
  }));
}

/** A log of the fixture's commands; with `gaps`, indexes and terms that jump. */
function plan(fixture: AnyFixture, seed: number = SEED, gaps = false, from = 1): Planned[] {
  const random = new SeededRandom(seed);
  const { commands } = fixture;
  let index = from - 1;
  let term = 1;
  let time = 1_700_000_000_000;
  return Array.from({ length: ENTRIES }, (_, place) => {
    index += gaps ? 1 + random.integer(3) : 1;
    if (gaps && random.chance(0.1)) term++;
    time += random.integer(3);
    // Each command comes once, then any of them.
    const command = commands[place < commands.length ? place : random.integer(commands.length)];
    return { index, term, time, command };
  });
}

async function respondsToEach(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const machine = await open();
  assert.equal(applyTo(machine, plan(fixture)).length, ENTRIES, 'responses');
  assert.equal(applyTo(machine, plan(fixture, SEED, false, ENTRIES + 1).slice(0, 1)).length, 1);
}

async function isDeterministic(
  fixture: AnyFixture,
  open: () => Promise<AnyMachine>,
): Promise<void> {
  const [first, second] = [await open(), await open()];
  const before = await stateOf(first, fixture);
  same(await stateOf(second, fixture), before, 'empty states');
  same(applyTo(second, plan(fixture)), applyTo(first, plan(fixture)), 'responses');
  const after = await stateOf(first, fixture);
  same(await stateOf(second, fixture), after, 'states');
  assert.notDeepEqual(after, before, 'the commands change what the queries show');
}

async function doesNotSeeCalls(
  fixture: AnyFixture,
  open: () => Promise<AnyMachine>,
): Promise<void> {
  const whole = await open();
  const responses = applyTo(whole, plan(fixture));
  for (const together of [1, 7]) {
    const other = await open();
    same(
      applyTo(other, plan(fixture), { together }),
      responses,
      `responses, ${together} at a time`,
    );
    const expected = await stateOf(whole, fixture);
    same(await stateOf(other, fixture), expected, `states, ${together} at a time`);
  }
}

async function bearsGaps(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [first, second] = [await open(), await open()];
  const planned = plan(fixture, SEED, true);
  const responses = applyTo(first, planned);
  assert.equal(responses.length, ENTRIES, 'responses');
  same(applyTo(second, planned, { together: 5 }), responses, 'responses');
  same(await stateOf(second, fixture), await stateOf(first, fixture), 'states');
}

async function usesNoClock(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [here, there] = [await open(), await open()];
  const responses = applyTo(here, plan(fixture));
  const others = applyTo(there, plan(fixture), { around: elsewhere });
  same(others, responses, 'responses at another time');
  same(await stateOf(there, fixture), await stateOf(here, fixture), 'states at another time');
}

async function keepsNoBytes(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [kept, poisoned] = [await open(), await open()];
  applyTo(kept, plan(fixture), { together: 4 });
  applyTo(poisoned, plan(fixture), { together: 4, poison: true });
  same(await stateOf(poisoned, fixture), await stateOf(kept, fixture), 'states');
}

async function queriesChangeNothing(
  fixture: AnyFixture,
  open: () => Promise<AnyMachine>,
): Promise<void> {
  const [asked, left] = [await open(), await open()];
  for (let round = 0; round < 3; round++) {
    const planned = plan(fixture, SEED + round, false, 1 + round * ENTRIES);
    same(applyTo(asked, planned), applyTo(left, planned), `responses of round ${round}`);
    const before = await stateOf(asked, fixture);
    same(await stateOf(asked, fixture), before, `answers of round ${round}`);
    await snapshotOf(asked);
    same(await stateOf(asked, fixture), before, `answers of round ${round}, after a snapshot`);
  }
}

async function restores(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [source, target] = [await open(), await open()];
  applyTo(source, plan(fixture));
  await target.restore(inChunks(await snapshotOf(source), 64 * 1024));
  same(await stateOf(target, fixture), await stateOf(source, fixture), 'states');
  const more = plan(fixture, SEED + 1, true, ENTRIES + 1);
  same(applyTo(target, more), applyTo(source, more), 'responses behind the snapshot');
  same(
    await stateOf(target, fixture),
    await stateOf(source, fixture),
    'states behind the snapshot',
  );
}

async function replacesState(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [source, target] = [await open(), await open()];
  applyTo(source, plan(fixture).slice(0, 1));
  applyTo(target, plan(fixture, SEED + 2));
  await target.restore(inChunks(await snapshotOf(source), 64 * 1024));
  same(await stateOf(target, fixture), await stateOf(source, fixture), 'states');
}

async function restoresAnyChunks(
  fixture: AnyFixture,
  open: () => Promise<AnyMachine>,
): Promise<void> {
  const source = await open();
  applyTo(source, plan(fixture));
  const snapshot = await snapshotOf(source);
  const expected = await stateOf(source, fixture);
  for (const bytes of [1, 7, 1 << 30]) {
    const target = await open();
    await target.restore(inChunks(snapshot, bytes));
    same(await stateOf(target, fixture), expected, `state from chunks of ${bytes} bytes`);
  }
}

async function restoresEmpty(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [source, target] = [await open(), await open()];
  applyTo(target, plan(fixture));
  await target.restore(inChunks(await snapshotOf(source), 64 * 1024));
  same(await stateOf(target, fixture), await stateOf(source, fixture), 'states');
}

/** Of a machine that says so; for others applies wait. */
async function isConcurrent(fixture: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const [source, target] = [await open(), await open()];
  if (source.concurrentSnapshot !== true) return;
  applyTo(source, plan(fixture));
  const expected = await stateOf(source, fixture);
  const more = plan(fixture, SEED + 3, false, ENTRIES + 1);
  const chunks: Uint8Array[] = [];
  for await (const chunk of source.snapshot()) {
    chunks.push(Uint8Array.from(chunk));
    applyTo(source, more.splice(0, 5));
  }
  await target.restore(inChunks(chunks, 64 * 1024));
  same(await stateOf(target, fixture), expected, 'states');
}

async function refusesBrokenSource(
  fixture: AnyFixture,
  open: () => Promise<AnyMachine>,
): Promise<void> {
  const [source, target] = [await open(), await open()];
  applyTo(source, plan(fixture));
  const snapshot = await snapshotOf(source);
  const lost = new Error('the source is lost');
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield* inChunks(snapshot, 16);
    throw lost;
  }
  // A call that throws at once is as good as a promise that rejects.
  await assert.rejects(async () => await target.restore(failing()), 'a restore that got no end');
}

async function bearsBadCommands(
  fixture: AnyFixture,
  open: () => Promise<AnyMachine>,
): Promise<void> {
  const machine = await open();
  applyTo(machine, plan(fixture));
  const before = await stateOf(machine, fixture);
  const bad = (fixture.badCommands ?? []).map((command, place) => {
    return { index: ENTRIES + 1 + place, term: 1, time: 1_800_000_000_000, command };
  });
  assert.equal(applyTo(machine, bad).length, bad.length, 'responses');
  same(await stateOf(machine, fixture), before, 'the state behind bad commands');
}

async function hasVersion(_: AnyFixture, open: () => Promise<AnyMachine>): Promise<void> {
  const versions = [(await open()).version ?? 1, (await open()).version ?? 1];
  assert.ok(Number.isSafeInteger(versions[0]) && versions[0]! >= 1, `version ${versions[0]}`);
  assert.equal(versions[1], versions[0], 'versions of two machines');
}
