import type {
  AppendRequest,
  ControlMessage,
  SnapshotRequest,
} from '../../../dist/engine/messages.js';
import type { NodeId } from '../../../dist/engine/types.js';
import type {
  ForwardRequest,
  ForwardResponse,
  NetworkHandler,
  OutgoingEntries,
} from '../../../dist/network/network.js';

export interface ReceivedAppend {
  readonly from: NodeId;
  readonly message: AppendRequest;
  readonly bytes: Uint8Array;
}

export interface ReceivedPiece {
  readonly from: NodeId;
  readonly message: SnapshotRequest;
  readonly bytes: Uint8Array;
}

/** A handler that writes down what it is told. */
export class Recorder implements NetworkHandler {
  readonly messages: { from: NodeId; message: ControlMessage }[] = [];
  readonly appends: ReceivedAppend[] = [];
  readonly pieces: ReceivedPiece[] = [];
  readonly requests: { from: NodeId; request: ForwardRequest }[] = [];
  readonly events: string[] = [];
  readonly refusals: string[] = [];
  onAppend: ((from: NodeId) => void) | undefined;
  onMessage: ((from: NodeId, message: ControlMessage) => void) | undefined;
  answer: (request: ForwardRequest) => Promise<ForwardResponse> = (request) =>
    Promise.resolve({ payload: request.payload, index: 7, term: 3 });

  message(from: NodeId, message: ControlMessage): void {
    this.messages.push({ from, message });
    this.onMessage?.(from, message);
  }

  append(from: NodeId, message: AppendRequest, parts: readonly Uint8Array[]): void {
    this.appends.push({ from, message, bytes: new Uint8Array(Buffer.concat(parts)) });
    this.onAppend?.(from);
  }

  snapshot(from: NodeId, message: SnapshotRequest, parts: readonly Uint8Array[]): void {
    this.pieces.push({ from, message, bytes: new Uint8Array(Buffer.concat(parts)) });
  }

  request(from: NodeId, request: ForwardRequest): Promise<ForwardResponse> {
    this.requests.push({ from, request });
    return this.answer(request);
  }

  connected(peer: NodeId): void {
    this.events.push(`connected ${peer}`);
  }

  disconnected(peer: NodeId): void {
    this.events.push(`disconnected ${peer}`);
  }

  writable(peer: NodeId): void {
    this.events.push(`writable ${peer}`);
  }

  refused(peer: NodeId, reason: string): void {
    this.refusals.push(`${peer} ${reason}`);
  }

  isConnected(peer: NodeId): boolean {
    const last = this.events.findLast((event) => event.endsWith(`connected ${peer}`));
    return last === `connected ${peer}`;
  }
}

/** Entries that count their releases. */
export class CountedEntries implements OutgoingEntries {
  readonly parts: readonly Uint8Array[];
  readonly bytes: number;
  releases = 0;
  onRelease: (() => void) | undefined;

  constructor(...parts: Uint8Array[]) {
    this.parts = parts;
    this.bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
  }

  release(): void {
    this.releases++;
    this.onRelease?.();
  }
}

/** A view on shared memory, as the log's ring hands them out. */
export function sharedBytes(length: number, seed = 1): Uint8Array {
  const view = new Uint8Array(new SharedArrayBuffer(length));
  for (let at = 0; at < length; at++) view[at] = (at * 31 + seed) & 0xff;
  return view;
}

export function appendRequest(fields: Partial<AppendRequest> = {}): AppendRequest {
  return {
    type: 'AppendRequest',
    term: 5,
    session: 9,
    prevLogId: { term: 4, index: 10 },
    lastIndex: 12,
    committed: 8,
    ...fields,
  };
}

export function snapshotRequest(fields: Partial<SnapshotRequest> = {}): SnapshotRequest {
  return {
    type: 'SnapshotRequest',
    term: 5,
    session: 9,
    snapshotId: '0123456789abcdef'.repeat(2),
    lastIncluded: { term: 4, index: 10 },
    totalBytes: 2 ** 40,
    offset: 2 ** 33,
    ...fields,
  };
}

export function heartbeat(round: number): ControlMessage {
  return { type: 'HeartbeatRequest', term: 5, committed: 8, round };
}

/** Waits for a condition, looking again after every turn of the event loop. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
