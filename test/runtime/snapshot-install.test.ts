/** A follower that installs snapshots while something else goes on in it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../dist/base/logger.js';
import type { SnapshotRequest } from '../../dist/engine/messages.js';
import { encodeMembership } from '../../dist/runtime/membership-codec.js';
import type { MachineHost } from '../../dist/state-machine/machine-host.js';
import { MainThreadHost } from '../../dist/state-machine/main-thread-host.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { openSnapshots } from '../storage/snapshot-support.js';
import { Ledger } from './support/ledger.js';
import { ScriptedPeers } from './support/scripted-peers.js';
import { around, SeamCluster, type SeamNode } from './support/seam-cluster.js';

const ADDRESSES = { 1: 'in-process:1', 2: 'in-process:2', 3: 'in-process:3' };
const MEMBERSHIP = { configs: [[1, 2, 3]], learners: [], addresses: ADDRESSES };
const LOCAL = { consistency: 'local' } as const;
const TERM = 50;
const NOTHING = new Uint8Array(0);

async function fileOf(index: number, sum: number): Promise<Uint8Array> {
  const disk = new MemoryDisk();
  const store = await openSnapshots(disk);
  const writer = await store.create({
    group: 0,
    lastIncluded: { term: TERM - 1, index },
    membershipIndex: 1,
    membership: encodeMembership(MEMBERSHIP),
    time: 1,
    created: 1,
    machineVersion: 1,
    id: idOf(index),
  });
  await writer.append(new Uint8Array(Float64Array.of(sum).buffer));
  return Uint8Array.from(disk.readFile((await writer.publish()).file));
}

const idOf = (index: number): string => String(index).padStart(32, 'a');

/** Ends an apply, or begins a restore, when the test says so. */
class HeldHost {
  readonly held: (() => void)[] = [];
  holdsApplies = false;
  holdsRestores = false;

  wrap(inner: MachineHost): MachineHost {
    return around(inner, {
      apply: (lease, first, last) => {
        if (!this.holdsApplies) return inner.apply(lease, first, last);
        lease.retain();
        this.held.push(() => {
          inner.apply(lease, first, last);
          lease.release();
        });
      },
      restore: async (chunks, index) => {
        if (this.holdsRestores) await new Promise<void>((resolve) => this.held.push(resolve));
        return inner.restore(chunks, index);
      },
    });
  }

  letGo(): void {
    this.holdsApplies = false;
    this.holdsRestores = false;
    for (const go of this.held.splice(0)) go();
  }
}

let peers: ScriptedPeers;
let machine: HeldHost;
let ledger: Ledger;
let failures: unknown[];
let cluster: SeamCluster;
let node: SeamNode;

beforeEach(async () => {
  peers = new ScriptedPeers();
  machine = new HeldHost();
  ledger = new Ledger();
  failures = [];
  cluster = await SeamCluster.start({
    started: [1],
    config: { snapshot: { keep: 1, everyEntries: 100, everyBytes: 0, keepEntries: 0 } },
    logger: { ...silentLogger, error: (fields) => failures.push(fields) },
    createNetwork: () => peers,
    createMachine: (_, events, scheduler, { stateMachine: limits }) =>
      machine.wrap(new MainThreadHost(ledger, { group: 0, events, scheduler, limits })),
  });
  node = cluster.node(1);
});

afterEach(async () => {
  machine.letGo();
  await cluster[Symbol.asyncDispose]();
});

/** Resolves when the condition holds; the leader is heard of meanwhile. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    peers.beat();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const answered = (state: string): number =>
  peers.sent.filter(({ message }) => message.type === 'SnapshotResponse' && message.state === state)
    .length;

/** Until this node has said where its file ends. */
async function offered(
  index: number,
  sum: number,
): Promise<{ readonly request: SnapshotRequest; readonly file: Uint8Array }> {
  const file = await fileOf(index, sum);
  const request: SnapshotRequest = {
    type: 'SnapshotRequest',
    term: TERM,
    session: index,
    snapshotId: idOf(index),
    lastIncluded: { term: TERM - 1, index },
    totalBytes: file.length,
    offset: 0,
  };
  const asked = answered('receiving');
  peers.piece(request, NOTHING);
  await until(() => answered('receiving') > asked);
  return { request, file };
}

/** Until this node has said that it holds it. */
async function receive(index: number, sum: number): Promise<void> {
  const { request, file } = await offered(index, sum);
  const installed = answered('installed');
  peers.piece(request, file);
  await until(() => answered('installed') > installed);
}

describe('a follower that installs a snapshot', () => {
  it.each(['applies', 'restores'])(
    'installs a later one, too, that comes before its machine has ended other %s',
    async (what) => {
      await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 10_000 });
      machine.holdsApplies = what === 'applies';
      machine.holdsRestores = what === 'restores';
      const write = node.write(1).catch(() => {});
      await until(() => what === 'restores' || machine.held.length > 0);
      peers.lead(2, TERM);
      await receive(100, 777);
      await receive(200, 888);
      machine.letGo();
      await until(() => node.status().appliedIndex === 200 || node.status().state === 'stopped');
      expect(await node.read('sum', LOCAL)).toBe(888);
      await write;
      const disk = cluster.disks.get(1)!;
      await until(() => disk.list('/node/snapshots/group-0').length === 1);
    },
  );

  it('gives up the one that it builds, and answers with the later one', async () => {
    await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 10_000 });
    await node.write(1);
    let open = (): void => {};
    ledger.gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const built = node.snapshot();
    await until(() => ledger.snapshots === 1);
    peers.lead(2, TERM);
    await receive(100, 777);
    await until(() => node.status().appliedIndex === 100);
    expect((await built).logId.index).toBe(100);
    expect(failures).toEqual([]);
    open();
    await until(() => ledger.snapshotsGivenUp === 1);
  });

  it('drops what it has received of one when it leads', async () => {
    peers.lead(2, TERM);
    const { request, file } = await offered(100, 777);
    peers.piece(request, file.subarray(0, 100));
    const disk = cluster.disks.get(1)!;
    const unfinished = (): number =>
      disk.list('/node/snapshots/group-0').filter((name) => name.startsWith('receive-')).length;
    await until(() => node.status().snapshotReceived?.bytes === 100);
    expect(unfinished()).toBe(1);
    await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 10_000 });
    while (unfinished() > 0) await new Promise((resolve) => setImmediate(resolve));
    expect(node.status().snapshotReceived).toBeUndefined();
  });

  it('builds none of its own before as much was applied behind it as makes one due', async () => {
    peers.lead(2, TERM);
    await receive(1_000, 777);
    await until(() => node.status().appliedIndex === 1_000);
    // The votes of the test make it a leader.
    await node.waitFor(({ readyToLead }) => readyToLead, { timeoutMs: 10_000 });
    await node.writeMany(Array.from({ length: 50 }, () => 1));
    expect(ledger.snapshots).toBe(0);
    await node.writeMany(Array.from({ length: 50 }, () => 1));
    await node.waitFor(({ snapshotIndex }) => snapshotIndex > 1_000);
    expect(ledger.snapshots).toBe(1);
  });
});
