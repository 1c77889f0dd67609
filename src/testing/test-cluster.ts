import { randomBytes } from 'node:crypto';
import { invariant } from '../base/assert.js';
import { KeelsonError } from '../base/errors.js';
import { type Logger, silentLogger } from '../base/logger.js';
import type { Timer } from '../base/scheduler.js';
import { SystemScheduler } from '../base/system-scheduler.js';
import { resolveConfig } from '../config/resolve.js';
import type { Config, ConfigInput } from '../config/types.js';
import type { Membership, NodeId } from '../engine/types.js';
import { Host } from '../host.js';
import { InProcessHub } from '../network/in-process-hub.js';
import { InProcessNetwork } from '../network/in-process-network.js';
import { Raft } from '../raft.js';
import { decodeMembership, frozenMembership } from '../runtime/membership-codec.js';
import { machineFault } from '../state-machine/machine-fault.js';
import { MainThreadHost } from '../state-machine/main-thread-host.js';
import type { StateMachine } from '../state-machine/state-machine.js';
import { clusterIdOf } from '../storage/manifest.js';
import { MemoryDisk } from '../storage/memory-disk.js';
import { MemoryLogImage, MemoryLogStore } from '../storage/memory-log-store.js';
import { snapshotDirectory } from '../storage/snapshot-directory.js';
import { InlineSnapshotExecutor } from '../storage/snapshot-executor.js';
import { SnapshotStore } from '../storage/snapshot-store.js';
import { SharedHeap } from '../wasm/shared-heap.js';

/**
 * A cluster in one process, for tests of your state machine and of your code around it: real engines,
 * log and snapshots in memory, network in process. What a node has acknowledged survives its crash; what it has not
 * flushed is lost, as on a machine that loses power.
 */
export interface TestClusterOptions<Command, Response, Query, Answer> {
  /** Number of voters, 1 to 7. Default 3. Their ids are 1, 2, … */
  readonly nodes?: number;
  /** Makes the machine of a node, again after each restart. */
  readonly stateMachine: (nodeId: NodeId) => StateMachine<Command, Response, Query, Answer>;
  readonly config?: ConfigInput;
  readonly logger?: Logger;
}

export async function testCluster<Command, Response, Query, Answer>(
  options: TestClusterOptions<Command, Response, Query, Answer>,
): Promise<TestCluster<Command, Response, Query, Answer>> {
  const cluster = new TestCluster(options);
  try {
    await cluster.start();
  } catch (error) {
    await cluster.close();
    throw error;
  }
  return cluster;
}

/** The one group of a node. */
const GROUP = 0;
/** Beside the staging area, which is as large as the ring; the log itself is kept outside. */
const HEAP_SLACK_BYTES = 4 * 1024 * 1024;

interface Member<Command, Response, Query, Answer> {
  readonly nodeId: NodeId;
  readonly image: MemoryLogImage;
  /** Its snapshots. */
  disk: MemoryDisk;
  readonly incarnation: string;
  raft: Raft<Command, Response, Query, Answer> | undefined;
  store: MemoryLogStore | undefined;
}

export class TestCluster<Command, Response, Query, Answer> implements AsyncDisposable {
  private readonly options: TestClusterOptions<Command, Response, Query, Answer>;
  private readonly config: Config;
  private readonly scheduler = new SystemScheduler();
  private readonly hub: InProcessHub;
  private readonly alive: Timer;
  private readonly bootstrap: Membership;
  private readonly members: Member<Command, Response, Query, Answer>[];

  /** @throws KeelsonError KEELSON_INVALID_ARGUMENT, KEELSON_INVALID_CONFIG */
  constructor(options: TestClusterOptions<Command, Response, Query, Answer>) {
    this.options = options;
    this.config = resolveConfig(options.config);
    this.hub = new InProcessHub(this.scheduler);
    const count = options.nodes ?? 3;
    if (!Number.isInteger(count) || count < 1 || count > 7) {
      throw new KeelsonError('KEELSON_INVALID_ARGUMENT', `nodes must be 1 to 7, not ${count}`);
    }
    const ids = Array.from({ length: count }, (_, i) => i + 1);
    this.bootstrap = frozenMembership({
      configs: [ids],
      learners: [],
      addresses: Object.fromEntries(ids.map((id) => [id, `in-process:${id}`])),
    });
    this.members = ids.map((nodeId) => ({
      nodeId,
      image: new MemoryLogImage(),
      disk: new MemoryDisk(),
      incarnation: randomBytes(16).toString('hex'),
      raft: undefined,
      store: undefined,
    }));
    this.alive = this.scheduler.keepAlive();
  }

  /** Starts every node that is down. */
  async start(): Promise<void> {
    const opened = await Promise.allSettled(this.members.map((member) => this.open(member)));
    for (const result of opened) if (result.status === 'rejected') throw result.reason;
  }

  /** Handles of the nodes that are up. */
  get nodes(): readonly Raft<Command, Response, Query, Answer>[] {
    return this.members.flatMap(({ raft }) => raft ?? []);
  }

  /** Handle of one node. @throws KeelsonError KEELSON_CLOSED when it is down */
  node(nodeId: NodeId): Raft<Command, Response, Query, Answer> {
    const { raft } = this.member(nodeId);
    if (raft === undefined) throw new KeelsonError('KEELSON_CLOSED', `node ${nodeId} is down`);
    return raft;
  }

  /** Waits for a leader that is ready, among the nodes that are up. */
  async leader(timeoutMs = 30_000): Promise<Raft<Command, Response, Query, Answer>> {
    const abort = new AbortController();
    const { signal } = abort;
    try {
      return await Promise.any(
        this.nodes.map(async (raft) => {
          await raft.waitFor((status) => status.readyToLead, { timeoutMs, signal });
          return raft;
        }),
      );
    } catch (cause) {
      throw new KeelsonError('KEELSON_NO_LEADER', `no node led within ${timeoutMs} ms`, { cause });
    } finally {
      abort.abort();
    }
  }

  /** Waits until every node that is up has applied `index`. */
  async waitForApplied(index: number, timeoutMs = 30_000): Promise<void> {
    await Promise.all(
      this.nodes.map((raft) =>
        raft.waitFor((status) => status.appliedIndex >= index, { timeoutMs }),
      ),
    );
  }

  /** Nodes reach only nodes of their own group; those not named form one more group. */
  partition(...groups: readonly (readonly NodeId[])[]): void {
    this.hub.partition(groups);
  }

  heal(): void {
    this.hub.heal();
  }

  /** Loses power: nothing is flushed any more, waiting calls fail with an unknown outcome. */
  async crash(nodeId: NodeId): Promise<void> {
    const member = this.member(nodeId);
    const { raft, store } = member;
    if (raft === undefined) return;
    member.raft = undefined;
    store?.crash();
    member.disk = member.disk.crash();
    await raft.close();
  }

  /** Starts a node again, on what was durable. */
  async restart(nodeId: NodeId): Promise<Raft<Command, Response, Query, Answer>> {
    await this.crash(nodeId);
    await this.open(this.member(nodeId));
    return this.node(nodeId);
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((raft) => raft.close()));
    for (const member of this.members) member.raft = undefined;
    this.alive.cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private member(nodeId: NodeId): Member<Command, Response, Query, Answer> {
    const member = this.members[nodeId - 1];
    if (member !== undefined) return member;
    throw new KeelsonError('KEELSON_INVALID_ARGUMENT', `there is no node ${nodeId}`);
  }

  private machine(nodeId: NodeId): StateMachine<Command, Response, Query, Answer> {
    const machine = this.options.stateMachine(nodeId);
    const fault = machineFault(machine);
    if (fault === undefined) return machine;
    throw new KeelsonError('KEELSON_INVALID_ARGUMENT', `stateMachine made no machine: ${fault}`);
  }

  private async open(member: Member<Command, Response, Query, Answer>): Promise<void> {
    if (member.raft !== undefined) return;
    const { nodeId, incarnation, image, disk } = member;
    const { config, scheduler, hub, bootstrap } = this;
    const host = await Host.open({
      config,
      identity: { clusterId: clusterIdOf('test', bootstrap.addresses), nodeId, incarnation },
      bootstrap,
      scheduler,
      logger: this.options.logger ?? silentLogger,
      openStore: async (events) => {
        const heap = SharedHeap.create({
          maximumBytes: config.storage.ringBytes + HEAP_SLACK_BYTES,
        });
        member.store = new MemoryLogStore({
          heap,
          scheduler,
          events,
          image,
          decodeMembership,
          ...config.storage,
        });
        return member.store;
      },
      openSnapshots: () =>
        SnapshotStore.open({
          directory: snapshotDirectory('/node', GROUP),
          group: GROUP,
          ...config.snapshot,
          executor: new InlineSnapshotExecutor(disk, scheduler),
          logger: this.options.logger ?? silentLogger,
        }),
      createMachine: (events) =>
        new MainThreadHost(this.machine(nodeId), {
          group: GROUP,
          events,
          scheduler,
          limits: config.stateMachine,
        }),
      createNetwork: () => {
        const { maxRequests } = config.network;
        return new InProcessNetwork(hub, { nodeId, maxRequests });
      },
      release: async () => {},
    });
    invariant(member.raft === undefined, `node ${nodeId} is started once at a time`);
    member.raft = Raft.on(host);
  }
}
