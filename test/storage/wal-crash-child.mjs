// Writes entries in a closed loop and reports each acknowledged one, until it is killed.
// Usage: node wal-crash-child.mjs DIRECTORY WRITERS SEED
import { writeSync } from 'node:fs';
import { SeededRandom } from '../../dist/base/random.js';
import { systemScheduler } from '../../dist/base/system-scheduler.js';
import { WalLogStore } from '../../dist/storage/wal-log-store.js';
import { ENTRY_KIND } from '../../dist/wasm/layout.js';
import { SharedHeap } from '../../dist/wasm/shared-heap.js';
import { CRASH_OPTIONS, crashPayload } from './wal-crash-payload.mjs';

const [directory, writers, seed] = process.argv.slice(2);
const random = new SeededRandom(Number(seed));
const vote = { term: 1, nodeId: 1, committed: true };
let submitted = 0;
let acknowledged = 0;
let sequence = 0;

const events = {
  flushed(_group, io) {
    // One synchronous write: the report is out before the process can die of anything later.
    acknowledged = io.logId.index;
    writeSync(1, `acknowledged ${acknowledged}\n`);
    fill();
  },
  failed(error) {
    throw error;
  },
  writable: () => fill(),
};

function fill() {
  while (submitted - acknowledged < Number(writers)) {
    const count = Math.min(1 + random.integer(8), Number(writers) - (submitted - acknowledged));
    const firstIndex = submitted + 1;
    const payloads = Array.from({ length: count }, (_, at) => crashPayload(firstIndex + at));
    const entries = { firstIndex, term: 1, time: 0, kind: ENTRY_KIND.application, payloads, count };
    let staged;
    try {
      staged = store.stage(0, entries);
    } catch (error) {
      if (error.code === 'KEELSON_OVERLOADED') return;
      throw error;
    }
    submitted += count;
    writeSync(1, `submitted ${submitted}\n`);
    const io = { sequence: ++sequence, vote, logId: { term: 1, index: submitted } };
    store.append(0, staged, firstIndex, io);
  }
}

const store = await WalLogStore.open(
  { directory, ...CRASH_OPTIONS },
  {
    heap: SharedHeap.create({ maximumBytes: 64 * 1024 * 1024 }),
    scheduler: systemScheduler,
    events,
    decodeMembership: () => ({ configs: [], learners: [], addresses: {} }),
  },
);
submitted = store.recovered(0).lastIndex;
writeSync(1, `opened ${submitted}\n`);
acknowledged = submitted;
fill();
