import type { LogDamage, Status } from './api.js';
import { KeelsonError } from './base/errors.js';
import type { Logger } from './base/logger.js';
import type { Scheduler } from './base/scheduler.js';
import type { Config } from './config/types.js';
import { Engine } from './engine/engine.js';
import type { IoId, Membership, NodeId } from './engine/types.js';
import type { Network, NodeIdentity } from './network/network.js';
import { restoreMachine, type StartingPoint } from './restore-machine.js';
import type { CallScope } from './runtime/call-scope.js';
import { Forwarder } from './runtime/forwarder.js';
import { votersOf } from './runtime/membership-codec.js';
import { Observers } from './runtime/observers.js';
import { ReadIndexBatcher } from './runtime/read-index-batcher.js';
import { Runtime } from './runtime/runtime.js';
import type { MachineEvents, MachineHost } from './state-machine/machine-host.js';
import type { LogStore, LogStoreEvents } from './storage/log-store.js';
import type { SnapshotStore } from './storage/snapshot-store.js';

/** The one group of a host until hosts hold several. */
const GROUP = 0;

/**
 * One node, put together from its parts: store, network, state machine, engine and runtime. It owns
 * them: opens them in the order in which they depend on one another, and closes them in reverse.
 */
export interface HostParts {
  readonly config: Config;
  readonly identity: NodeIdentity;
  readonly bootstrap: Membership;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  /** Ends the opening between two of its steps. */
  readonly scope?: CallScope;
  openStore(events: LogStoreEvents): Promise<LogStore>;
  openSnapshots(): Promise<SnapshotStore>;
  createMachine(events: MachineEvents): MachineHost;
  createNetwork(machineVersion: number): Network;
  /** Gives up what stands below the store: the directory and its lock. */
  release(): Promise<void>;
}

export class Host {
  readonly config: Config;
  readonly scheduler: Scheduler;
  readonly logger: Logger;
  readonly machine: MachineHost;
  readonly runtime: Runtime;
  readonly observers: Observers;
  readonly forwarder: Forwarder;
  /** Such a node is for its peers as if it were away: no leader keeps its log for what it cannot take. */
  private readonly damage: LogDamage | undefined;
  private readonly identity: NodeIdentity;
  private readonly store: LogStore;
  private readonly snapshots: SnapshotStore;
  private readonly network: Network;
  private readonly releaseBelow: () => Promise<void>;
  private readonly readIndexes: ReadIndexBatcher;
  private boundAddress = '';
  /** As it was told last. */
  private leadership = { leader: 0, role: '', term: 0 };
  private closing: Promise<void> | undefined;

  private constructor(parts: HostParts, opened: OpenedParts, start: StartingPoint) {
    const { store, snapshots, machine } = opened;
    const { config, identity, scheduler, logger } = parts;
    const { nodeId } = identity;
    this.config = config;
    this.scheduler = scheduler;
    this.logger = logger;
    this.identity = identity;
    this.store = store;
    this.damage = damageOf(store);
    this.snapshots = snapshots;
    this.machine = machine;
    this.releaseBelow = () => parts.release();
    this.network = parts.createNetwork(machine.version);
    this.observers = new Observers(scheduler, logger, () => this.status());
    this.runtime = new Runtime({
      group: GROUP,
      nodeId,
      engine: createEngine(parts, start),
      store,
      snapshots,
      network: this.network,
      machine,
      scheduler,
      logger,
      limits: {
        ...config.limits,
        ...config.stateMachine,
        maxBlockEntries: config.storage.maxBatchEntries,
        maxBlockBytes: config.storage.maxBatchBytes,
        flushStallMs: config.storage.flushStallMs,
      },
      snapshotLimits: { ...config.snapshot, ...config.raft },
      machineApplied: start.applied,
      snapshotTime: start.time,
      observer: {
        changed: () => this.observers.changed(),
        leadership: () => this.leadershipChanged(),
        membership: (membership) => this.membershipChanged(membership),
        failed: (error) => this.failed(error),
      },
      damage: this.damage?.error,
      sendOn: (payload, timeoutMs) => this.forwarder.takeOver(payload, timeoutMs),
    });
    this.forwarder = new Forwarder(nodeId, this.runtime, this.network, scheduler, this.observers, {
      ...config.raft,
      ...config.network,
    });
    const batchMs = Math.max(config.limits.callTimeoutMs, config.raft.electionTimeoutMs);
    this.readIndexes = new ReadIndexBatcher(this.forwarder, scheduler, batchMs);
  }

  /** @throws KeelsonError what the parts throw; everything opened so far is closed again */
  static async open(parts: HostParts): Promise<Host> {
    const opened: (() => Promise<void>)[] = [() => parts.release()];
    try {
      const late = new LateEvents();
      const store = await parts.openStore(late);
      opened.push(() => store.close());
      parts.scope?.check();
      const snapshots = await parts.openSnapshots();
      opened.push(() => closeSnapshots(parts, snapshots));
      parts.scope?.check();
      const machine = parts.createMachine(late);
      opened.push(() => machine.close());
      const applied = await machine.open();
      parts.scope?.check();
      const { scheduler, logger } = parts;
      const check = (): void => parts.scope?.check();
      const restoring = { snapshots, machine, scheduler, logger, check };
      const loss = store.damage?.of(GROUP);
      const start = await restoreMachine(restoring, store.recovered(GROUP), applied, loss);
      parts.scope?.check();
      const host = new Host(parts, { store, snapshots, machine }, start);
      opened.push(() => {
        // Its timer would go on over closed parts.
        host.runtime.stop(new KeelsonError('KEELSON_CLOSED', 'this node was not opened'));
        return host.network.close();
      });
      // Before the first message: its commands complete through these events, and a bootstrap needs
      // a log that nobody has touched.
      late.arrive(host.runtime);
      host.start(parts.bootstrap);
      if (host.damage === undefined) host.boundAddress = await host.bind();
      parts.scope?.check();
      return host;
    } catch (error) {
      await closeAll(opened.reverse()).catch((err: unknown) => {
        const message = 'a part of a node that was not opened did not close';
        parts.logger.error({ event: 'node.close-failed', err }, message);
      });
      throw error;
    }
  }

  private async bind(): Promise<string> {
    try {
      return await this.network.start(this.runtime);
    } catch (error) {
      // What stopped the node meanwhile has closed its network.
      throw this.runtime.stopped ?? error;
    }
  }

  private start(bootstrap: Membership): void {
    const { engine } = this.runtime;
    if (engine.lastLogId.index > 0) this.warnOfOtherBootstrap(bootstrap);
    this.membershipChanged(this.runtime.membership);
    this.runtime.start(bootstrap);
  }

  /** After the first start, membership in the log is the truth. */
  private warnOfOtherBootstrap(bootstrap: Membership): void {
    const stored = this.runtime.membership.addresses;
    if (JSON.stringify(sorted(stored)) === JSON.stringify(sorted(bootstrap.addresses))) return;
    this.logger.warn(
      { event: 'bootstrap.ignored', configured: bootstrap.addresses, stored },
      'the configured voters differ from the membership in the log, which is used',
    );
  }

  get address(): string {
    return this.boundAddress;
  }

  /** A full disk and a damaged log end writing only: what the machine has applied can still be read. */
  get readsLocally(): boolean {
    const { stopped } = this.runtime;
    return (
      (stopped === undefined || stopped.code === 'KEELSON_STORAGE_FULL') &&
      this.closing === undefined
    );
  }

  /** The index that a linearizable read must see, from whoever leads. */
  readIndex(scope: CallScope): Promise<number> {
    if (this.runtime.engine.role !== 'leader') return this.readIndexes.request(scope);
    return this.runtime.readIndex(scope).catch((error: unknown) => {
      const lost = error instanceof KeelsonError && error.code === 'KEELSON_NOT_LEADER';
      if (lost) return this.readIndexes.request(scope);
      throw error;
    });
  }

  status(): Status {
    const { engine } = this.runtime;
    const { leader } = engine;
    const { membership } = this.runtime;
    const voters = votersOf(membership);
    const failure = this.runtime.stopped;
    const stopped = failure !== undefined;
    const leads = !stopped && engine.role === 'leader';
    return Object.freeze({
      nodeId: this.identity.nodeId,
      clusterId: this.identity.clusterId,
      incarnation: this.identity.incarnation,
      state: stopped ? 'stopped' : engine.role,
      term: engine.term,
      leader: leader === 0 || stopped ? undefined : leader,
      leaderAddress: leader === 0 || stopped ? undefined : membership.addresses[leader],
      lastLogIndex: engine.lastLogId.index,
      flushedIndex: engine.flushedIndex,
      committedIndex: engine.committedIndex,
      appliedIndex: engine.appliedIndex,
      snapshotIndex: engine.snapshots.newest.index,
      purgedIndex: engine.purgedIndex,
      voters,
      learners: membership.learners,
      addresses: membership.addresses,
      // An applied entry of the own term stands behind all of the predecessors'.
      readyToLead: leads && engine.termAt(engine.appliedIndex) === engine.term,
      pendingWrites: this.runtime.pendingWrites,
      matchIndexes: this.matchIndexes(leads ? voters : []),
      snapshotsSent: this.snapshotsSent(),
      snapshotReceived: stopped ? undefined : this.snapshotReceived(),
      failure,
      damage: this.damage,
    });
  }

  private matchIndexes(voters: readonly NodeId[]): Readonly<Record<NodeId, number>> {
    const peers = voters.filter((peer) => peer !== this.identity.nodeId);
    return Object.freeze(
      Object.fromEntries(peers.map((peer) => [peer, this.runtime.engine.matchIndex(peer)])),
    );
  }

  private snapshotsSent(): Status['snapshotsSent'] {
    const sending = [...this.runtime.exchange.sending()];
    return Object.freeze(
      Object.fromEntries(sending.map(([peer, progress]) => [peer, Object.freeze(progress)])),
    );
  }

  private snapshotReceived(): Status['snapshotReceived'] {
    const received = this.runtime.exchange.receiving();
    return received === undefined ? undefined : Object.freeze(received);
  }

  private leadershipChanged(): void {
    const { leader, role, term } = this.runtime.engine;
    this.forwarder.leadershipChanged();
    const before = this.leadership;
    this.leadership = { leader, role, term };
    // A vote that was given changes none of them.
    const sameLeader = leader === before.leader && term === before.term;
    if (!sameLeader || role !== before.role) {
      this.logger.info({ event: 'leader.changed', leader, role, term }, 'leadership changed');
    }
    if (!sameLeader) {
      const nodeId = leader === 0 ? undefined : leader;
      this.observers.emit('leader', Object.freeze({ nodeId, term }));
    }
    this.observers.changed();
  }

  private membershipChanged(membership: Membership): void {
    const peers = new Map<NodeId, string>();
    for (const [id, address] of Object.entries(membership.addresses)) {
      if (Number(id) !== this.identity.nodeId) peers.set(Number(id), address);
    }
    if (this.damage === undefined) this.network.setPeers(peers);
    const { learners } = membership;
    const voters = votersOf(membership);
    if (voters.length > 0) {
      this.logger.info({ event: 'membership.changed', voters, learners }, 'who is a member');
    }
    this.observers.emit('membership', Object.freeze({ voters, learners }));
    this.observers.changed();
  }

  /** The process and its status stay up; peers find out at once, by the closed connections. */
  private failed(error: KeelsonError): void {
    this.observers.emit('error', error);
    this.observers.end(this.runtime.serviceRefusal ?? error);
    this.network.close().catch((cause: unknown) => {
      this.logger.error({ event: 'network.close-failed', cause }, 'the network did not close');
    });
  }

  close(): Promise<void> {
    this.closing ??= this.closeParts();
    return this.closing;
  }

  private async closeParts(): Promise<void> {
    const closed = new KeelsonError('KEELSON_CLOSED', 'this node has been closed');
    this.runtime.stop(closed);
    this.observers.end(closed);
    await closeAll([
      () => this.network.close(),
      () => this.machine.close(),
      () => closeSnapshots(this, this.snapshots),
      () => this.store.close(),
      () => this.releaseBelow(),
    ]);
  }
}

function damageOf({ damage }: LogStore): LogDamage | undefined {
  if (damage === undefined) return undefined;
  const { ranges, ...loss } = damage.of(GROUP);
  const frozen = Object.freeze(ranges.map((range) => Object.freeze({ ...range })));
  return Object.freeze({ ...loss, ranges: frozen, error: damage.refusal() });
}

interface OpenedParts {
  readonly store: LogStore;
  readonly snapshots: SnapshotStore;
  readonly machine: MachineHost;
}

/** Its thread is ended in the middle of whatever it does: what is unfinished goes at the next start. */
function closeSnapshots(
  { scheduler, config }: Pick<HostParts, 'scheduler' | 'config'>,
  snapshots: SnapshotStore,
): Promise<void> {
  return snapshots.close(scheduler.now() + config.limits.shutdownTimeoutMs / 4);
}

/** Takes every step, whatever the ones before it did; then throws the first error. */
async function closeAll(steps: readonly (() => Promise<void>)[]): Promise<void> {
  const errors: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

function createEngine(parts: HostParts, { recovered }: StartingPoint): Engine {
  const { config, identity, scheduler } = parts;
  return new Engine(
    {
      ...config.raft,
      keepEntries: config.snapshot.keepEntries,
      nodeId: identity.nodeId,
      seed: Math.floor(scheduler.random() * 0x1_0000_0000),
    },
    recovered,
    scheduler.now(),
  );
}

const sorted = (addresses: Readonly<Record<NodeId, string>>): [string, string][] =>
  Object.entries(addresses).sort(([a], [b]) => Number(a) - Number(b));

/**
 * Store and machine exist before the runtime that listens to them. Nothing completes before the
 * first command, but either may fail at any time.
 */
class LateEvents implements LogStoreEvents, MachineEvents {
  private runtime: Runtime | undefined;
  private failure: Error | undefined;

  arrive(runtime: Runtime): void {
    this.runtime = runtime;
    if (this.failure !== undefined) runtime.failed(this.failure);
  }

  flushed(group: number, io: IoId): void {
    this.runtime?.flushed(group, io);
  }

  applied(firstIndex: number, lastIndex: number, responses: readonly unknown[]): void {
    this.runtime?.applied(firstIndex, lastIndex, responses);
  }

  writable(): void {
    this.runtime?.storeWritable();
  }

  failed(error: Error): void {
    this.failure ??= error;
    this.runtime?.failed(error);
  }
}
