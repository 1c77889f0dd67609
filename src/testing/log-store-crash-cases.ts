/**
 * What a log store knows after a crash, and what it does on a disk that fails: what it has acknowledged is
 * there, whatever else is there was submitted, no vote goes back, and nothing is acknowledged after a failure.
 */
import assert from 'node:assert/strict';
import { SeededRandom } from '../base/random.js';
import { systemScheduler } from '../base/system-scheduler.js';
import type { LogStore } from '../storage/log-store.js';
import type { ConformanceCase } from './conformance.js';
import { until } from './conformance.js';
import { checkHistories } from './log-history.js';
import type {
  CrashingLogStoreFixture,
  FailingLogStoreFixture,
  LogStoreFixture,
  MakeFixture,
} from './log-store-fixture.js';
import { type LogStep, LogWorkload } from './log-workload.js';

const GROUPS: readonly number[] = [0, 1, 70_000];
const ROUNDS = 16;
const MAX_STEPS = 60;
const MAX_BYTES = 3_000;
const MAX_TURNS = 12;
const NO_EVENTS = { flushed() {}, failed() {}, writable() {} };

/** For stores whose loss of power can be brought about. */
export function logStoreCrashCases(
  makeFixture: MakeFixture<CrashingLogStoreFixture>,
): ConformanceCase[] {
  return [
    {
      name: 'what was acknowledged survives a crash, and what else is there was submitted',
      run: () =>
        rounds(makeFixture, async (fixture, seed) => {
          const random = new SeededRandom(seed);
          const workload = await runRandomSteps(fixture, random, seed);
          await turns(random.integer(MAX_TURNS));
          await fixture.crash();
          const store = await fixture.open(NO_EVENTS);
          const seen = await checkHistories(store, workload.histories);
          await fixture.crash();
          const again = await fixture.open(NO_EVENTS);
          await checkHistories(again, seen);
          await again.close();
        }),
    },
    {
      name: 'what was closed in order is whole, though the power fails then',
      run: () =>
        rounds(makeFixture, async (fixture, seed) => {
          const workload = await runRandomSteps(fixture, new SeededRandom(seed), seed);
          await workload.store?.close();
          for (const history of workload.histories.values()) history.closed();
          await fixture.crash();
          const store = await fixture.open(NO_EVENTS);
          await checkHistories(store, workload.histories);
          await store.close();
        }),
    },
  ];
}

/** For stores whose disk can be made to fail. */
export function logStoreFaultCases(
  makeFixture: MakeFixture<FailingLogStoreFixture>,
): ConformanceCase[] {
  return [
    {
      name: 'a write that fails is told, and final: nothing more is acknowledged or taken',
      run: () =>
        rounds(makeFixture, async (fixture, seed) => {
          const random = new SeededRandom(seed);
          const workload = await runRandomSteps(fixture, random, seed);
          await fixture.failWrites();
          await workload.run([{ do: 'append', group: 0, count: 3, bytes: 100 }]);
          await until(() => workload.failure !== undefined, 'the store says that it has failed');
          const store = workload.store!;
          assert.throws(
            () => stageOne(store),
            `seed ${seed}: a store that has failed takes nothing`,
          );
          await store.close();
          assert.equal(workload.lateAcknowledgements, 0, `seed ${seed}: acknowledged afterwards`);
          const next = await fixture.open(NO_EVENTS);
          await checkHistories(next, workload.histories);
          await next.close();
        }),
    },
  ];
}

/** The same body with one fixture and one seed after another; a failure tells the seed. */
async function rounds<Fixture extends LogStoreFixture>(
  makeFixture: MakeFixture<Fixture>,
  body: (fixture: Fixture, seed: number) => Promise<void>,
): Promise<void> {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const fixture = await makeFixture();
    try {
      await body(fixture, seed);
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`seed ${seed}: ${message}`, { cause });
    } finally {
      await fixture.dispose();
    }
  }
}

async function runRandomSteps(
  fixture: LogStoreFixture,
  random: SeededRandom,
  seed: number,
): Promise<LogWorkload> {
  const workload = new LogWorkload((events) => fixture.open(events), GROUPS, seed);
  await workload.run(randomSteps(random));
  if (workload.failure !== undefined) throw workload.failure;
  return workload;
}

function randomSteps(random: SeededRandom): LogStep[] {
  const count = 1 + random.integer(MAX_STEPS);
  return Array.from({ length: count }, () => randomStep(random));
}

function randomStep(random: SeededRandom): LogStep {
  const group = GROUPS[random.integer(GROUPS.length)]!;
  const kind = random.integer(100);
  if (kind < 30) return { do: 'wait' };
  if (kind < 40) return { do: 'vote', group };
  if (kind < 50) return { do: 'commit', group };
  if (kind < 56) return { do: 'truncate', group, entries: 1 + random.integer(3) };
  if (kind < 64) return { do: 'purge', group, keep: random.integer(3) };
  if (kind < 66) return { do: 'reset', group, ahead: random.integer(6) - 2 };
  if (kind < 69) return { do: 'reopen' };
  const back = random.chance(0.2) ? 1 + random.integer(2) : 0;
  return { do: 'append', group, count: 1 + random.integer(4), bytes: MAX_BYTES, back };
}

function stageOne(store: LogStore): void {
  const payloads = [new Uint8Array(1)];
  store.stage(9, { firstIndex: 1, term: 1, time: 1, kind: 2, payloads, count: 1 });
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) {
    await new Promise<void>((resolve) => systemScheduler.enqueueLate(resolve));
  }
}
