/**
 * Writers, each one write after the other, each write a key of its own. Only an answer 200 counts as
 * acknowledged. A refusal changed nothing, so the same write is tried again; a write whose answer is
 * missing may or may not be stored, so it is counted apart and never tried again.
 */
import { createHistogram, performance, type RecordableHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { NoAnswer, type NodeClient, type NodeReply } from './client.js';
import { DemoFailure } from './cluster.js';
import { keyOf, type Values } from './values.js';

export interface LoadWindow {
  readonly writes: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface AwaitedWrite {
  readonly sentAfterMs: number;
  resolve(acknowledgedMs: number): void;
}

const RETRY_DELAY_MS = 10;

export class Load {
  /** Per writer the sequence numbers that were acknowledged, ascending. */
  readonly acknowledged: number[][];
  acknowledgedCount = 0;
  unknownCount = 0;
  private readonly client: NodeClient;
  private readonly values: Values;
  private readonly latencyMicros: RecordableHistogram = createHistogram();
  private target: number;
  private windowStartCount = 0;
  private stopping = false;
  private awaited: AwaitedWrite | undefined;

  constructor(client: NodeClient, values: Values, writers: number, leader: number) {
    this.client = client;
    this.values = values;
    this.target = leader;
    this.acknowledged = Array.from({ length: writers }, () => []);
  }

  /** Writes until `stop`; rejects when a node answers what it never should. */
  async run(): Promise<void> {
    await Promise.all(this.acknowledged.map((_, writer) => this.write(writer)));
  }

  stop(): void {
    this.stopping = true;
  }

  /** Resolves with the time at which the next write that is sent from now on was acknowledged. */
  nextAcknowledged(): Promise<number> {
    const sentAfterMs = performance.now();
    return new Promise((resolve) => {
      this.awaited = { sentAfterMs, resolve };
    });
  }

  /** What happened since the last call. */
  takeWindow(): LoadWindow {
    const writes = this.acknowledgedCount - this.windowStartCount;
    const milliseconds = (percentile: number): number =>
      writes === 0 ? 0 : this.latencyMicros.percentile(percentile) / 1_000;
    const window = { writes, p50Ms: milliseconds(50), p99Ms: milliseconds(99) };
    this.windowStartCount = this.acknowledgedCount;
    this.latencyMicros.reset();
    return window;
  }

  private async write(writer: number): Promise<void> {
    for (let sequence = 0; !this.stopping; sequence += 1) {
      const key = keyOf(writer, sequence);
      const path = `/v1/kv/${key}`;
      const value = this.values.of(key);
      let settled = false;
      while (!settled && !this.stopping) {
        const sentMs = performance.now();
        settled = await this.attempt(path, value, () => {
          this.count(writer, sequence, sentMs);
        });
        if (!settled) await delay(RETRY_DELAY_MS);
      }
    }
  }

  /** Resolves with whether the write is over, acknowledged or not. */
  private async attempt(
    path: string,
    value: Uint8Array,
    acknowledge: () => void,
  ): Promise<boolean> {
    const asked = this.target;
    let reply: NodeReply;
    try {
      reply = await this.client.send(asked, 'PUT', path, value);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      this.leave(asked);
      if (error.sent) this.unknownCount += 1;
      return error.sent;
    }
    if (reply.leader !== 0) this.target = reply.leader;
    switch (reply.status) {
      case 200:
        acknowledge();
        return true;
      case 504:
        this.unknownCount += 1;
        return true;
      case 429:
      case 503:
        return false;
      default:
        throw new DemoFailure(`node ${asked} answered ${reply.status}: ${reply.body.toString()}`);
    }
  }

  private count(writer: number, sequence: number, sentMs: number): void {
    const nowMs = performance.now();
    this.acknowledged[writer]!.push(sequence);
    this.acknowledgedCount += 1;
    this.latencyMicros.record(Math.max(1, Math.round((nowMs - sentMs) * 1_000)));
    if (this.awaited !== undefined && sentMs > this.awaited.sentAfterMs) {
      this.awaited.resolve(nowMs);
      this.awaited = undefined;
    }
  }

  /** The next node in turn; whoever answers names the leader. */
  private leave(nodeId: number): void {
    if (this.target !== nodeId) return;
    const { nodeIds } = this.client;
    this.target = nodeIds[(nodeIds.indexOf(nodeId) + 1) % nodeIds.length]!;
  }
}
