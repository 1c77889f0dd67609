/** What a log store knows again after an orderly close: entries, cuts, votes, purges and resets. */
import assert from 'node:assert/strict';
import { SeededRandom } from '../base/random.js';
import { ENTRY_KIND } from '../wasm/layout.js';
import { type ConformanceCase, payloadsOf, same } from './conformance.js';
import { LogDriver } from './log-driver.js';
import { type LogStores, logStoreCase, type MakeLogStoreFixture } from './log-store-fixture.js';
import { encodeTestMembership } from './test-membership.js';

export function logStoreRecoveryCases(makeFixture: MakeLogStoreFixture): ConformanceCase[] {
  const stated = (name: string, body: (stores: LogStores) => Promise<void>): ConformanceCase =>
    logStoreCase(makeFixture, name, body);
  return [
    stated('a truncated log goes on from where it was cut', truncates),
    stated('remembers the last vote, with and without entries', votes),
    stated('recovers runs of terms, memberships, commit and time', recovers),
    stated('a recorded commit never lies beyond the log', commits),
    stated('groups do not see one another', groups),
    stated('a purged log begins behind the purge, now and after a restart', purges),
    stated('a log does not begin anew before what was committed', refusesReset),
    ...[
      [0, 10],
      [5, 3],
      [5, 5],
      [5, 20],
    ].map(([entries, index]) =>
      stated(`a log of ${entries} entries that is reset to ${index} begins anew`, (stores) =>
        resets(stores, entries!, index!),
      ),
    ),
    stated('random writes, cuts and restarts leave what the model has', runsAtRandom),
  ];
}

async function truncates(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  driver.append(payloadsOf(1, 2, 3, 4, 5));
  await driver.durable(driver.append(payloadsOf(6, 7, 8)));
  driver.truncateAfter(6);
  await driver.expectWhole('cut in the second block');
  driver.truncateAfter(3);
  driver.term = 4;
  driver.append(payloadsOf(90, 91));
  await driver.expectWhole('appended after the cut');
  const { next, found } = await stores.reopen(driver);
  next.expectRecovered(found);
  await next.expectWhole('opened again');
  await next.durable(next.truncateAfter(0));
  const again = await stores.reopen(next);
  again.next.expectRecovered(again.found);
  await again.next.durable(again.next.append(payloadsOf(1)));
  await again.next.expectWhole();
}

async function votes(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  const vote = { term: 7, nodeId: 3, committed: false };
  driver.store.saveVote(0, { sequence: ++driver.sequence, vote, logId: { term: 0, index: 0 } });
  const { next, found } = await stores.reopen(driver);
  same(found.vote, vote, 'a vote alone');
  next.term = 7;
  await next.durable(next.append(payloadsOf(3)));
  const again = await stores.reopen(next);
  same(again.found.vote, { term: 7, nodeId: 1, committed: true }, 'the vote of an append');
}

async function recovers(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  driver.append([encodeTestMembership([1, 2, 3])], 1, ENTRY_KIND.membership);
  driver.append([new Uint8Array(0)], 2, ENTRY_KIND.blank);
  driver.append(payloadsOf(4, 5, 6));
  driver.term = 5;
  driver.time = 2 ** 41;
  const memberships = [encodeTestMembership([1, 2]), encodeTestMembership([1])];
  driver.append(memberships, 6, ENTRY_KIND.membership);
  driver.store.recordCommitted(0, 4);
  await driver.durable(driver.append(payloadsOf(1)));
  const { next, found } = await stores.reopen(driver);
  next.expectRecovered(found);
  assert.equal(found.committed, 4);
  assert.equal(next.store.lastTime(0), 2 ** 41);
  next.truncateAfter(6);
  const again = await stores.reopen(next);
  again.next.expectRecovered(again.found);
  assert.equal(again.found.memberships.length, 2);
}

async function commits(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  driver.append(payloadsOf(1, 2, 3));
  driver.store.recordCommitted(0, 99);
  await driver.durable(driver.append(payloadsOf(1)));
  const { found } = await stores.reopen(driver);
  assert.ok(found.committed <= 4, `commit ${found.committed} of a log of 4`);
}

async function groups(stores: LogStores): Promise<void> {
  const store = await stores.open();
  const drivers = [0, 1, 70_000].map((group) => {
    store.recovered(group);
    return stores.drive(store, group);
  });
  for (let round = 0; round < 20; round++) {
    for (const driver of drivers) {
      driver.term = driver.group + 1;
      driver.append(payloadsOf(driver.group % 50, round));
    }
  }
  await drivers[1]!.durable(drivers[1]!.truncateAfter(7));
  for (const driver of drivers) await driver.expectWhole(`group ${driver.group}`);
  await store.close();
  const again = await stores.open();
  for (const { group, model } of drivers) {
    const driver = new LogDriver(again, group, model);
    driver.expectRecovered(again.recovered(group), `group ${group}`);
    await driver.expectWhole(`group ${group}`);
  }
}

async function purges(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  driver.append(payloadsOf(1, 2, 3, 4));
  driver.append([encodeTestMembership([1])], 5, ENTRY_KIND.membership);
  driver.term = 3;
  await driver.durable(driver.append(payloadsOf(5, 6, 7)));
  const lease = await driver.store.read(0, 1, 8, 1 << 20);
  const before = Buffer.concat(lease.parts);
  driver.purge(3);
  driver.purge(6);
  driver.store.purge(0, { index: 2, term: 1 });
  await driver.expectWhole('at once');
  assert.throws(() => driver.store.read(0, 6, 8, 1 << 20), 'what is purged cannot be read');
  const { next, found } = await stores.reopen(driver);
  assert.ok(Buffer.concat(lease.parts).equals(before), 'a lease outlives the purge');
  lease.release();
  next.expectRecovered(found);
  same(found.termRuns, [{ firstIndex: 7, term: 3 }], 'runs of terms behind the purge');
  await next.expectWhole('after a restart');
  next.append(payloadsOf(8));
  next.purge(9);
  const last = await stores.reopen(next);
  last.next.expectRecovered(last.found, 'with nothing left');
  last.next.append(payloadsOf(1, 1));
  await last.next.expectWhole('behind it');
}

async function refusesReset(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  await driver.durable(driver.append(payloadsOf(1, 2, 3, 4)));
  driver.store.recordCommitted(0, 3);
  const io = { ...driver.io(), sequence: driver.sequence + 1 };
  assert.throws(() => driver.store.resetLog(0, { index: 2, term: 1 }, io));
  await driver.expectWhole();
  const { next, found } = await stores.reopen(driver);
  next.expectRecovered(found);
}

async function resets(stores: LogStores, entries: number, index: number): Promise<void> {
  let driver = await stores.openDriver();
  if (entries > 0) driver.append(payloadsOf(...Array<number>(entries).fill(9)));
  driver.term = 4;
  await driver.durable(driver.reset(index));
  const first = await stores.reopen(driver);
  driver = first.next;
  driver.expectRecovered(first.found);
  driver.append(payloadsOf(3, 4));
  await driver.expectWhole();
  driver.reset(index + 1);
  driver.append(payloadsOf(5));
  await driver.expectWhole('once more');
  const { next, found } = await stores.reopen(driver);
  next.expectRecovered(found, 'once more');
  await next.expectWhole('once more');
}

async function runsAtRandom(stores: LogStores): Promise<void> {
  const seed = 41;
  const random = new SeededRandom(seed);
  let driver = await stores.openDriver();
  for (let round = 0; round < 250; round++) {
    const what = `seed ${seed} round ${round}`;
    changeAtRandom(driver, random);
    if (random.chance(0.1)) await driver.expectWhole(what);
    if (random.chance(0.04)) {
      const { next, found } = await stores.reopen(driver);
      next.expectRecovered(found, what);
      driver = next;
      await driver.expectWhole(what);
    }
  }
  await driver.expectWhole(`seed ${seed}`);
}

function changeAtRandom(driver: LogDriver, random: SeededRandom): void {
  const kept = driver.lastIndex - driver.purged.index;
  if (random.chance(0.15) && kept > 0) {
    driver.truncateAfter(driver.purged.index + random.integer(kept));
  } else if (random.chance(0.1) && kept > 0) {
    driver.purge(driver.purged.index + 1 + random.integer(kept));
  } else if (random.chance(0.02)) {
    driver.term++;
    driver.reset(driver.purged.index + 1 + random.integer(kept + 5));
  } else {
    if (random.chance(0.2)) driver.term++;
    const back = random.chance(0.2) ? random.integer(Math.min(6, kept + 1)) : 0;
    if (back > 0) driver.term++;
    const count = 1 + random.integer(6);
    const payloads = Array.from({ length: count }, () => payloadsOf(random.integer(300))[0]!);
    driver.append(payloads, driver.lastIndex + 1 - back);
  }
}
