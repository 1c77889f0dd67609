/**
 * The other nodes of a cluster, as far as one node can tell: it talks to a network behind which there
 * is nobody but the test.
 */
import { KeelsonError } from '../../../dist/base/errors.js';
import type {
  ControlMessage,
  HeartbeatRequest,
  SnapshotRequest,
} from '../../../dist/engine/messages.js';
import type {
  ForwardRequest,
  ForwardResponse,
  Network,
  NetworkHandler,
  NetworkMetrics,
  OutgoingEntries,
} from '../../../dist/network/network.js';

export interface SentRequest {
  readonly target: number;
  readonly request: ForwardRequest;
  answer(response: Partial<ForwardResponse>): void;
  fail(error: Error): void;
}

const EMPTY = new Uint8Array(0);

export class ScriptedPeers implements Network {
  readonly sent: { readonly target: number; readonly message: ControlMessage }[] = [];
  readonly requests: SentRequest[] = [];
  private handler!: NetworkHandler;
  private peers: readonly number[] = [];
  private leader: { readonly peer: number; readonly term: number } | undefined;

  start(handler: NetworkHandler): Promise<string> {
    this.handler = handler;
    for (const peer of this.peers) handler.connected(peer);
    return Promise.resolve('scripted');
  }

  setPeers(peers: ReadonlyMap<number, string>): void {
    this.peers = [...peers.keys()];
  }

  /** They vote for whoever asks, and hold what they are sent; all else waits for the test. */
  send(target: number, message: ControlMessage): void {
    this.sent.push({ target, message });
    const { type, term } = message;
    if (type === 'PreVoteRequest' || type === 'VoteRequest') {
      const response = type === 'VoteRequest' ? 'VoteResponse' : 'PreVoteResponse';
      this.later(() => {
        const present = type === 'VoteRequest' ? term : term - 1;
        const granted = {
          type: response,
          term: present,
          requestTerm: term,
          granted: true,
        } as const;
        this.handler.message(target, granted);
      });
    }
  }

  sendSnapshot(): boolean {
    return false;
  }

  sendAppend(
    target: number,
    message: Parameters<Network['sendAppend']>[1],
    entries: OutgoingEntries,
  ): boolean {
    entries.release();
    const { term, session, lastIndex } = message;
    const matchIndex = lastIndex;
    this.later(() =>
      this.handler.message(target, {
        type: 'AppendResponse',
        term,
        session,
        matchIndex,
        conflict: undefined,
      }),
    );
    return true;
  }

  request(target: number, request: ForwardRequest): Promise<ForwardResponse> {
    return new Promise((resolve, reject) => {
      this.requests.push({
        target,
        request,
        answer: (response) => resolve({ payload: EMPTY, index: 0, term: 0, ...response }),
        fail: reject,
      });
    });
  }

  close(): Promise<void> {
    const closed = new KeelsonError('KEELSON_CLOSED', 'closed', { outcome: 'unknown' });
    for (const sent of this.requests) sent.fail(closed);
    return Promise.resolve();
  }

  metrics(): NetworkMetrics {
    return {
      connectedPeers: this.peers,
      queuedBytes: 0,
      sentBytes: 0,
      receivedBytes: 0,
      droppedMessages: 0,
      refusedHandshakes: 0,
    };
  }

  /** `peer` is elected, and says so. */
  lead(peer: number, term: number): void {
    this.leader = { peer, term };
    this.beat();
  }

  /** A heartbeat of whoever leads: without one for an election timeout the node knows no leader. */
  beat(): void {
    if (this.leader === undefined) return;
    const { peer, term } = this.leader;
    this.handler.message(peer, { type: 'HeartbeatRequest', term, committed: 0, round: 1 });
  }

  /** Whoever leads sends a piece of a snapshot. */
  piece(request: SnapshotRequest, bytes: Uint8Array): void {
    this.handler.snapshot(this.leader!.peer, request, [bytes]);
  }

  /** The node's heartbeats to `peer`, oldest first. */
  heartbeats(peer: number): HeartbeatRequest[] {
    return this.sent.flatMap(({ target, message }) =>
      target === peer && message.type === 'HeartbeatRequest' ? [message] : [],
    );
  }

  answerHeartbeat(peer: number, { term, round }: HeartbeatRequest): void {
    this.handler.message(peer, { type: 'HeartbeatResponse', term, round });
  }

  private later(job: () => void): void {
    setImmediate(job);
  }
}
