/**
 * The power fails at each disk call of a script in turn, under each model of what is lost, and again
 * at calls of the recovery from that. A failure prints its case; `CRASH_CASE='{…}'` runs it alone.
 */
import { describe, expect, it } from 'vitest';
import type { CrashMode } from '../../dist/storage/crash-survival.js';
import { type DiskCall, MemoryDisk } from '../../dist/storage/memory-disk.js';
import type { LogHistory } from '../../dist/testing/log-history.js';
import { checkHistories } from '../../dist/testing/log-history.js';
import { openSmall, runScript, SCRIPT, type ScriptRun, settled } from './fault-rig.js';

/** `killed`: only the process dies, and the next one finds in the page cache what no disk has. */
type Loss = CrashMode | 'killed';

interface CrashCase {
  readonly lanes: number;
  readonly direct: boolean;
  readonly capacityBytes: number | undefined;
  readonly seed: number;
  /** At which the power fails. */
  readonly call: number;
  readonly operation: string;
  readonly loss: Loss;
  /** The second time: at that call of the recovery. */
  readonly again?: { readonly call: number; readonly operation: string; readonly loss: Loss };
}

type Histories = ReadonlyMap<number, LogHistory>;

const LOSSES: readonly Loss[] = ['discard', 'keep', 'reorder', 'torn', 'killed'];
const SEED = 1;
/** Calls of each recovery at which the power fails again. */
const AGAIN = 2;

const only = process.env.CRASH_CASE === undefined ? undefined : readCase(process.env.CRASH_CASE);

function readCase(text: string): CrashCase {
  return JSON.parse(text) as CrashCase;
}

interface SweepOptions {
  readonly lanes?: number;
  readonly ignoreDataSync?: boolean;
  readonly ignoreDirectorySync?: boolean;
  /** Until the power fails. */
  readonly capacityBytes?: number;
  /** Looks at every nth call only. */
  readonly every?: number;
}

/** Runs all cases; returns how many there were. */
async function sweep(direct: boolean, options: SweepOptions = {}): Promise<number> {
  const { lanes = 1 } = options;
  const script = (disk: MemoryDisk): Promise<ScriptRun> => runScript(disk, SEED, SCRIPT, { lanes });
  const whole = newDisk(direct, options);
  const calls = whole.recordCalls();
  const { refusal, workload } = await script(whole);
  expect([refusal, workload.failure]).toEqual([undefined, undefined]);
  expect(workload.movedBytes, 'old entries are written once more').toBeGreaterThan(0);
  let cases = 0;
  for (const [place, { number, operation }] of changesOf(calls).entries()) {
    if (place % (options.every ?? 1) !== 0) continue;
    if (only !== undefined && only.call !== number) continue;
    const disk = newDisk(direct, options);
    disk.crashAt(number);
    const { workload } = await script(disk);
    expect(disk.faults.isDead, `call ${number} is reached again`).toBe(true);
    for (const loss of LOSSES) {
      if (only !== undefined && only.loss !== loss) continue;
      const { capacityBytes } = options;
      const place = { call: number, operation, loss };
      const crash: CrashCase = { lanes, direct, capacityBytes, seed: SEED + number, ...place };
      cases += await crashOnce(disk, workload.histories, crash);
    }
  }
  return cases;
}

/** Opens what the crash has left; then once more for each crash during that. */
async function crashOnce(
  disk: MemoryDisk,
  histories: Histories,
  crash: CrashCase,
): Promise<number> {
  const found = whatIsLeft(disk, crash.loss, crash.seed);
  found.capacityBytes = Number.POSITIVE_INFINITY;
  const recovery = found.imageAfterKill();
  const calls = recovery.recordCalls();
  let changes: DiskCall[] = [];
  await expectRecovered(recovery, histories, crash, () => {
    changes = changesOf(calls);
  });
  let cases = 1;
  for (let nth = 0; nth < AGAIN; nth++) {
    // Over all cases each call of a recovery is met under each loss.
    const turn = crash.call + LOSSES.indexOf(crash.loss);
    const { number, operation } = changes[(turn + nth * 3) % changes.length]!;
    const loss = LOSSES[(turn + nth * 2) % LOSSES.length]!;
    const again = { call: number, operation, loss };
    const disk = found.imageAfterKill();
    disk.crashAt(number);
    await openSmall(disk, { seed: crash.seed + 1000, lanes: crash.lanes }).catch(() => {});
    await settled();
    expect(disk.faults.isDead, `call ${number} of the recovery is reached again`).toBe(true);
    const twice = { ...crash, again };
    await expectRecovered(whatIsLeft(disk, loss, crash.seed + nth), histories, twice);
    cases++;
  }
  return cases;
}

/** What was acknowledged is there; and what an opened store has shown is there after one more crash. */
async function expectRecovered(
  disk: MemoryDisk,
  histories: Histories,
  crash: CrashCase,
  opened: () => void = () => {},
): Promise<void> {
  if (only !== undefined && only.again?.call !== crash.again?.call) return;
  try {
    const { lanes } = crash;
    const store = await openSmall(disk, { seed: crash.seed + 2000, lanes });
    // What the start gives up goes from the disk behind it.
    await settled();
    opened();
    const shown = await checkHistories(store, histories);
    await settled();
    if (crash.again !== undefined) return;
    const again = await openSmall(disk.imageAfterCrash(), { seed: crash.seed + 3000, lanes });
    await checkHistories(again, shown);
    await settled();
  } catch (cause) {
    throw new Error(`CRASH_CASE='${JSON.stringify(crash)}': ${messageOf(cause)}`, { cause });
  }
}

function whatIsLeft(disk: MemoryDisk, loss: Loss, seed: number): MemoryDisk {
  return loss === 'killed' ? disk.imageAfterKill() : disk.imageAfterCrash(loss, seed);
}

function changesOf(calls: readonly DiskCall[]): DiskCall[] {
  return calls.filter(({ changes }) => changes);
}

function newDisk(allowDirect: boolean, options: SweepOptions): MemoryDisk {
  const disk = new MemoryDisk({ allowDirect, capacityBytes: options.capacityBytes });
  disk.ignoreDataSync = options.ignoreDataSync ?? false;
  disk.ignoreDirectorySync = options.ignoreDirectorySync ?? false;
  return disk;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Too little for the files to be filled with zeros: their blocks come with what is written. */
const NARROW = { capacityBytes: 400 * 1024, every: 4 };

describe.each([
  ['direct writes', true, 1],
  ['writes through the page cache', false, 1],
  ['direct writes, two lanes', true, 2],
])('power lost at every disk call, and again in the recovery: %s', (_name, direct, lanes) => {
  const mine = only === undefined || (only.direct === direct && only.lanes === lanes);
  const narrow = only?.capacityBytes !== undefined;

  it.skipIf(!mine || narrow)('keeps what was acknowledged, and every vote', async () => {
    const cases = await sweep(direct, { lanes });
    if (only === undefined) expect(cases).toBeGreaterThan(1_000);
  });

  it.skipIf(!mine || (only !== undefined && !narrow))('keeps it where zeros have no room', () =>
    sweep(direct, { ...NARROW, capacityBytes: NARROW.capacityBytes * lanes, lanes }),
  );
});

it.skipIf(only !== undefined).each([
  ['data', { ignoreDataSync: true }],
  ['names', { ignoreDirectorySync: true }],
])('a log that did not sync its %s would be caught', async (_name, options) => {
  await expect(sweep(false, { ...options, every: 5 })).rejects.toThrow('CRASH_CASE');
});
