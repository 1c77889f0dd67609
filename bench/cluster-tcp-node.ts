import { Raft, rawCodec, type StateMachine } from '../dist/index.js';
import { LatencySamples } from './latency.js';

/** One node of the suite `cluster-tcp`, in a process of its own; the one that leads runs the clients. */
export interface NodeTask {
  readonly nodeId: number;
  readonly listen: string;
  readonly directory: string;
  readonly voters: Record<number, string>;
  readonly clients: number;
  readonly entrySize: number;
  readonly seconds: number;
  /** Writes per second of the open loop; 0 for a closed loop. */
  readonly rate: number;
}

export interface NodeReport {
  readonly writesPerSecond: number;
  readonly writes: number;
  readonly latency: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** While the run goes on, and at its end. */
export type NodeMessage = { readonly written: number } | NodeReport;

class Counter implements StateMachine<Uint8Array, undefined, 'count', number> {
  readonly codec = rawCodec;
  private count = 0;

  apply(entries: readonly unknown[]): undefined[] {
    this.count += entries.length;
    return new Array(entries.length);
  }

  query(): number {
    return this.count;
  }

  *snapshot(): Iterable<Uint8Array> {}

  restore(): void {}
}

async function serve(task: NodeTask): Promise<void> {
  const raft = await Raft.open({
    nodeId: task.nodeId,
    clusterName: 'bench',
    dataDir: task.directory,
    listen: task.listen,
    bootstrap: { voters: task.voters },
    stateMachine: new Counter(),
  });
  let stopping = false;
  process.once('message', () => {
    stopping = true;
    raft.close().then(() => process.exit(0));
  });
  await raft.waitFor((status) => status.leader !== undefined, { timeoutMs: 30_000 });
  try {
    await raft.waitFor((status) => status.readyToLead, { timeoutMs: 3_600_000 });
  } catch (error) {
    // Another node leads, and the run is over.
    if (stopping) return;
    throw error;
  }
  await load(raft, task, 1, new LatencySamples());
  const latency = new LatencySamples();
  const before = raft.status().appliedIndex;
  const progress = setInterval(() => {
    process.send?.({ written: raft.status().appliedIndex - before } satisfies NodeMessage);
  }, 1000);
  const startedAt = performance.now();
  const writes = await load(raft, task, task.seconds, latency);
  clearInterval(progress);
  const seconds = (performance.now() - startedAt) / 1000;
  const report: NodeReport = {
    writesPerSecond: Math.round(writes / seconds),
    writes,
    latency: latency.summary(),
  };
  process.send?.(report);
}

type Node = Raft<Uint8Array, undefined, 'count', number>;

function load(raft: Node, task: NodeTask, seconds: number, latency: LatencySamples) {
  return task.rate > 0
    ? openLoop(raft, task, seconds, latency)
    : closedLoop(raft, task, seconds, latency);
}

async function closedLoop(raft: Node, task: NodeTask, seconds: number, latency: LatencySamples) {
  const payload = new Uint8Array(task.entrySize).fill(0x5a);
  const endAt = performance.now() + seconds * 1000;
  let writes = 0;
  const client = async (): Promise<void> => {
    for (;;) {
      const at = performance.now();
      if (at >= endAt) return;
      await raft.write(payload);
      latency.add((performance.now() - at) * 1000);
      writes++;
    }
  };
  await Promise.all(Array.from({ length: task.clients }, client));
  return writes;
}

/** Starts `rate` writes per second on schedule, whatever the answers do; late starts count as latency. */
async function openLoop(raft: Node, task: NodeTask, seconds: number, latency: LatencySamples) {
  const payload = new Uint8Array(task.entrySize).fill(0x5a);
  const startedAt = performance.now();
  const total = Math.floor(task.rate * seconds);
  const underWay = new Set<Promise<void>>();
  let writes = 0;
  for (let next = 0; next < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - startedAt) / 1000) * task.rate));
    for (; next < due; next++) {
      const intendedAt = startedAt + (next / task.rate) * 1000;
      const write = raft.write(payload).then(() => {
        latency.add((performance.now() - intendedAt) * 1000);
        writes++;
        underWay.delete(write);
      });
      underWay.add(write);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(underWay);
  return writes;
}

process.once('message', (task) => {
  serve(task as NodeTask).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
