/**
 * What every LogStore must do. A store is opened again on what it left behind after `close`; what a
 * crash leaves is tested by each store for itself.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import {
  type IoId,
  type LogId,
  type Membership,
  NO_LOG_ID,
  type RecoveredLog,
} from '../../dist/engine/types.js';
import type { LogStore, LogStoreEvents } from '../../dist/storage/log-store.js';
import { decodeBlocks, type LogEntry } from '../../dist/testing/log-blocks.js';
import { BLOCK, ENTRY_KIND, ITEM } from '../../dist/wasm/layout.js';

export interface LogStoreFixture {
  /** Opens the store on what the last one left, which was closed. */
  open(events: LogStoreEvents): Promise<LogStore>;
  /** Another store, empty, for blocks that travel. */
  openOther(events: LogStoreEvents): Promise<LogStore>;
  dispose(): Promise<void>;
  /** Most payload bytes that one entry of the store may have; larger ones are OVERLOADED. */
  readonly maxPayloadBytes: number;
}

/** Memberships of these tests are JSON; stores are opened with this decoder. */
export function decodeTestMembership(payload: Uint8Array): Membership {
  return JSON.parse(new TextDecoder().decode(payload)) as Membership;
}

/** Offsets at which blocks end. */
function blockEnds(blocks: Uint8Array): number[] {
  const view = new DataView(blocks.buffer, blocks.byteOffset);
  const ends: number[] = [];
  for (let at = 0; at < blocks.length; ends.push(at)) {
    const items = view.getUint32(at + BLOCK.offset.items, true);
    at += BLOCK.bytes + items * ITEM.bytes;
    at += view.getUint32(at - BLOCK.bytes - items * ITEM.bytes + BLOCK.offset.payloadLength, true);
  }
  return ends;
}

/** Writes through a store and remembers what must be in it. */
export class LogDriver {
  readonly store: LogStore;
  readonly group: number;
  readonly model: LogEntry[];
  readonly flushed: IoId[] = [];
  sequence = 0;
  term = 1;
  time = 1000;
  /** Of the entry before the first one kept. */
  purged: LogId = NO_LOG_ID;

  constructor(store: LogStore, group: number, model: LogEntry[] = []) {
    this.store = store;
    this.group = group;
    this.model = model;
  }

  get lastIndex(): number {
    return this.model.length;
  }

  io(): IoId {
    const vote = { term: this.term, nodeId: 1, committed: true };
    const last = this.model.at(-1);
    const logId = { term: last?.term ?? 0, index: this.lastIndex };
    return { sequence: ++this.sequence, vote, logId };
  }

  append(payloads: readonly Uint8Array[], firstIndex = this.lastIndex + 1, kind = 2): IoId {
    const { group, term, time, store } = this;
    const count = payloads.length;
    const staged = store.stage(group, { firstIndex, term, time, kind, payloads, count });
    expect(staged).toMatchObject({ firstIndex, lastIndex: firstIndex + count - 1 });
    expect(staged.termRuns).toEqual([{ firstIndex, term }]);
    this.model.length = firstIndex - 1;
    for (const payload of payloads) {
      const index = this.model.length + 1;
      this.model.push({
        index,
        term,
        time,
        kind,
        payload: Buffer.from(payload).toString('latin1'),
      });
    }
    const io = this.io();
    store.append(group, staged, firstIndex, io);
    return io;
  }

  truncateAfter(index: number): IoId {
    this.model.length = index;
    const io = this.io();
    this.store.truncateAfter(this.group, index, io);
    return io;
  }

  purge(index: number): void {
    this.purged = { index, term: this.model[index - 1]!.term };
    this.store.purge(this.group, this.purged);
  }

  /** Begins anew behind an entry that was never in the log; the model keeps its place. */
  reset(index: number): IoId {
    this.purged = { index, term: this.term };
    const { term, time } = this;
    this.model.length = 0;
    for (let gone = 1; gone <= index; gone++) {
      this.model.push({ index: gone, term, time, kind: ENTRY_KIND.blank, payload: '' });
    }
    const io = this.io();
    this.store.resetLog(this.group, this.purged, io);
    return io;
  }

  async durable(io: IoId): Promise<void> {
    await until(() => (this.flushed.at(-1)?.sequence ?? 0) >= io.sequence, 'the I/O is flushed');
  }

  async read(firstIndex: number, lastIndex: number, maxBytes = 1 << 24): Promise<LogEntry[]> {
    const lease = await this.store.read(this.group, firstIndex, lastIndex, maxBytes);
    const entries = decodeBlocks(lease.parts, this.group);
    const bytes = lease.parts.reduce((sum, part) => sum + part.length, 0);
    expect(lease.bytes).toBe(bytes);
    expect(lease.firstIndex).toBe(firstIndex);
    expect(lease.lastIndex).toBe(firstIndex + entries.length - 1);
    expect(entries.length === 1 || bytes <= maxBytes).toBe(true);
    lease.release();
    return entries;
  }

  async expectWhole(context = ''): Promise<void> {
    const { index: purged } = this.purged;
    const entries: LogEntry[] = [];
    while (purged + entries.length < this.lastIndex) {
      entries.push(...(await this.read(purged + entries.length + 1, this.lastIndex)));
    }
    expect(entries, context).toEqual(this.model.slice(purged));
  }

  expectRecovered(found: RecoveredLog, context = ''): void {
    const kept = this.model.slice(this.purged.index);
    const runs = kept.filter((entry, place) => entry.term !== kept[place - 1]?.term);
    expect(found.lastIndex, context).toBe(this.lastIndex);
    expect(found.termRuns, context).toEqual(
      runs.map(({ index, term }) => ({ firstIndex: index, term })),
    );
    const memberships = kept.filter(({ kind }) => kind === ENTRY_KIND.membership);
    expect(found.memberships, context).toEqual(
      memberships.map(({ index, payload }) => ({
        index,
        membership: decodeTestMembership(Buffer.from(payload, 'latin1')),
      })),
    );
    expect(found.purged, context).toEqual(this.purged);
  }
}

/** Waits for a condition; fails when it does not come true. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const bytes = (...lengths: number[]): Uint8Array[] =>
  lengths.map((length, place) => new Uint8Array(length).fill(place + length));

const error = (code: string): object => expect.objectContaining({ code });

export function describeLogStore(
  name: string,
  makeFixture: () => LogStoreFixture | Promise<LogStoreFixture>,
): void {
  describe(`${name} as a log store`, () => {
    let fixture: LogStoreFixture;
    const drivers = new Map<string, LogDriver>();
    const stores: LogStore[] = [];

    const eventsOf = (which: string): LogStoreEvents => ({
      flushed: (group, io) => drivers.get(`${which}/${group}`)?.flushed.push(io),
      failed: (failure) => {
        throw failure;
      },
      writable: () => {},
    });

    async function open(): Promise<LogStore> {
      const store = await fixture.open(eventsOf('own'));
      stores.push(store);
      return store;
    }

    function drive(store: LogStore, group = 0, model: LogEntry[] = []): LogDriver {
      const driver = new LogDriver(store, group, model);
      drivers.set(`own/${group}`, driver);
      return driver;
    }

    async function openDriver(): Promise<LogDriver> {
      const store = await open();
      store.recovered(0);
      return drive(store);
    }

    async function reopen(driver: LogDriver): Promise<{ next: LogDriver; found: RecoveredLog }> {
      await driver.store.close();
      const store = await open();
      const found = store.recovered(driver.group);
      const next = drive(store, driver.group, driver.model);
      next.term = driver.term;
      next.purged = driver.purged;
      return { next, found };
    }

    beforeEach(async () => {
      drivers.clear();
      fixture = await makeFixture();
    });

    afterEach(async () => {
      for (const store of stores.splice(0)) await store.close();
      await fixture.dispose();
    });

    test('a new log is empty', async () => {
      const store = await open();
      expect(store.recovered(0)).toEqual({
        vote: { term: 0, nodeId: 0, committed: false },
        purged: { term: 0, index: 0 },
        termRuns: [],
        lastIndex: 0,
        committed: 0,
        memberships: [],
      });
      expect(store.lastTime(0)).toBe(0);
    });

    test('gives back what was appended, at once and after it was flushed', async () => {
      const driver = await openDriver();
      driver.append(bytes(0));
      driver.append(bytes(1, 7, 0, 300));
      driver.time++;
      const io = driver.append(Array.from({ length: 500 }, (_, place) => bytes(place)[0]!));
      await driver.expectWhole('before the flush');
      await driver.durable(io);
      await driver.expectWhole('after the flush');
    });

    test('reports completion after the call, in order, and the last I/O always', async () => {
      const driver = await openDriver();
      let last = driver.append(bytes(10));
      for (let round = 0; round < 50; round++) {
        last = driver.append(bytes(round));
        if (round % 3 === 0) {
          last = driver.io();
          driver.store.advanceIo(0, last);
        }
        if (round % 7 === 0) {
          last = driver.io();
          driver.store.saveVote(0, last);
        }
        if (round % 10 === 9) last = driver.truncateAfter(driver.lastIndex - 1);
        expect(driver.flushed.at(-1)?.sequence ?? 0).toBeLessThan(last.sequence);
        if (round % 8 === 0) await driver.durable(last);
      }
      await driver.durable(last);
      const sequences = driver.flushed.map(({ sequence }) => sequence);
      expect(sequences).toEqual([...new Set(sequences)].sort((left, right) => left - right));
      expect(driver.flushed.at(-1)).toEqual(last);
    });

    test('advanceIo alone completes', async () => {
      const driver = await openDriver();
      const io = driver.io();
      driver.store.advanceIo(0, io);
      expect(driver.flushed).toEqual([]);
      await driver.durable(io);
      expect(driver.flushed).toEqual([io]);
    });

    test('any range within any budget is a prefix of what was asked for', async () => {
      const seed = 11;
      const random = new SeededRandom(seed);
      const driver = await openDriver();
      for (let block = 0; block < 40; block++) {
        const count = 1 + random.integer(12);
        driver.append(Array.from({ length: count }, () => bytes(random.integer(200))[0]!));
      }
      for (let round = 0; round < 400; round++) {
        const first = 1 + random.integer(driver.lastIndex);
        const last = first + random.integer(driver.lastIndex - first + 1);
        const budget = 1 + random.integer(random.chance(0.5) ? 500 : 20_000);
        const entries = await driver.read(first, last, budget);
        const context = `seed ${seed} round ${round}: ${first} to ${last}, ${budget} bytes`;
        expect(entries.length, context).toBeGreaterThan(0);
        expect(entries, context).toEqual(driver.model.slice(first - 1, first - 1 + entries.length));
        expect(entries.length, context).toBeLessThanOrEqual(last - first + 1);
      }
      expect((await driver.read(3, driver.lastIndex, 1 << 24)).length).toBe(driver.lastIndex - 2);
    });

    test('an append at an earlier index takes the place of what was there', async () => {
      const driver = await openDriver();
      driver.append(bytes(1, 2, 3, 4, 5));
      driver.append(bytes(6, 7));
      driver.term = 2;
      driver.append(bytes(50, 51), 4);
      await driver.expectWhole();
      expect(driver.lastIndex).toBe(5);
      driver.term = 3;
      await driver.durable(driver.append(bytes(9), 1));
      await driver.expectWhole();
      driver.append(bytes(8));
      const { next, found } = await reopen(driver);
      driver.expectRecovered(found);
      await next.expectWhole();
    });

    test('a truncated log goes on from where it was cut', async () => {
      const driver = await openDriver();
      driver.append(bytes(1, 2, 3, 4, 5));
      await driver.durable(driver.append(bytes(6, 7, 8)));
      driver.truncateAfter(6);
      await driver.expectWhole('cut in the second block');
      driver.truncateAfter(3);
      driver.term = 4;
      driver.append(bytes(90, 91));
      await driver.expectWhole('appended after the cut');
      const { next, found } = await reopen(driver);
      next.expectRecovered(found);
      await next.expectWhole('opened again');
      await next.durable(next.truncateAfter(0));
      const again = await reopen(next);
      again.next.expectRecovered(again.found);
      await again.next.durable(again.next.append(bytes(1)));
      await again.next.expectWhole();
    });

    test('a range that was read before and then overwritten is read anew', async () => {
      const driver = await openDriver();
      driver.append(bytes(1, 2, 3));
      await driver.read(1, 3, 1000);
      driver.term = 2;
      driver.append(bytes(4, 5), 2);
      expect(await driver.read(1, 3, 1000)).toEqual(driver.model);
    });

    test('remembers the last vote, with and without entries', async () => {
      const driver = await openDriver();
      const vote = { term: 7, nodeId: 3, committed: false };
      driver.store.saveVote(0, { sequence: ++driver.sequence, vote, logId: { term: 0, index: 0 } });
      const { next, found } = await reopen(driver);
      expect(found.vote).toEqual(vote);
      next.term = 7;
      const io = next.append(bytes(3));
      await next.durable(io);
      expect((await reopen(next)).found.vote).toEqual({ term: 7, nodeId: 1, committed: true });
    });

    test('recovers runs of terms, memberships, commit and time', async () => {
      const driver = await openDriver();
      const membership = (voters: number[]): Uint8Array =>
        new TextEncoder().encode(
          JSON.stringify({ configs: [voters], learners: [], addresses: {} }),
        );
      driver.append([membership([1, 2, 3])], 1, ENTRY_KIND.membership);
      driver.append([new Uint8Array(0)], 2, ENTRY_KIND.blank);
      driver.append(bytes(4, 5, 6));
      driver.term = 5;
      driver.time = 2 ** 41;
      driver.append([membership([1, 2]), membership([1])], 6, ENTRY_KIND.membership);
      driver.store.recordCommitted(0, 4);
      await driver.durable(driver.append(bytes(1)));
      const { next, found } = await reopen(driver);
      next.expectRecovered(found);
      expect(found.committed).toBe(4);
      expect(next.store.lastTime(0)).toBe(2 ** 41);
      next.truncateAfter(6);
      const again = await reopen(next);
      again.next.expectRecovered(again.found);
      expect(again.found.memberships.length).toBe(2);
    });

    test('a recorded commit never lies beyond the log', async () => {
      const driver = await openDriver();
      driver.append(bytes(1, 2, 3));
      driver.store.recordCommitted(0, 99);
      await driver.durable(driver.append(bytes(1)));
      expect((await reopen(driver)).found.committed).toBeLessThanOrEqual(4);
    });

    test('groups do not see one another', async () => {
      const store = await open();
      const groups = [0, 1, 70_000].map((group) => {
        store.recovered(group);
        return drive(store, group);
      });
      for (let round = 0; round < 20; round++) {
        for (const driver of groups) {
          driver.term = driver.group + 1;
          driver.append(bytes(driver.group % 50, round));
        }
      }
      await groups[1]!.durable(groups[1]!.truncateAfter(7));
      for (const driver of groups) await driver.expectWhole(`group ${driver.group}`);
      await store.close();
      const again = await open();
      for (const { group, model } of groups) {
        const driver = new LogDriver(again, group, model);
        driver.expectRecovered(again.recovered(group), `group ${group}`);
        await driver.expectWhole(`group ${group}`);
      }
    });

    test('what is staged stands beside the log until it is appended', async () => {
      const driver = await openDriver();
      driver.append(bytes(1, 2));
      const { store } = driver;
      const entries = { term: 1, time: 1, kind: 2, count: 1 };
      store.stage(0, { ...entries, firstIndex: 3, payloads: bytes(77) });
      store.stage(0, { ...entries, firstIndex: 2, payloads: bytes(78) });
      await driver.expectWhole();
      driver.append(bytes(79, 80));
      await driver.expectWhole();
    });

    test('large payloads pass, too large ones change nothing', async () => {
      const driver = await openDriver();
      const { maxPayloadBytes } = fixture;
      const random = new SeededRandom(5);
      driver.append([random.fill(new Uint8Array(maxPayloadBytes))]);
      driver.append(bytes(5));
      await driver.durable(driver.append([random.fill(new Uint8Array(maxPayloadBytes >> 1))]));
      expect(() => driver.append([new Uint8Array(64 * maxPayloadBytes)])).toThrow(
        error('KEELSON_OVERLOADED'),
      );
      await driver.expectWhole();
      const { next } = await reopen(driver);
      await next.expectWhole();
    });

    test('takes blocks as another store reads them, from any index on', async () => {
      const seed = 21;
      const random = new SeededRandom(seed);
      const leader = await openDriver();
      for (let block = 0; block < 30; block++) {
        if (random.chance(0.2)) leader.term++;
        leader.append(
          bytes(...Array.from({ length: 1 + random.integer(5) }, () => random.integer(90))),
        );
      }
      const store = await fixture.openOther(eventsOf('other'));
      stores.push(store);
      store.recovered(0);
      const follower = new LogDriver(store, 0);
      drivers.set('other/0', follower);
      while (follower.lastIndex < leader.lastIndex) {
        // Sometimes entries come again that are there already.
        const overlap = random.integer(Math.min(follower.lastIndex, 4) + 1);
        const first = follower.lastIndex + 1 - overlap;
        const lease = await leader.store.read(0, first, leader.lastIndex, 1 + random.integer(2000));
        const context = `seed ${seed}, entries from ${first}`;
        const staged = store.receive(0, first, lease.parts);
        const received = leader.model.slice(first - 1, lease.lastIndex);
        expect(staged.firstIndex, context).toBe(first);
        expect(staged.lastIndex, context).toBe(lease.lastIndex);
        expect(staged.bytes, context).toBe(lease.bytes);
        expect(staged.lastTime, context).toBe(received.at(-1)!.time);
        lease.release();
        if (staged.lastIndex <= follower.lastIndex) continue;
        const from = follower.lastIndex + 1;
        follower.model.push(...leader.model.slice(from - 1, staged.lastIndex));
        follower.store.append(0, staged, from, follower.io());
      }
      await follower.expectWhole(`seed ${seed}`);
      const last = follower.io();
      store.advanceIo(0, last);
      await follower.durable(last);
    });

    test('never reads more changes of term at once than another store takes', async () => {
      const driver = await openDriver();
      const appendTerms = (lastIndex: number): IoId => {
        let io = driver.io();
        for (; driver.lastIndex < lastIndex; driver.term++) {
          io = driver.append(bytes(...(driver.term % 300 === 0 ? [3, 4] : [driver.term % 40])));
        }
        return io;
      };
      for (let last = 100; last <= 3000; last += 100) await driver.durable(appendTerms(last));
      driver.truncateAfter(2900);
      await driver.durable(appendTerms(3100));

      const store = await fixture.openOther(eventsOf('other'));
      stores.push(store);
      const follower = new LogDriver(store, 0);
      drivers.set('other/0', follower);
      const copy = async (from: LogDriver, lastIndex: number): Promise<void> => {
        while (follower.lastIndex < lastIndex) {
          const first = follower.lastIndex + 1;
          const lease = await from.store.read(0, first, lastIndex, 1 << 24);
          const staged = store.receive(0, first, lease.parts);
          expect(staged.lastIndex).toBe(lease.lastIndex);
          lease.release();
          follower.model.push(...from.model.slice(first - 1, staged.lastIndex));
          store.append(0, staged, first, follower.io());
        }
      };
      await copy(driver, 1500);
      const { next } = await reopen(driver);
      await copy(next, next.lastIndex);
      await follower.expectWhole();
    });

    test('known bug 39: damaged blocks from a peer are refused and change nothing', async () => {
      const seed = 31;
      const random = new SeededRandom(seed);
      const driver = await openDriver();
      driver.append(bytes(1, 2, 3));
      driver.append(bytes(40, 0, 41));
      const lease = await driver.store.read(0, 2, 6, 1 << 20);
      const whole = new Uint8Array(Buffer.concat(lease.parts));
      lease.release();
      const refuse = (parts: Uint8Array[], first: number, context: string): void => {
        expect(() => driver.store.receive(0, first, parts), context).toThrow(
          error('KEELSON_CORRUPT_FRAME'),
        );
      };
      for (let round = 0; round < 300; round++) {
        const damaged = whole.slice();
        const place = random.integer(damaged.length);
        damaged[place]! ^= 1 << random.integer(8);
        refuse([damaged], 2, `seed ${seed} byte ${place}`);
        const cut = random.integer(whole.length);
        // Whole blocks alone are a shorter message, not a damaged one.
        if (blockEnds(whole).includes(cut)) continue;
        refuse([whole.subarray(0, cut)], 2, `seed ${seed} cut at ${cut}`);
      }
      refuse([whole], 3, 'other first index');
      refuse([whole, new Uint8Array(1)], 2, 'a byte too many');
      refuse([], 2, 'nothing');
      expect(() => driver.store.receive(1, 2, [whole]), 'other group').toThrow(
        error('KEELSON_CORRUPT_FRAME'),
      );
      await driver.expectWhole();
      const staged = driver.store.receive(0, 2, [whole.subarray(0, 50), whole.subarray(50)]);
      expect(staged).toMatchObject({ firstIndex: 2, lastIndex: 6 });
    });

    test('a membership that was received is shown with its staging', async () => {
      const driver = await openDriver();
      const payload = new TextEncoder().encode('{"configs":[[1]],"learners":[],"addresses":{}}');
      driver.append(bytes(3));
      driver.append([payload], 2, ENTRY_KIND.membership);
      const lease = await driver.store.read(0, 1, 2, 1 << 20);
      const staged = driver.store.receive(0, 1, lease.parts);
      lease.release();
      expect(staged.memberships.map(({ index }) => index)).toEqual([2]);
      expect(decodeTestMembership(staged.memberships[0]!.payload).configs).toEqual([[1]]);
    });

    test('views stay as they are until their release, whatever happens to the log', async () => {
      const driver = await openDriver();
      driver.append(bytes(100, 101, 102));
      driver.append(bytes(103));
      const lease = await driver.store.read(0, 1, 4, 1 << 20);
      lease.retain();
      lease.release();
      const before = Buffer.concat(lease.parts);
      driver.truncateAfter(1);
      driver.term = 2;
      for (let round = 0; round < 300; round++) {
        const io = driver.append(bytes(1000, 2000));
        if (round % 50 === 0) await driver.durable(io);
      }
      expect(Buffer.concat(lease.parts).equals(before)).toBe(true);
      lease.release();
      await driver.expectWhole();
    });

    test('a purged log begins behind the purge, now and after a restart', async () => {
      const driver = await openDriver();
      driver.append(bytes(1, 2, 3, 4));
      const payload = new TextEncoder().encode('{"configs":[[1]],"learners":[],"addresses":{}}');
      driver.append([payload], 5, ENTRY_KIND.membership);
      driver.term = 3;
      await driver.durable(driver.append(bytes(5, 6, 7)));
      const lease = await driver.store.read(0, 1, 8, 1 << 20);
      const before = Buffer.concat(lease.parts);
      driver.purge(3);
      driver.purge(6);
      driver.store.purge(0, { index: 2, term: 1 });
      await driver.expectWhole('at once');
      expect(() => driver.store.read(0, 6, 8, 1 << 20)).toThrow();
      const { next, found } = await reopen(driver);
      expect(Buffer.concat(lease.parts).equals(before)).toBe(true);
      lease.release();
      next.expectRecovered(found);
      expect(found.termRuns).toEqual([{ firstIndex: 7, term: 3 }]);
      await next.expectWhole('after a restart');
      next.append(bytes(8));
      next.purge(9);
      const last = await reopen(next);
      last.next.expectRecovered(last.found, 'with nothing left');
      last.next.append(bytes(1, 1));
      await last.next.expectWhole('behind it');
    });

    test('a log does not begin anew before what was committed', async () => {
      const driver = await openDriver();
      await driver.durable(driver.append(bytes(1, 2, 3, 4)));
      driver.store.recordCommitted(0, 3);
      const io = { ...driver.io(), sequence: driver.sequence + 1 };
      expect(() => driver.store.resetLog(0, { index: 2, term: 1 }, io)).toThrow('committed');
      await driver.expectWhole();
      const { next, found } = await reopen(driver);
      next.expectRecovered(found);
    });

    test('a log that was reset begins anew, whatever was in it', async () => {
      for (const [entries, index] of [
        [0, 10],
        [5, 3],
        [5, 5],
        [5, 20],
      ] as const) {
        const context = `${entries} entries, reset to ${index}`;
        fixture = await makeFixture();
        let driver = await openDriver();
        if (entries > 0) driver.append(bytes(...Array<number>(entries).fill(9)));
        driver.term = 4;
        await driver.durable(driver.reset(index));
        driver = await reopen(driver).then(({ next, found }) => {
          next.expectRecovered(found, context);
          return next;
        });
        driver.append(bytes(3, 4));
        await driver.expectWhole(context);
        driver.reset(index + 1);
        driver.append(bytes(5));
        await driver.expectWhole(`${context}, once more`);
        const { next, found } = await reopen(driver);
        next.expectRecovered(found, context);
        await next.expectWhole(context);
      }
    });

    test('random writes, cuts and restarts leave what the model has', async () => {
      const seed = 41;
      const random = new SeededRandom(seed);
      let driver = await openDriver();
      for (let round = 0; round < 250; round++) {
        const context = `seed ${seed} round ${round}`;
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
          const payloads = Array.from({ length: count }, () => bytes(random.integer(300))[0]!);
          driver.append(payloads, driver.lastIndex + 1 - back);
        }
        if (random.chance(0.1)) await driver.expectWhole(context);
        if (random.chance(0.04)) {
          const { next, found } = await reopen(driver);
          next.expectRecovered(found, context);
          driver = next;
          await driver.expectWhole(context);
        }
      }
      await driver.expectWhole(`seed ${seed}`);
    });

    test('a closed store refuses work', async () => {
      const driver = await openDriver();
      await driver.store.close();
      await driver.store.close();
      expect(() => driver.append(bytes(1))).toThrow(error('KEELSON_CLOSED'));
    });
  });
}
