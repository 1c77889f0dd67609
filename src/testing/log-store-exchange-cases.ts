/** What a log store does with blocks that come from another one, sound and damaged. */
import assert from 'node:assert/strict';
import { SeededRandom } from '../base/random.js';
import type { IoId } from '../engine/types.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../wasm/layout.js';
import { type ConformanceCase, payloadsOf, refuses, same } from './conformance.js';
import type { LogDriver } from './log-driver.js';
import { type LogStores, logStoreCase, type MakeLogStoreFixture } from './log-store-fixture.js';
import { decodeTestMembership, encodeTestMembership } from './test-membership.js';

export function logStoreExchangeCases(makeFixture: MakeLogStoreFixture): ConformanceCase[] {
  return [
    logStoreCase(
      makeFixture,
      'takes blocks as another store reads them, from any index on',
      takesBlocks,
    ),
    logStoreCase(
      makeFixture,
      'never reads more changes of term at once than another store takes',
      readsFewTerms,
    ),
    logStoreCase(
      makeFixture,
      'known bug 39: damaged blocks from a peer are refused and change nothing',
      refusesDamage,
    ),
    logStoreCase(
      makeFixture,
      'a membership that was received is shown with its staging',
      showsMembership,
    ),
  ];
}

async function takesBlocks(stores: LogStores): Promise<void> {
  const seed = 21;
  const random = new SeededRandom(seed);
  const leader = await stores.openDriver();
  for (let block = 0; block < 30; block++) {
    if (random.chance(0.2)) leader.term++;
    const lengths = Array.from({ length: 1 + random.integer(5) }, () => random.integer(90));
    leader.append(payloadsOf(...lengths));
  }
  const follower = await stores.openOther();
  while (follower.lastIndex < leader.lastIndex) {
    // Sometimes entries come again that are there already.
    const overlap = random.integer(Math.min(follower.lastIndex, 4) + 1);
    const first = follower.lastIndex + 1 - overlap;
    const lease = await leader.store.read(0, first, leader.lastIndex, 1 + random.integer(2000));
    const what = `seed ${seed}, entries from ${first}`;
    const { firstIndex, lastIndex, bytes, lastTime } = follower.store.receive(
      0,
      first,
      lease.parts,
    );
    const received = leader.model.slice(first - 1, lease.lastIndex);
    const expected = {
      lastIndex: lease.lastIndex,
      bytes: lease.bytes,
      lastTime: received.at(-1)!.time,
    };
    same({ firstIndex, lastIndex, bytes, lastTime }, { firstIndex: first, ...expected }, what);
    if (lastIndex > follower.lastIndex) {
      const staged = follower.store.receive(0, first, lease.parts);
      const from = follower.lastIndex + 1;
      follower.model.push(...leader.model.slice(from - 1, lastIndex));
      follower.store.append(0, staged, from, follower.io());
    }
    lease.release();
  }
  await follower.expectWhole(`seed ${seed}`);
  const last = follower.io();
  follower.store.advanceIo(0, last);
  await follower.durable(last);
}

async function readsFewTerms(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  const appendTerms = (lastIndex: number): IoId => {
    let io = driver.io();
    for (; driver.lastIndex < lastIndex; driver.term++) {
      const lengths = driver.term % 300 === 0 ? [3, 4] : [driver.term % 40];
      io = driver.append(payloadsOf(...lengths));
    }
    return io;
  };
  for (let last = 100; last <= 3000; last += 100) await driver.durable(appendTerms(last));
  driver.truncateAfter(2900);
  await driver.durable(appendTerms(3100));

  const follower = await stores.openOther();
  const copy = async (from: LogDriver, lastIndex: number): Promise<void> => {
    while (follower.lastIndex < lastIndex) {
      const first = follower.lastIndex + 1;
      const lease = await from.store.read(0, first, lastIndex, 1 << 24);
      const staged = follower.store.receive(0, first, lease.parts);
      assert.equal(staged.lastIndex, lease.lastIndex, 'all of the lease is taken');
      lease.release();
      follower.model.push(...from.model.slice(first - 1, staged.lastIndex));
      follower.store.append(0, staged, first, follower.io());
    }
  };
  await copy(driver, 1500);
  const { next } = await stores.reopen(driver);
  await copy(next, next.lastIndex);
  await follower.expectWhole();
}

async function refusesDamage(stores: LogStores): Promise<void> {
  const seed = 31;
  const random = new SeededRandom(seed);
  const driver = await stores.openDriver();
  const { store } = driver;
  driver.append(payloadsOf(1, 2, 3));
  driver.append(payloadsOf(40, 0, 41));
  const lease = await store.read(0, 2, 6, 1 << 20);
  const whole = new Uint8Array(Buffer.concat(lease.parts));
  lease.release();
  const refused = (group: number, parts: Uint8Array[], first: number, what: string): void =>
    refuses('KEELSON_CORRUPT_FRAME', () => store.receive(group, first, parts), what);
  const ends = blockEnds(whole);
  for (let round = 0; round < 300; round++) {
    const damaged = whole.slice();
    const place = random.integer(damaged.length);
    damaged[place]! ^= 1 << random.integer(8);
    refused(0, [damaged], 2, `seed ${seed} byte ${place}`);
    const cut = random.integer(whole.length);
    // Whole blocks alone are a shorter message, not a damaged one.
    if (ends.includes(cut)) continue;
    refused(0, [whole.subarray(0, cut)], 2, `seed ${seed} cut at ${cut}`);
  }
  refused(0, [whole], 3, 'other first index');
  refused(0, [whole, new Uint8Array(1)], 2, 'a byte too many');
  refused(0, [], 2, 'nothing');
  refused(1, [whole], 2, 'other group');
  await driver.expectWhole();
  const staged = store.receive(0, 2, [whole.subarray(0, 50), whole.subarray(50)]);
  same([staged.firstIndex, staged.lastIndex], [2, 6], 'what is sound');
}

async function showsMembership(stores: LogStores): Promise<void> {
  const driver = await stores.openDriver();
  driver.append(payloadsOf(3));
  driver.append([encodeTestMembership([1])], 2, ENTRY_KIND.membership);
  const lease = await driver.store.read(0, 1, 2, 1 << 20);
  const staged = driver.store.receive(0, 1, lease.parts);
  lease.release();
  same(
    staged.memberships.map(({ index }) => index),
    [2],
    'indexes of memberships',
  );
  same(decodeTestMembership(staged.memberships[0]!.payload).configs, [[1]], 'the membership');
}

/** Offsets at which blocks end. */
function blockEnds(blocks: Uint8Array): number[] {
  const view = new DataView(blocks.buffer, blocks.byteOffset);
  const ends: number[] = [];
  for (let at = 0; at < blocks.length; ends.push(at)) {
    const items = view.getUint32(at + BLOCK.offset.items, true);
    const payloads = view.getUint32(at + BLOCK.offset.payloadLength, true);
    at += BLOCK.bytes + items * ITEM.bytes + payloads;
  }
  return ends;
}
