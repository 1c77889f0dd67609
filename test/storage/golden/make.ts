/**
 * Makes the golden directory of the present format: a data directory as this version writes it, and what is in
 * it. Run once for each format, after `npm run build`, and commit what it makes:
 *
 *     npx tsx test/storage/golden/make.ts
 *
 * A directory that is there is never made again: it is what an earlier version has written.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { IoId, Membership, Vote } from '../../../dist/engine/types.js';
import { encodeMembership } from '../../../dist/runtime/membership-codec.js';
import type { LogStoreEvents } from '../../../dist/storage/log-store.js';
import { STORAGE_FORMAT_VERSION } from '../../../dist/storage/manifest.js';
import { MemoryDisk } from '../../../dist/storage/memory-disk.js';
import { LogDriver } from '../../../dist/testing/log-driver.js';
import { ENTRY_KIND } from '../../../dist/wasm/layout.js';
import { makeIdentity } from '../directory-support.js';
import { type GoldenGroup, openGolden, SEGMENT_BYTES } from './golden.js';

const [FIRST, ROLLING, CUT, RESET, IDLE] = [0, 1, 7, 70_000, 4_000_000_000] as const;
const LAPS = 9;
const MEMBERSHIP: Membership = {
  configs: [[1, 2, 3]],
  learners: [4],
  addresses: { 1: 'a:7000', 2: 'b:7000', 3: '[::1]:7000', 4: 'd:7000' },
};

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, `format-${STORAGE_FORMAT_VERSION}`);
if (existsSync(target))
  throw new Error(`${target} is there: golden directories are not made again`);

const disk = new MemoryDisk();
const drivers = new Map<number, LogDriver>();
/** Of each group, before the directory was opened again. */
const lastVotes = new Map<number, Vote>();
const events: LogStoreEvents = {
  flushed: (group: number, io: IoId) => drivers.get(group)?.flushed.push(io),
  failed: (error) => {
    throw error;
  },
  writable: () => {},
};

async function open(seed: number): Promise<void> {
  const store = await openGolden(disk, seed, events);
  for (const group of [FIRST, ROLLING, CUT, RESET, IDLE]) {
    const before = drivers.get(group);
    const driver = new LogDriver(store, group, before?.model);
    if (before !== undefined) {
      const vote = before.flushed.at(-1)?.vote;
      if (vote !== undefined) lastVotes.set(group, vote);
      driver.term = before.term;
      driver.time = before.time;
      driver.purged = before.purged;
    }
    drivers.set(group, driver);
  }
}

const of = (group: number): LogDriver => drivers.get(group)!;
const texts = (...payloads: string[]): Uint8Array[] => payloads.map((text) => Buffer.from(text));
const long = (name: string): Uint8Array[] => texts(name.padEnd(3_000, '.'));

async function vote(group: number, term: number, nodeId: number): Promise<void> {
  const driver = of(group);
  const io = { ...driver.io(), vote: { term, nodeId, committed: false } };
  driver.store.saveVote(group, io);
  await driver.durable(io);
}

makeIdentity(disk, SEGMENT_BYTES);
await open(1);
// From here on only checkpoints tell of this group.
await of(IDLE).durable(of(IDLE).append(texts('purged', 'and purged')));
of(IDLE).store.recordCommitted(IDLE, 2);
of(IDLE).purge(2);
await vote(IDLE, 12, 3);

// The log comes so far that segments are given up and used again.
for (let lap = 0; lap < LAPS; lap++) {
  for (let count = 0; count < 5; count++) {
    await of(ROLLING).durable(of(ROLLING).append(long(`rolling ${of(ROLLING).lastIndex + 1}`)));
  }
  of(ROLLING).store.recordCommitted(ROLLING, of(ROLLING).lastIndex - 2);
  of(ROLLING).purge(of(ROLLING).lastIndex - 2);
}

of(FIRST).append([encodeMembership(MEMBERSHIP)], 1, ENTRY_KIND.membership);
of(FIRST).append([new Uint8Array(0)], 2, ENTRY_KIND.blank);
await of(FIRST).durable(of(FIRST).append(texts('a first command', '', 'a third one')));
of(FIRST).term = 3;
of(FIRST).time = 2_000_000_000_000;
await of(FIRST).durable(of(FIRST).append(texts('of term 3', 'and another'), 5));
of(FIRST).store.recordCommitted(FIRST, 5);

of(CUT).append(texts('one', 'two', 'three', 'four'));
await of(CUT).durable(of(CUT).truncateAfter(3));
of(CUT).term = 2;
await of(CUT).durable(of(CUT).append(texts('took the place of three'), 3));
of(CUT).store.recordCommitted(CUT, 3);
of(CUT).purge(1);

await of(RESET).durable(of(RESET).append(texts('gone', 'gone too')));
of(RESET).term = 9;
await of(RESET).durable(of(RESET).reset(1_000));
await of(RESET).store.close();

await open(2);
await of(RESET).durable(of(RESET).append(texts('behind the reset')));
await vote(CUT, 4, 2);
// The last batch, which nothing proves: the next start carries it over.
of(FIRST).term = 5;
await of(FIRST).durable(of(FIRST).append(texts('the last command')));

mkdirSync(join(target, 'wal'), { recursive: true });
const image = disk.kill();
for (const name of ['manifest', 'peers', ...image.list('/data/wal').map((each) => `wal/${each}`)]) {
  writeFileSync(join(target, name), image.readFile(`/data/${name}`));
}
const lines = [...drivers.values()].map((driver) => JSON.stringify(contentOf(driver)));
writeFileSync(`${target}.jsonl`, `${lines.join('\n')}\n`);

/** As it was written, not as it is read back. */
function contentOf({ group, model, purged, flushed }: LogDriver): GoldenGroup {
  const committed = { [FIRST]: 5, [CUT]: 3, [ROLLING]: 5 * LAPS - 2, [IDLE]: 2 }[group] ?? 0;
  const vote = flushed.at(-1)?.vote ?? lastVotes.get(group)!;
  const memberships = group === FIRST ? [{ index: 1, membership: MEMBERSHIP }] : [];
  return { group, vote, committed, purged, memberships, entries: model.slice(purged.index) };
}
