import type { Command } from '../../../dist/engine/commands.js';
import type { EngineConfig } from '../../../dist/engine/config.js';
import type { AppendConflict, ControlMessage } from '../../../dist/engine/messages.js';
import type { Membership, NodeId, Vote } from '../../../dist/engine/types.js';
import { membershipOf, TEST_CONFIG } from './cluster.js';
import { type Packet, type TestEntry, TestNode } from './node.js';

export interface SingleOptions {
  /** Terms of the entries in the log; the first one carries the membership. */
  readonly terms?: readonly number[];
  readonly vote?: Vote;
  readonly committed?: number;
  readonly membership?: Membership;
  readonly config?: Partial<EngineConfig>;
}

/** One engine whose peers are played by the test. */
export class Single {
  readonly node: TestNode;
  readonly sent: Packet[] = [];
  private readonly sessions: Map<NodeId, number> = new Map();

  constructor(options: SingleOptions = {}) {
    const { terms = [1], committed = 0, membership = membershipOf(1, 2, 3) } = options;
    const config = { ...TEST_CONFIG, nodeId: 1, ...options.config };
    const out = (packet: Packet): void => {
      this.sent.push(packet);
      if ('append' in packet) this.sessions.set(packet.to, packet.append.session);
    };
    this.node = new TestNode(config, out, 0);
    const { disk } = this.node;
    disk.vote = options.vote ?? { term: terms.at(-1) ?? 0, nodeId: 0, committed: false };
    disk.entries = entriesOf(terms, 1, membership);
    disk.committed = committed;
    this.node.restart(0);
    this.clear();
  }

  get engine(): TestNode['engine'] {
    return this.node.engine;
  }

  clear(): void {
    this.sent.length = 0;
    this.node.trace.length = 0;
  }

  receive(from: NodeId, message: ControlMessage): void {
    this.node.receive({ from, to: this.node.id, message });
  }

  append(from: NodeId, append: AppendOptions): void {
    const { term, prev, terms = [], session = 1, committed = 0, membership } = append;
    const [prevTerm, prevIndex] = prev;
    this.node.receive({
      from,
      to: this.node.id,
      append: {
        type: 'AppendRequest',
        term,
        session,
        prevLogId: { term: prevTerm, index: prevIndex },
        lastIndex: prevIndex + terms.length,
        committed,
      },
      entries: entriesOf(terms, prevIndex + 1, membership),
    });
  }

  /** Wins the next election with the vote of node 2; needs a configuration without pre-vote. */
  lead(): void {
    this.node.tell((engine) => engine.campaign());
    this.node.flush();
    const { term } = this.engine;
    this.receive(2, { type: 'VoteResponse', term, requestTerm: term, granted: true });
    if (this.engine.role !== 'leader') throw new Error('not elected');
  }

  /** Node `from` answers the append sent to it last. */
  acknowledge(from: NodeId, matchIndex: number): void {
    this.answer(from, matchIndex, undefined);
  }

  reject(from: NodeId, conflict: AppendConflict, session = this.sessionOf(from)): void {
    this.answer(from, 0, conflict, session);
  }

  answer(
    from: NodeId,
    matchIndex: number,
    conflict: AppendConflict | undefined,
    session: number = this.sessionOf(from),
  ): void {
    const { term } = this.engine;
    this.receive(from, { type: 'AppendResponse', term, session, matchIndex, conflict });
  }

  sessionOf(peer: NodeId): number {
    const session = this.sessions.get(peer);
    if (session === undefined) throw new Error(`nothing was sent to ${peer}`);
    return session;
  }

  appendsTo(peer: NodeId): Extract<Packet, { append: unknown }>[] {
    return this.sent.filter((packet) => 'append' in packet && packet.to === peer) as Extract<
      Packet,
      { append: unknown }
    >[];
  }

  messages<T extends ControlMessage['type']>(type: T): Extract<ControlMessage, { type: T }>[] {
    const all = this.sent.flatMap((packet) => ('message' in packet ? [packet.message] : []));
    return all.filter((message) => message.type === type) as Extract<ControlMessage, { type: T }>[];
  }

  commands<T extends Command['type']>(type: T): Extract<Command, { type: T }>[] {
    return this.node.trace.filter((command) => command.type === type) as Extract<
      Command,
      { type: T }
    >[];
  }
}

export interface AppendOptions {
  readonly term: number;
  /** Term and index of the entry before. */
  readonly prev: readonly [number, number];
  readonly terms?: readonly number[];
  readonly session?: number;
  readonly committed?: number;
  /** Carried by the first entry. */
  readonly membership?: Membership;
}

function entriesOf(
  terms: readonly number[],
  firstIndex: number,
  membership: Membership | undefined,
): TestEntry[] {
  return terms.map((term, i) => ({
    term,
    content: `entry ${firstIndex + i} of term ${term}`,
    membership: i === 0 ? membership : undefined,
  }));
}
