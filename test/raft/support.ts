/** Three nodes as an application has them: real directories, sockets on loopback, and threads. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '../../dist/cli/demo/ports.js';
import {
  type ConfigInput,
  KeelsonError,
  type KeyValueMachine,
  type Logger,
  Raft,
  type RaftOptions,
} from '../../dist/index.js';
import type {
  KeyValueAnswer,
  KeyValueCommand,
  KeyValueQuery,
  KeyValueResponse,
  VersionedValue,
} from '../../dist/state-machine/key-value.js';

export type Node = Raft<KeyValueCommand, KeyValueResponse, KeyValueQuery, KeyValueAnswer>;

/** Small enough that three nodes fit beside other tests. */
export const smallConfig = {
  storage: {
    segmentBytes: 4 * 1024 * 1024,
    ringBytes: 4 * 1024 * 1024,
    maxIndexBytes: 4 * 1024 * 1024,
    maxBatchBytes: 512 * 1024,
  },
  raft: { maxInflightBytes: 1024 * 1024, maxAppendBytes: 256 * 1024 },
  network: { maxFrameBytes: 512 * 1024 },
  limits: { maxEntryBytes: 128 * 1024 },
};

export interface LogLine {
  readonly nodeId: number;
  readonly event: unknown;
  readonly fields: Readonly<Record<string, unknown>>;
}

export class RealCluster {
  readonly root: string = mkdtempSync(join(tmpdir(), 'keelson-raft-'));
  readonly lines: LogLine[] = [];
  readonly nodes = new Map<number, Node>();
  private readonly machine: () => KeyValueMachine | URL;
  private readonly config: ConfigInput;
  private voters: Record<number, string> = {};

  constructor(machine: () => KeyValueMachine | URL, config: ConfigInput = smallConfig) {
    this.machine = machine;
    this.config = config;
  }

  /** Another program may take a port between its choice and its use: then all are chosen again. */
  async start(count = 3): Promise<void> {
    for (;;) {
      const ports = await freePorts(count);
      this.voters = Object.fromEntries(ports.map((port, i) => [i + 1, `127.0.0.1:${port}`]));
      const opened = await Promise.allSettled(ports.map((_, i) => this.open(i + 1)));
      const failed = opened.find((result) => result.status === 'rejected');
      if (failed === undefined) return;
      await this.stopAll();
      if (!portWasTaken(failed.reason)) throw failed.reason;
      for (let id = 1; id <= count; id++) rmSync(this.directory(id), { recursive: true });
    }
  }

  directory(nodeId: number): string {
    return join(this.root, `node-${nodeId}`);
  }

  options(nodeId: number): RaftOptions<KeyValueMachine | URL> {
    return {
      nodeId,
      clusterName: 'real',
      dataDir: this.directory(nodeId),
      listen: this.voters[nodeId] as string,
      bootstrap: { voters: this.voters },
      stateMachine: this.machine(),
      config: this.config,
      logger: this.logger(nodeId),
    };
  }

  async open(
    nodeId: number,
    changes: Partial<RaftOptions<KeyValueMachine | URL>> = {},
  ): Promise<Node> {
    const node = (await Raft.open({ ...this.options(nodeId), ...changes })) as unknown as Node;
    this.nodes.set(nodeId, node);
    return node;
  }

  async stop(nodeId: number): Promise<void> {
    const node = this.nodes.get(nodeId);
    this.nodes.delete(nodeId);
    await node?.close();
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.nodes.keys()].map((nodeId) => this.stop(nodeId)));
  }

  leader(): Promise<Node> {
    return Promise.any(
      [...this.nodes.values()].map(async (node) => {
        await node.waitFor((status) => status.readyToLead, { timeoutMs: 20_000 });
        return node;
      }),
    );
  }

  async close(): Promise<void> {
    await this.stopAll();
    rmSync(this.root, { recursive: true, force: true });
  }

  private logger(nodeId: number): Logger {
    const note = (fields: Readonly<Record<string, unknown>>): void => {
      this.lines.push({ nodeId, event: fields.event, fields });
    };
    return { debug: note, info: note, warn: note, error: note } as unknown as Logger;
  }
}

const portWasTaken = (error: unknown): boolean =>
  error instanceof KeelsonError && error.details.systemCode === 'EADDRINUSE';

export const idOf = (node: Node): number => node.status().nodeId;

export function put(key: string, value: string): KeyValueCommand {
  return { op: 'put', key, value: new TextEncoder().encode(value) };
}

export async function get(node: Node, key: string): Promise<string | undefined> {
  const found = (await node.read({ op: 'get', key })) as VersionedValue | undefined;
  return found === undefined ? undefined : new TextDecoder().decode(found.value);
}

export async function refusal(promise: Promise<unknown>): Promise<KeelsonError> {
  const error = await promise.then(
    () => new Error('it was not refused'),
    (reason: unknown) => reason,
  );
  if (error instanceof KeelsonError) return error;
  throw error;
}

/** Another program may take the port between its choice and its use: then another is chosen. */
export async function withFreeAddress<T>(use: (address: string) => Promise<T>): Promise<T> {
  for (;;) {
    const [port] = await freePorts(1);
    try {
      return await use(`127.0.0.1:${port}`);
    } catch (error) {
      if (!portWasTaken(error)) throw error;
    }
  }
}
