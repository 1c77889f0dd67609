import type { Scheduler, Timer } from '../base/scheduler.js';
import type {
  AppendRequest,
  ControlMessage,
  Message,
  SnapshotRequest,
} from '../engine/messages.js';
import type { NodeId } from '../engine/types.js';
import type { InProcessNetwork } from './in-process-network.js';
import type { OutgoingEntries } from './network.js';

/** One direction between two nodes of a process. */
export interface Link {
  readonly sender: InProcessNetwork;
  readonly from: NodeId;
  readonly to: NodeId;
  /** The receiving network while the link is up. */
  receiver: InProcessNetwork | undefined;
  /** What the sender's handler was told last. */
  reportedUp: boolean;
  /** It went down since then, even if it is up again: what it carried is lost. */
  interrupted: boolean;
  /** Entry bytes on their way. */
  queuedBytes: number;
  /** An append was refused, and `writable` is owed. */
  refused: boolean;
  /** Messages that a simulation holds back; made on first use. */
  controlDelays: DelayLane | undefined;
  appendDelays: DelayLane | undefined;
}

/**
 * What has arrived at a node and was not delivered yet: a ring in parallel arrays that grows to its
 * limit, so that a message costs no allocation. Control messages have no entries.
 */
export class Inbox {
  count = 0;
  private readonly limit: number;
  private head = 0;
  private mask = 63;
  private links: (Link | undefined)[] = new Array(64).fill(undefined);
  private messages: (Message | undefined)[] = new Array(64).fill(undefined);
  private entries: (OutgoingEntries | undefined)[] = new Array(64).fill(undefined);

  /** `limit`: messages that it holds at most; a power of two, at least 64. */
  constructor(limit: number) {
    this.limit = limit;
  }

  /** False when the inbox is full. */
  push(link: Link, message: Message, entries: OutgoingEntries | undefined): boolean {
    if (this.count > this.mask && !this.grow()) return false;
    const at = (this.head + this.count) & this.mask;
    this.links[at] = link;
    this.messages[at] = message;
    this.entries[at] = entries;
    this.count++;
    return true;
  }

  /** Takes the oldest message out and hands it to `receiver`; a lost one is skipped. */
  deliverOldest(receiver: InboxReceiver): void {
    const at = this.head;
    const link = this.links[at]!;
    const message = this.messages[at];
    const entries = this.entries[at];
    this.links[at] = undefined;
    this.messages[at] = undefined;
    this.entries[at] = undefined;
    this.head = (at + 1) & this.mask;
    this.count--;
    if (message === undefined) return;
    if (entries === undefined) receiver.deliverControl(link, message as ControlMessage);
    else receiver.deliverBulk(link, message as AppendRequest | SnapshotRequest, entries);
  }

  /** Loses what came over `link`, or everything. */
  lose(link: Link | undefined): void {
    for (let offset = 0; offset < this.count; offset++) {
      const at = (this.head + offset) & this.mask;
      const owner = this.links[at]!;
      if (link !== undefined && owner !== link) continue;
      const entries = this.entries[at];
      this.messages[at] = undefined;
      this.entries[at] = undefined;
      if (entries !== undefined) releaseOn(owner, entries);
    }
  }

  private grow(): boolean {
    const size = this.mask + 1;
    if (size * 2 > this.limit) return false;
    this.links = unrolled(this.links, this.head, size);
    this.messages = unrolled(this.messages, this.head, size);
    this.entries = unrolled(this.entries, this.head, size);
    this.head = 0;
    this.mask = size * 2 - 1;
    return true;
  }
}

export interface InboxReceiver {
  deliverControl(link: Link, message: ControlMessage): void;
  deliverBulk(link: Link, message: AppendRequest | SnapshotRequest, entries: OutgoingEntries): void;
}

export function releaseOn(link: Link, entries: OutgoingEntries): void {
  link.queuedBytes -= entries.bytes;
  entries.release();
  if (link.refused) link.sender.queueReport();
}

function unrolled<T>(ring: (T | undefined)[], head: number, size: number): (T | undefined)[] {
  const next: (T | undefined)[] = new Array(size * 2).fill(undefined);
  for (let offset = 0; offset < size; offset++) next[offset] = ring[(head + offset) & (size - 1)];
  return next;
}

/** Messages of one link and kind that are delivered later, in the order in which they were sent. */
export class DelayLane {
  private readonly scheduler: Scheduler;
  private readonly link: Link;
  private readonly limit: number;
  private readonly held: HeldMessage[] = [];
  private lastDueMs = 0;
  private timer: Timer | undefined;

  constructor(scheduler: Scheduler, link: Link, limit: number) {
    this.scheduler = scheduler;
    this.link = link;
    this.limit = limit;
  }

  get empty(): boolean {
    return this.held.length === 0;
  }

  /** False when the lane is full. */
  hold(delayMs: number, message: Message, entries: OutgoingEntries | undefined): boolean {
    if (this.held.length >= this.limit) return false;
    this.lastDueMs = Math.max(this.lastDueMs, this.scheduler.now() + delayMs);
    this.held.push({ dueMs: this.lastDueMs, message, entries });
    this.arm();
    return true;
  }

  lose(): void {
    this.timer?.cancel();
    this.timer = undefined;
    for (const { entries } of this.held) {
      if (entries !== undefined) releaseOn(this.link, entries);
    }
    this.held.length = 0;
  }

  private arm(): void {
    const next = this.held[0];
    if (next === undefined || this.timer !== undefined) return;
    const delayMs = Math.max(0, next.dueMs - this.scheduler.now());
    this.timer = this.scheduler.setTimer(delayMs, () => {
      this.timer = undefined;
      this.deliverDue();
      this.arm();
    });
  }

  private deliverDue(): void {
    const now = this.scheduler.now();
    for (let next = this.held[0]; next !== undefined && next.dueMs <= now; next = this.held[0]) {
      this.held.shift();
      const arrived = this.link.receiver?.arrive(this.link, next.message, next.entries) ?? false;
      if (!arrived && next.entries !== undefined) releaseOn(this.link, next.entries);
    }
  }
}

interface HeldMessage {
  readonly dueMs: number;
  readonly message: Message;
  readonly entries: OutgoingEntries | undefined;
}
