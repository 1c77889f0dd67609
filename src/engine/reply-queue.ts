import type { ControlMessage } from './messages.js';
import type { NodeId } from './types.js';

/** More waiting replies are dropped, as a network would; whoever waits for them asks again. */
const MAX_WAITING_REPLIES = 65_536;

/**
 * Replies that wait until an I/O is durable, in the order of their I/O. There is one queue per
 * watermark, so that a reply that needs only the vote never waits behind one that needs entries.
 * Who takes a reply drops it when it is of an earlier term: it promised to somebody else.
 */
export class ReplyQueue {
  private sequences: number[] = new Array(64).fill(0);
  private targets: NodeId[] = new Array(64).fill(0);
  private messages: (ControlMessage | undefined)[] = new Array(64).fill(undefined);
  private head = 0;
  private count = 0;

  push(sequence: number, target: NodeId, message: ControlMessage): void {
    if (this.count === this.messages.length) {
      if (this.count >= MAX_WAITING_REPLIES) return;
      this.grow();
    }
    const place = (this.head + this.count) & (this.messages.length - 1);
    this.sequences[place] = sequence;
    this.targets[place] = target;
    this.messages[place] = message;
    this.count++;
  }

  /** Whether a reply is due; `target` and `take` speak of the first one. */
  isDue(flushed: number): boolean {
    return this.count > 0 && this.sequences[this.head]! <= flushed;
  }

  target(): NodeId {
    return this.targets[this.head]!;
  }

  take(): ControlMessage {
    const message = this.messages[this.head]!;
    this.messages[this.head] = undefined;
    this.head = (this.head + 1) & (this.messages.length - 1);
    this.count--;
    return message;
  }

  private grow(): void {
    const size = this.messages.length;
    const sequences: number[] = new Array(size * 2).fill(0);
    const targets: NodeId[] = new Array(size * 2).fill(0);
    const messages: (ControlMessage | undefined)[] = new Array(size * 2).fill(undefined);
    for (let i = 0; i < this.count; i++) {
      const place = (this.head + i) & (size - 1);
      sequences[i] = this.sequences[place]!;
      targets[i] = this.targets[place]!;
      messages[i] = this.messages[place];
    }
    this.sequences = sequences;
    this.targets = targets;
    this.messages = messages;
    this.head = 0;
  }
}
