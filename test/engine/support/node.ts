import { expect } from 'vitest';
import type { Command, Replicate, SendSnapshot } from '../../../dist/engine/commands.js';
import type { EngineConfig } from '../../../dist/engine/config.js';
import { Engine } from '../../../dist/engine/engine.js';
import type {
  AppendRequest,
  ControlMessage,
  SnapshotRequest,
} from '../../../dist/engine/messages.js';
import type {
  IoId,
  Membership,
  NodeId,
  RecoveredLog,
  SnapshotMeta,
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

/** A durable snapshot: the entries whose effect it holds. */
export interface TestSnapshot extends SnapshotMeta {
  readonly entries: readonly TestEntry[];
}

export type Packet =
  | { readonly from: NodeId; readonly to: NodeId; readonly message: ControlMessage }
  | {
      readonly from: NodeId;
      readonly to: NodeId;
      readonly append: AppendRequest;
      readonly entries: readonly TestEntry[];
    }
  | {
      readonly from: NodeId;
      readonly to: NodeId;
      readonly offer: SnapshotRequest;
      readonly snapshot: TestSnapshot;
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
  /** Entries up to here are gone; they stay in `entries`, so that whoever reads them is found out. */
  purgedIndex = 0;
  /** Oldest first. */
  snapshots: TestSnapshot[] = [];

  get newestSnapshot(): TestSnapshot | undefined {
    return this.snapshots.at(-1);
  }

  recover(): RecoveredLog {
    const { purgedIndex, entries, newestSnapshot: snapshot } = this;
    const memberships: StoredMembership[] = [];
    entries.forEach((entry, i) => {
      if (entry.membership && i >= purgedIndex)
        memberships.push({ index: i + 1, membership: entry.membership });
    });
    return {
      vote: this.vote,
      purged: { term: entries[purgedIndex - 1]?.term ?? 0, index: purgedIndex },
      termRuns: termRunsOf(entries.slice(purgedIndex), purgedIndex + 1),
      lastIndex: entries.length,
      committed: Math.min(this.committed, entries.length),
      memberships,
      snapshot,
    };
  }

  /** The older of two snapshots goes when a third one is there. */
  keep(snapshot: TestSnapshot): void {
    this.snapshots.push(snapshot);
    if (this.snapshots.length > 2) this.snapshots.shift();
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
  purgedIndex = 0;
  /** A snapshot of what was applied, not yet durable. */
  building: TestSnapshot | undefined;
  /** Snapshots that have arrived and are not yet durable. */
  arrived: Extract<Packet, { offer: unknown }>[] = [];
  /** Snapshots that are being sent; what is lost on the way is sent again. */
  readonly sending: Map<NodeId, SendSnapshot> = new Map();
  /** The machine is to be restored from it. */
  private restoring: TestSnapshot | undefined;
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
    this.purgedIndex = this.disk.purgedIndex;
    this.building = undefined;
    this.restoring = undefined;
    this.arrived = [];
    this.sending.clear();
    const restored = this.disk.newestSnapshot?.entries ?? [];
    this.appliedContents = restored.map(({ content }) => content);
    this.toApply = restored.length;
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
    else if ('offer' in packet) {
      if (this.engine.handleSnapshot(packet.from, packet.offer)) this.arrived.push(packet);
    } else {
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

  buildSnapshot(): void {
    this.tell((engine) => engine.snapshots.build());
  }

  /** The snapshot that was begun is durable. */
  completeBuild(): void {
    const { building, disk } = this;
    if (building === undefined) return;
    this.building = undefined;
    if (building.lastIncluded.index > (disk.newestSnapshot?.lastIncluded.index ?? 0)) {
      disk.keep(building);
    }
    const oldest = disk.snapshots[0]!.lastIncluded.index;
    this.tell((engine) => engine.snapshots.built(building.lastIncluded, oldest));
  }

  /** What has arrived is verified and durable. */
  completeArrived(): void {
    const packet = this.arrived.shift();
    if (packet === undefined) return;
    const { from, offer, snapshot } = packet;
    const { disk } = this;
    if (snapshot.lastIncluded.index > (disk.newestSnapshot?.lastIncluded.index ?? 0)) {
      disk.keep(snapshot);
    }
    this.tell((engine) => engine.snapshotReceived(from, offer, snapshot));
  }

  /** Sends what is still to be sent once more. */
  resendSnapshots(): void {
    for (const command of this.sending.values()) this.sendSnapshot(command);
    this.drain();
  }

  apply(): void {
    const { restoring } = this;
    if (restoring !== undefined) {
      this.restoring = undefined;
      this.appliedContents = restoring.entries.map(({ content }) => content);
      this.tell((engine) => engine.snapshots.installed(restoring.lastIncluded.index));
    }
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
    const readable = command.prevLogId.index >= engine.purgedIndex;
    const leads = engine.role === 'leader' && engine.term === command.term;
    if (leads && readable) this.replicate(command);
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
      case 'PurgeUpTo': {
        const { upTo } = command;
        expect(this.log[upTo.index - 1]?.term, 'the purged entry').toBe(upTo.term);
        for (const { lastIncluded } of this.disk.snapshots) {
          expect(lastIncluded.index, 'every kept snapshot').toBeGreaterThanOrEqual(upTo.index);
        }
        this.purgedIndex = upTo.index;
        break;
      }
      case 'ResetLog': {
        const { entries } = this.snapshotOf(command.lastIncluded.index);
        this.log = [...entries];
        this.purgedIndex = entries.length;
        this.enqueue(command.io, (disk) => {
          disk.entries = [...entries];
          disk.snapshots = disk.snapshots.filter(
            ({ lastIncluded }) => lastIncluded.index >= entries.length,
          );
        });
        break;
      }
      case 'InstallSnapshot':
        this.restoring = this.snapshotOf(command.lastIncluded.index);
        this.toApply = command.lastIncluded.index;
        break;
      case 'BuildSnapshot': {
        const index = this.appliedContents.length;
        const meta = this.engine.snapshots.describe(index);
        if (meta === undefined) this.engine.snapshots.buildFailed();
        else this.building = { ...meta, entries: this.log.slice(0, index) };
        break;
      }
      case 'SendSnapshot':
        this.sending.set(command.target, command);
        this.sendSnapshot(command);
        break;
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
    expect(first, 'what is sent is not purged').toBeGreaterThanOrEqual(this.purgedIndex);
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

  private sendSnapshot(command: SendSnapshot): void {
    const { target, term, session, lastIncluded } = command;
    const snapshot = this.disk.snapshots.find((kept) => kept.lastIncluded === lastIncluded);
    const current = this.engine.snapshots.sends(target, session);
    if (!current || snapshot === undefined || !this.connected(target)) {
      this.sending.delete(target);
      if (current) this.engine.snapshots.sendFailed(target, session);
      return;
    }
    const totalBytes = 1;
    const snapshotId = `${this.id}`;
    const offer = { term, session, snapshotId, lastIncluded, totalBytes, offset: 0 };
    this.out({ from: this.id, to: target, offer: { type: 'SnapshotRequest', ...offer }, snapshot });
  }

  private snapshotOf(index: number): TestSnapshot {
    const found = this.disk.snapshots.find(({ lastIncluded }) => lastIncluded.index === index);
    expect(found, `node ${this.id} has a durable snapshot of ${index}`).toBeDefined();
    return found!;
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
    const { purgedIndex } = this;
    this.pending.push({
      io,
      run: (disk) => {
        disk.vote = io.vote;
        disk.purgedIndex = purgedIndex;
        run(disk);
      },
    });
  }
}
