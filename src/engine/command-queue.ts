import type { Command } from './commands.js';

/** Commands that await the runtime, oldest first. Its array is used again: a step costs none. */
export class CommandQueue {
  private readonly commands: (Command | undefined)[] = [];
  private head = 0;
  private tail = 0;

  push(command: Command): void {
    this.commands[this.tail++] = command;
  }

  shift(): Command | undefined {
    if (this.head === this.tail) return undefined;
    const command = this.commands[this.head];
    this.commands[this.head++] = undefined;
    if (this.head === this.tail) {
      this.head = 0;
      this.tail = 0;
    }
    return command;
  }
}
