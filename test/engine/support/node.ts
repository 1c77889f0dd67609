import { expect } from 'vitest';
import type { Command, Replicate } from '../../../dist/engine/commands.js';
import type { EngineConfig } from '../../../dist/engine/config.js';
import { Engine } from '../../../dist/engine/engine.js';
import type { AppendRequest, ControlMessage } from '../../../dist/engine/messages.js';
import type {
  IoId,
  Membership,
  NodeId,
  RecoveredLog,
  StoredMembership,
  TermRun,
  Vote,
} from '../../../dist/engine/types.js';

/** An entry as the test knows it: `content` is unique, so that two entries are never mistaken. */
export interface TestEntry {
  readonly term: number;
  readonly content: string;
  readonly membership: Membership | undefined;
}

export type Packet =
  | { readonly from: NodeId; readonly to: NodeId; readonly message: ControlMessage }
  | {
      readonly from: NodeId;
      readonly to: NodeId;
      readonly append: AppendRequest;
      readonly entries: readonly TestEntry[];
    };

interface PendingIo {
  readonly io: IoId;
  run(disk: Disk): void;
}

/** What survives a crash. */
export class Disk {
  vote: Vote = { term: 0, nodeId: 0, committed: false };
  entries: TestEntry[] = [];
  committed = 0;

  recover(): RecoveredLog {
    const memberships: StoredMembership[] = [];
    this.entries.forEach((entry, i) => {
      if (entry.membership) memberships.push({ index: i + 1, membership: entry.membership });
    });
    return {
      vote: this.vote,
      purged: { term: 0, index: 0 },
      termRuns: termRunsOf(this.entries, 1),
      lastIndex: this.entries.length,
      committed: Math.min(this.committed, this.entries.length),
      memberships,
    };
  }
}

export function termRunsOf(entries: readonly TestEntry[], firstIndex: number): TermRun[] {
  const runs: TermRun[] = [];
  entries.forEach((entry, i) => {
    if (runs.at(-1)?.term !== entry.term)
      runs.push({ firstIndex: firstIndex + i, term: entry.term });
  });
  return runs;
}

/**
 * One engine with the least runtime around it: a log in memory, a disk that is written only when the
 * test says so, a state machine that remembers contents. Each entry counts as one byte.
 */
export class TestNode {
  readonly id: NodeId;
  readonly config: EngineConfig;
  readonly disk: Disk = new Disk();
  engine: Engine;
  log: TestEntry[] = [];
  pending: PendingIo[] = [];
  /** Everything this node has ever applied in this run, by index. */
  appliedContents: string[] = [];
  toApply = 0;
  readsReady: { readonly round: number; readonly index: number }[] = [];
  readsFailed: number[] = [];
  trace: Command[] = [];
  /** Replicate commands that the test wants to answer itself. */
  heldReplicates: Replicate[] | undefined;
  connected: (peer: NodeId) => boolean = () => true;
  /** Sees every command before it is run. */
  observe: (command: Command) => void = () => {};
  private readonly out: (packet: Packet) => void;
  private incoming: readonly TestEntry[] = [];
  private incomingFirstIndex = 0;
  private contents = 0;
  private life = 0;

  constructor(config: EngineConfig, out: (packet: Packet) => void, nowMs: number) {
    this.id = config.nodeId;
    this.config = config;
    this.out = out;
    this.engine = new Engine(config, this.disk.recover(), nowMs);
    this.drain();
  }

  restart(nowMs: number): void {
    this.life++;
    this.pending = [];
    this.log = [...this.disk.entries];
    this.appliedContents = [];
    this.toApply = 0;
    this.readsReady = [];
    this.readsFailed = [];
    if (this.heldReplicates) this.heldReplicates = [];
    const config = { ...this.config, seed: this.config.seed + this.life };
    this.engine = new Engine(config, this.disk.recover(), nowMs);
    this.drain();
  }

  bootstrap(membership: Membership): void {
    this.engine.bootstrap(membership);
    this.drain();
  }

  write(count: number): number {
    const index = this.engine.clientWrite(count);
    this.drain();
    return index;
  }

  read(): number {
    const round = this.engine.requestRead();
    this.drain();
    return round;
  }

  receive(packet: Packet): void {
    if ('message' in packet) this.engine.receive(packet.from, packet.message);
    else {
      const { append, entries, from } = packet;
      const firstIndex = append.prevLogId.index + 1;
      const memberships: StoredMembership[] = [];
      entries.forEach((entry, i) => {
        if (entry.membership)
          memberships.push({ index: firstIndex + i, membership: entry.membership });
      });
      this.incoming = entries;
      this.incomingFirstIndex = firstIndex;
      this.engine.handleAppend(from, append, {
        termRuns: termRunsOf(entries, firstIndex),
        lastIndex: append.lastIndex,
        memberships,
      });
    }
    this.drain();
  }

  elapse(nowMs: number): void {
    this.engine.elapse(nowMs);
    this.drain();
  }

  /** Calls the engine and runs what it wants. */
  tell(event: (engine: Engine) => void): void {
    event(this.engine);
    this.drain();
  }

  /** Makes the oldest `count` writes durable and says so, unless the node dies before it hears. */
  flush(count: number = this.pending.length, heard = true): void {
    const done = this.pending.splice(0, count);
    for (const io of done) io.run(this.disk);
    const last = done.at(-1);
    if (last === undefined || !heard) return;
    this.engine.logFlushed(last.io.sequence);
    this.drain();
  }

  apply(): void {
    const from = this.appliedContents.length;
    for (let index = from + 1; index <= this.toApply; index++) {
      const entry = this.log[index - 1];
      expect(entry, `node ${this.id} applies what it has`).toBeDefined();
      expect(this.disk.entries[index - 1], `node ${this.id} applies durable ${index}`).toEqual(
        entry,
      );
      this.appliedContents.push(entry!.content);
    }
    if (this.toApply > from) this.engine.applied(this.toApply);
    this.drain();
  }

  /** Answers a held Replicate, unless what it asks for does not hold any more. */
  answerHeld(command: Replicate): void {
    this.heldReplicates = this.heldReplicates?.filter((held) => held !== command);
    const { engine } = this;
    if (engine.role === 'leader' && engine.term === command.term) this.replicate(command);
    else engine.replicateFailed(command.target, command.session);
    this.drain();
  }

  private drain(): void {
    for (;;) {
      const command = this.engine.nextCommand();
      if (command === undefined) return;
      this.trace.push(command);
      this.observe(command);
      this.run(command);
    }
  }

  private run(command: Command): void {
    switch (command.type) {
      case 'SaveVote':
        this.enqueue(command.io, () => {});
        break;
      case 'AdvanceIo':
        this.enqueue(command.io, () => {});
        break;
      case 'TruncateAfter': {
        const { index } = command;
        this.log.length = index;
        this.enqueue(command.io, (disk) => {
          disk.entries.length = index;
        });
        break;
      }
      case 'AppendEntries': {
        const entries: TestEntry[] = [];
        for (let index = command.firstIndex; index <= command.lastIndex; index++) {
          entries.push(this.entryFor(command.source, index, command.term));
        }
        expect(this.log.length).toBe(command.firstIndex - 1);
        this.log.push(...entries);
        this.enqueue(command.io, (disk) => {
          disk.entries.length = command.firstIndex - 1;
          disk.entries.push(...entries);
        });
        break;
      }
      case 'Send':
        this.out({ from: this.id, to: command.target, message: command.message });
        break;
      case 'Replicate':
        if (this.heldReplicates) this.heldReplicates.push(command);
        else this.replicate(command);
        break;
      case 'Commit':
        this.disk.committed = Math.max(
          this.disk.committed,
          Math.min(command.index, this.disk.entries.length),
        );
        break;
      case 'Apply':
        expect(command.firstIndex).toBe(this.toApply + 1);
        this.toApply = command.lastIndex;
        break;
      case 'ReadReady':
        this.readsReady.push({ round: command.round, index: command.index });
        break;
      case 'ReadFailed':
        this.readsFailed.push(command.round);
        break;
      case 'LeadershipChanged':
      case 'MembershipChanged':
        break;
    }
  }

  replicate(command: Replicate): void {
    const { target, session } = command;
    if (!this.connected(target)) {
      this.engine.replicateFailed(target, session);
      return;
    }
    const first = command.prevLogId.index;
    const last = Math.min(command.lastIndex, first + Math.max(1, command.maxBytes));
    const entries = this.log.slice(first, last);
    this.out({
      from: this.id,
      to: target,
      append: {
        type: 'AppendRequest',
        term: command.term,
        session,
        prevLogId: command.prevLogId,
        lastIndex: first + entries.length,
        committed: command.committed,
      },
      entries,
    });
    this.engine.replicated(target, session, first + entries.length, entries.length);
  }

  private entryFor(source: string, index: number, term: number): TestEntry {
    if (source === 'received') return this.incoming[index - this.incomingFirstIndex]!;
    if (source === 'bootstrap') {
      return { term, content: 'bootstrap', membership: this.engine.membership };
    }
    const content = `${source} ${this.id}/${this.life}/${++this.contents}`;
    return { term, content, membership: undefined };
  }

  private enqueue(io: IoId, run: (disk: Disk) => void): void {
    this.pending.push({
      io,
      run: (disk) => {
        disk.vote = io.vote;
        run(disk);
      },
    });
  }
}
