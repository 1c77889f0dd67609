import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type CallOptions, KeyValueMachine, type Logger, Raft } from '../../dist/index.js';
import { get, type Node, put, refusal, smallConfig } from './support.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'keelson-lifetime-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** What it is told to do when it is opened or closed. */
class Watched extends KeyValueMachine {
  readonly seen: string[] = [];
  onOpen: () => void = () => {};
  onClose: () => Promise<void> | undefined = () => undefined;

  open(): number {
    this.seen.push('opened');
    this.onOpen();
    return 0;
  }

  async close(): Promise<void> {
    this.seen.push('closed');
    await this.onClose();
  }
}

interface Parts {
  readonly stateMachine?: KeyValueMachine;
  readonly logger?: Logger;
}

async function open(parts: Parts = {}, call?: CallOptions): Promise<Node> {
  const dataDir = join(root, 'data');
  const stateMachine = new KeyValueMachine();
  const voters = { 1: '127.0.0.1:7001' };
  const fixed = { nodeId: 1, clusterName: 'lifetime', dataDir, config: smallConfig };
  return Raft.open(
    { ...fixed, listen: '127.0.0.1:0', bootstrap: { voters }, stateMachine, ...parts },
    call,
  );
}

/** Calls back with the name of each event that is logged. */
function onEvent(happened: (name: string) => void): Logger {
  const note = ({ event }: { readonly event: string }): void => happened(event);
  return { debug: note, info: note, warn: note, error: note };
}

describe('opening', () => {
  it('that is given up before it begins leaves nothing behind', async () => {
    const error = await refusal(open({}, { signal: AbortSignal.abort() }));
    expect(error).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected' });
    expect(existsSync(join(root, 'data'))).toBe(false);
  });

  it.each([
    ['after recovery', 'storage.recovered', []],
    ['when the machine is open', 'opened', ['opened', 'closed']],
    ['when it listens', 'network.listening', ['opened', 'closed']],
  ])('that is given up %s closes what it has opened', async (_when, event, seen) => {
    await (await open()).close();
    const abort = new AbortController();
    const { signal } = abort;
    const stateMachine = new Watched();
    if (event === 'opened') stateMachine.onOpen = () => abort.abort('enough');
    const events: string[] = [];
    const logger = onEvent((name) => {
      events.push(name);
      if (name === event) abort.abort('enough');
    });
    const error = await refusal(open({ stateMachine, logger }, { signal }));
    expect(error).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected', cause: 'enough' });
    expect(stateMachine.seen).toEqual(seen);
    expect(events.includes('network.listening')).toBe(event === 'network.listening');
    const node = await open();
    await node.write(put('a', 'one'));
    expect(await get(node, 'a')).toBe('one');
    await node.close();
  });

  it('that fails says why, and closes all the rest, although one part of it does not close', async () => {
    const abort = new AbortController();
    const stateMachine = new Watched();
    stateMachine.onOpen = () => abort.abort('enough');
    stateMachine.onClose = () => Promise.reject(new Error('it is stuck'));
    const events: string[] = [];
    const logger = onEvent((name) => events.push(name));
    const error = await refusal(open({ stateMachine, logger }, { signal: abort.signal }));
    expect(error).toMatchObject({ code: 'KEELSON_ABORTED', cause: 'enough' });
    expect(events).toContain('node.close-failed');
    await (await open()).close();
  });

  it('has a time limit only if it is given one', async () => {
    const error = await refusal(open({}, { timeoutMs: 1 }));
    expect(error).toMatchObject({ code: 'KEELSON_TIMEOUT', outcome: 'rejected' });
    expect(await refusal(open({}, { timeoutMs: 0 }))).toMatchObject({
      code: 'KEELSON_INVALID_ARGUMENT',
    });
    await (await open()).close();
  });
});

describe('closing', () => {
  it('that was given up before it began leaves the node as it is', async () => {
    const node = await open();
    const error = await refusal(node.close({ signal: AbortSignal.abort() }));
    expect(error).toMatchObject({ code: 'KEELSON_ABORTED', outcome: 'rejected' });
    await node.write(put('a', 'one'));
    expect(await get(node, 'a')).toBe('one');
    await node.close();
  });

  it('goes on when nobody waits for it any more', async () => {
    const stateMachine = new Watched();
    let release: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    stateMachine.onClose = () => released;
    const node = await open({ stateMachine });
    const abort = new AbortController();
    const given = Promise.all([
      refusal(node.close({ timeoutMs: 20 })),
      refusal(node.close({ signal: abort.signal })),
    ]);
    abort.abort();
    expect(await given).toMatchObject([
      { code: 'KEELSON_TIMEOUT', outcome: 'unknown' },
      { code: 'KEELSON_ABORTED', outcome: 'unknown' },
    ]);
    expect(await refusal(open())).toMatchObject({ code: 'KEELSON_STORAGE_LOCKED' });
    release();
    await node.close();
    await (await open()).close();
    expect(stateMachine.seen).toEqual(['opened', 'closed']);
  });
});
