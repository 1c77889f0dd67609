/** What a log store does with what is written to it: reads give it back, completions come in order. */
import assert from 'node:assert/strict';
import { SeededRandom } from '../base/random.js';
import { type ConformanceCase, payloadsOf, refuses, same } from './conformance.js';
import { logStoreCase, type MakeLogStoreFixture } from './log-store-fixture.js';

export function logStoreWritingCases(makeFixture: MakeLogStoreFixture): ConformanceCase[] {
  return [
    logStoreCase(makeFixture, 'a new log is empty', async (stores) => {
      const store = await stores.open();
      const empty = {
        vote: { term: 0, nodeId: 0, committed: false },
        purged: { term: 0, index: 0 },
        termRuns: [],
        lastIndex: 0,
        committed: 0,
        memberships: [],
      };
      same(store.recovered(0), empty, 'what is found');
      assert.equal(store.lastTime(0), 0);
    }),

    logStoreCase(
      makeFixture,
      'gives back what was appended, at once and after it was flushed',
      async (stores) => {
        const driver = await stores.openDriver();
        driver.append(payloadsOf(0));
        driver.append(payloadsOf(1, 7, 0, 300));
        driver.time++;
        const lengths = Array.from({ length: 500 }, (_, place) => place);
        const io = driver.append(payloadsOf(...lengths));
        await driver.expectWhole('before the flush');
        await driver.durable(io);
        await driver.expectWhole('after the flush');
      },
    ),

    logStoreCase(
      makeFixture,
      'reports completion after the call, in order, and the last I/O always',
      async (stores) => {
        const driver = await stores.openDriver();
        let last = driver.append(payloadsOf(10));
        for (let round = 0; round < 50; round++) {
          last = driver.append(payloadsOf(round));
          if (round % 3 === 0) {
            last = driver.io();
            driver.store.advanceIo(0, last);
          }
          if (round % 7 === 0) {
            last = driver.io();
            driver.store.saveVote(0, last);
          }
          if (round % 10 === 9) last = driver.truncateAfter(driver.lastIndex - 1);
          const done = driver.flushed.at(-1)?.sequence ?? 0;
          assert.ok(done < last.sequence, 'no call completes its own I/O');
          if (round % 8 === 0) await driver.durable(last);
        }
        await driver.durable(last);
        const sequences = driver.flushed.map(({ sequence }) => sequence);
        const ascending = [...new Set(sequences)].sort((left, right) => left - right);
        same(sequences, ascending, 'completions');
        same(driver.flushed.at(-1), last, 'the last completion');
      },
    ),

    logStoreCase(makeFixture, 'advanceIo alone completes', async (stores) => {
      const driver = await stores.openDriver();
      const io = driver.io();
      driver.store.advanceIo(0, io);
      same(driver.flushed, [], 'completions within the call');
      await driver.durable(io);
      same(driver.flushed, [io], 'completions');
    }),

    logStoreCase(
      makeFixture,
      'any range within any budget is a prefix of what was asked for',
      async (stores) => {
        const seed = 11;
        const random = new SeededRandom(seed);
        const driver = await stores.openDriver();
        for (let block = 0; block < 40; block++) {
          const count = 1 + random.integer(12);
          driver.append(Array.from({ length: count }, () => payloadsOf(random.integer(200))[0]!));
        }
        for (let round = 0; round < 400; round++) {
          const first = 1 + random.integer(driver.lastIndex);
          const last = first + random.integer(driver.lastIndex - first + 1);
          const budget = 1 + random.integer(random.chance(0.5) ? 500 : 20_000);
          const entries = await driver.read(first, last, budget);
          const what = `seed ${seed} round ${round}: ${first} to ${last}, ${budget} bytes`;
          assert.ok(entries.length > 0, what);
          assert.ok(entries.length <= last - first + 1, what);
          same(entries, driver.model.slice(first - 1, first - 1 + entries.length), what);
        }
        const all = await driver.read(3, driver.lastIndex);
        assert.equal(all.length, driver.lastIndex - 2);
      },
    ),

    logStoreCase(
      makeFixture,
      'an append at an earlier index takes the place of what was there',
      async (stores) => {
        const driver = await stores.openDriver();
        driver.append(payloadsOf(1, 2, 3, 4, 5));
        driver.append(payloadsOf(6, 7));
        driver.term = 2;
        driver.append(payloadsOf(50, 51), 4);
        await driver.expectWhole();
        assert.equal(driver.lastIndex, 5);
        driver.term = 3;
        await driver.durable(driver.append(payloadsOf(9), 1));
        await driver.expectWhole();
        driver.append(payloadsOf(8));
        const { next, found } = await stores.reopen(driver);
        driver.expectRecovered(found);
        await next.expectWhole();
      },
    ),

    logStoreCase(
      makeFixture,
      'a range that was read before and then overwritten is read anew',
      async (stores) => {
        const driver = await stores.openDriver();
        driver.append(payloadsOf(1, 2, 3));
        await driver.read(1, 3, 1000);
        driver.term = 2;
        driver.append(payloadsOf(4, 5), 2);
        same(await driver.read(1, 3, 1000), driver.model, 'the range');
      },
    ),

    logStoreCase(
      makeFixture,
      'what is staged stands beside the log until it is appended',
      async (stores) => {
        const driver = await stores.openDriver();
        driver.append(payloadsOf(1, 2));
        const { store } = driver;
        const entries = { term: 1, time: 1, kind: 2, count: 1 };
        store.stage(0, { ...entries, firstIndex: 3, payloads: payloadsOf(77) });
        store.stage(0, { ...entries, firstIndex: 2, payloads: payloadsOf(78) });
        await driver.expectWhole();
        driver.append(payloadsOf(79, 80));
        await driver.expectWhole();
      },
    ),

    logStoreCase(
      makeFixture,
      'large payloads pass, too large ones change nothing',
      async (stores) => {
        const driver = await stores.openDriver();
        const { maxPayloadBytes } = stores.fixture;
        const random = new SeededRandom(5);
        driver.append([random.fill(new Uint8Array(maxPayloadBytes))]);
        driver.append(payloadsOf(5));
        await driver.durable(driver.append([random.fill(new Uint8Array(maxPayloadBytes >> 1))]));
        const tooLarge = [new Uint8Array(64 * maxPayloadBytes)];
        refuses('KEELSON_OVERLOADED', () => driver.append(tooLarge), 'a payload that is too large');
        await driver.expectWhole();
        const { next } = await stores.reopen(driver);
        await next.expectWhole();
      },
    ),

    logStoreCase(
      makeFixture,
      'views stay as they are until their release, whatever happens to the log',
      async (stores) => {
        const driver = await stores.openDriver();
        driver.append(payloadsOf(100, 101, 102));
        driver.append(payloadsOf(103));
        const lease = await driver.store.read(0, 1, 4, 1 << 20);
        lease.retain();
        lease.release();
        const before = Buffer.concat(lease.parts);
        driver.truncateAfter(1);
        driver.term = 2;
        for (let round = 0; round < 300; round++) {
          const io = driver.append(payloadsOf(1000, 2000));
          if (round % 50 === 0) await driver.durable(io);
        }
        assert.ok(Buffer.concat(lease.parts).equals(before), 'the leased bytes are as they were');
        lease.release();
        await driver.expectWhole();
      },
    ),

    logStoreCase(makeFixture, 'a closed store refuses work', async (stores) => {
      const driver = await stores.openDriver();
      await driver.store.close();
      await driver.store.close();
      refuses('KEELSON_CLOSED', () => driver.append(payloadsOf(1)), 'an append');
    }),
  ];
}
