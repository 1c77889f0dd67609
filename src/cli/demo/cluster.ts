/**
 * Three node processes on loopback, each with its own durable directory under one temporary one.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NoAnswer, NodeClient } from './client.js';
import { NodeProcess } from './node-process.js';
import { freePorts } from './ports.js';

export interface NodeStatus {
  readonly nodeId: number;
  readonly state: string;
  readonly term: number;
  readonly leader: number | null;
  readonly committedIndex: number;
  readonly appliedIndex: number;
}

export class DemoFailure extends Error {
  override readonly name = 'DemoFailure';
}

const NODE_IDS = [1, 2, 3];
const START_ATTEMPTS = 3;
const POLL_INTERVAL_MS = 20;
const PATIENCE_MS = 30_000;

export class DemoCluster {
  readonly nodes: ReadonlyMap<number, NodeProcess>;
  readonly client: NodeClient;

  private constructor(nodes: ReadonlyMap<number, NodeProcess>, connections: number) {
    this.nodes = nodes;
    const ports = new Map([...nodes].map(([nodeId, node]) => [nodeId, node.httpPort]));
    this.client = new NodeClient(ports, connections);
  }

  /**
   * Starts three nodes and waits until all agree on a leader. Ports that somebody took between
   * looking and binding mean a new attempt with others, in a fresh directory.
   */
  static async start(
    directory: string,
    connections: number,
    started: (cluster: DemoCluster) => void,
  ): Promise<DemoCluster> {
    for (let attempt = 1; ; attempt += 1) {
      const ports = await freePorts(2 * NODE_IDS.length);
      const initialCluster = NODE_IDS.map((id, at) => `${id}=127.0.0.1:${ports[2 * at]}`).join(',');
      const nodes = NODE_IDS.map((nodeId, at) => {
        const nodeDirectory = join(directory, `attempt-${attempt}`, `node-${nodeId}`);
        const [raftPort, httpPort] = [ports[2 * at]!, ports[2 * at + 1]!];
        const own = { nodeId, directory: nodeDirectory, raftPort, httpPort };
        return new NodeProcess({ ...own, initialCluster });
      });
      const cluster = new DemoCluster(
        new Map(nodes.map((node) => [node.nodeId, node])),
        connections,
      );
      started(cluster);
      for (const node of nodes) node.start();
      try {
        await cluster.agreedLeader();
        return cluster;
      } catch (error) {
        await cluster.kill();
        cluster.client.close();
        const portTaken = nodes.some((node) => node.logTail().includes('EADDRINUSE'));
        if (!portTaken || attempt === START_ATTEMPTS) throw error;
      }
    }
  }

  node(nodeId: number): NodeProcess {
    const node = this.nodes.get(nodeId);
    if (node === undefined) throw new DemoFailure(`there is no node ${nodeId}`);
    return node;
  }

  /** Waits until every node that runs names the same leader, and that node says so itself. */
  async agreedLeader(): Promise<NodeStatus> {
    return await this.until('the nodes agree on a leader', (statuses) => {
      const leader = statuses.find((status) => status.state === 'leader');
      const agreed = statuses.every((status) => status.leader === leader?.nodeId);
      return agreed ? leader : undefined;
    });
  }

  /** Waits until every node has applied what any of them knows to be committed; resolves with it. */
  async caughtUp(): Promise<number> {
    return await this.until('all nodes have caught up', (statuses) => {
      const committed = Math.max(...statuses.map((status) => status.committedIndex));
      const all = statuses.length === this.nodes.size;
      return all && statuses.every((status) => status.appliedIndex >= committed)
        ? committed
        : undefined;
    });
  }

  /** SIGTERM to all; resolves with whether each closed cleanly. */
  async stop(): Promise<boolean> {
    this.client.close();
    const clean = await Promise.all([...this.nodes.values()].map((node) => node.stop()));
    return clean.every(Boolean);
  }

  async kill(): Promise<void> {
    await Promise.all([...this.nodes.values()].map((node) => node.kill()));
  }

  /** For an exit that cannot wait. */
  killNow(): void {
    for (const node of this.nodes.values()) node.killNow();
  }

  private async until<Result>(
    what: string,
    look: (statuses: readonly NodeStatus[]) => Result | undefined,
  ): Promise<Result> {
    const deadline = AbortSignal.timeout(PATIENCE_MS);
    while (!deadline.aborted) {
      const running = [...this.nodes.values()].filter((node) => node.running);
      for (const node of this.nodes.values()) this.mustNotHaveFailed(node);
      const statuses = await Promise.all(running.map((node) => this.status(node.nodeId)));
      const answered = statuses.filter((status) => status !== undefined);
      const found = answered.length === running.length ? look(answered) : undefined;
      if (found !== undefined) return found;
      await delay(POLL_INTERVAL_MS);
    }
    const logs = [...this.nodes.values()].map((node) => `node ${node.nodeId}:\n${node.logTail()}`);
    const seconds = PATIENCE_MS / 1_000;
    throw new DemoFailure(`waited ${seconds} s until ${what}\n${logs.join('\n')}`);
  }

  private async status(nodeId: number): Promise<NodeStatus | undefined> {
    try {
      const reply = await this.client.send(nodeId, 'GET', '/v1/status');
      return JSON.parse(reply.body.toString()) as NodeStatus;
    } catch (error) {
      if (error instanceof NoAnswer) return undefined;
      throw error;
    }
  }

  /** A node that was killed on purpose has no exit code; one that gave up has. */
  private mustNotHaveFailed(node: NodeProcess): void {
    if (node.exitCode === undefined) return;
    throw new DemoFailure(
      `node ${node.nodeId} ended with exit code ${node.exitCode}:\n${node.logTail()}`,
    );
  }
}
