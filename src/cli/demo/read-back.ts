/**
 * Reads every acknowledged write back, linearizably, through all three nodes, and compares every
 * value. Pages of a range serve it: an entry that is missing from its page is missing.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { NoAnswer, type NodeClient, type NodeReply } from './client.js';
import { DemoFailure } from './cluster.js';
import { keyOf, sequenceOf, type Values, writerPrefix } from './values.js';

export interface ReadBack {
  readonly read: number;
  readonly lostKeys: readonly string[];
}

interface Page {
  readonly entries: readonly { readonly key: string; readonly value: string }[];
  readonly next?: string;
}

const PARALLEL_READERS = 6;
const PAGE_BYTES = 1024 * 1024;
const MAX_PAGE_ENTRIES = 1_000;
const ATTEMPTS = 50;
const RETRY_DELAY_MS = 100;

export async function readBack(
  client: NodeClient,
  values: Values,
  acknowledged: readonly (readonly number[])[],
  progress: (read: number) => void,
): Promise<ReadBack> {
  const lostKeys: string[] = [];
  let read = 0;
  let nextWriter = 0;
  const reader = async (): Promise<void> => {
    while (nextWriter < acknowledged.length) {
      const writer = nextWriter;
      nextWriter += 1;
      const nodeId = client.nodeIds[writer % client.nodeIds.length]!;
      const stored = await readWriter(client, nodeId, values, writer);
      for (const sequence of acknowledged[writer]!) {
        if (stored.has(sequence)) read += 1;
        else lostKeys.push(keyOf(writer, sequence));
      }
      progress(read);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_READERS }, reader));
  return { read, lostKeys };
}

/** The sequence numbers of one writer that are stored with exactly the value that was written. */
async function readWriter(
  client: NodeClient,
  nodeId: number,
  values: Values,
  writer: number,
): Promise<Set<number>> {
  const stored = new Set<number>();
  const prefix = writerPrefix(writer);
  const limit = Math.min(MAX_PAGE_ENTRIES, Math.max(1, Math.floor(PAGE_BYTES / values.valueBytes)));
  let start: string | undefined = prefix;
  while (start !== undefined) {
    const query = `prefix=${encodeURIComponent(prefix)}&start=${encodeURIComponent(start)}`;
    const page: Page = await getPage(client, nodeId, `/v1/kv?${query}&limit=${limit}`);
    for (const { key, value } of page.entries) {
      if (values.of(key).equals(Buffer.from(value, 'base64'))) stored.add(sequenceOf(key));
    }
    start = page.next;
  }
  return stored;
}

async function getPage(client: NodeClient, nodeId: number, path: string): Promise<Page> {
  for (let attempt = 1; ; attempt += 1) {
    const reply = await sendRead(client, nodeId, path);
    if (reply?.status === 200) return JSON.parse(reply.body.toString()) as Page;
    if (attempt === ATTEMPTS) {
      const answer = reply === undefined ? 'nothing' : `${reply.status}: ${reply.body.toString()}`;
      throw new DemoFailure(`node ${nodeId} answered ${answer} when asked to read back`);
    }
    await delay(RETRY_DELAY_MS);
  }
}

async function sendRead(
  client: NodeClient,
  nodeId: number,
  path: string,
): Promise<NodeReply | undefined> {
  try {
    return await client.send(nodeId, 'GET', path);
  } catch (error) {
    if (error instanceof NoAnswer) return undefined;
    throw error;
  }
}
