import type { Entry, StateMachine } from 'keelson';

export type Command =
  | { op: 'deposit'; to: string; amount: number }
  | { op: 'move'; from: string; to: string; amount: number };
export type Response = { ok: true } | { ok: false; reason: string };
export type Query = { balance: string };

/** Accounts and their balances. The same commands in the same order give the same state on every node. */
export class Bank implements StateMachine<Command, Response, Query, number> {
  private balances = new Map<string, number>();

  apply(entries: readonly Entry<Command>[]): Response[] {
    return entries.map(({ command }) => this.run(command));
  }

  query({ balance }: Query): number {
    return this.balances.get(balance) ?? 0;
  }

  *snapshot(): Iterable<Uint8Array> {
    yield new TextEncoder().encode(JSON.stringify([...this.balances]));
  }

  async restore(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of chunks) text += decoder.decode(chunk, { stream: true });
    this.balances = new Map(JSON.parse(text));
  }

  private run(command: Command): Response {
    if (command.op === 'move') {
      const left = this.query({ balance: command.from }) - command.amount;
      if (left < 0) return { ok: false, reason: `${command.from} has too little` };
      this.balances.set(command.from, left);
    }
    this.balances.set(command.to, this.query({ balance: command.to }) + command.amount);
    return { ok: true };
  }
}
