/** A machine that remembers everything it is given, and fails on command. */
export default class Recorder {
  version = 7;
  entries = [];
  calls = 0;
  closed = 0;

  apply(entries) {
    this.calls++;
    const responses = [];
    for (const { logId, time, command } of entries) {
      this.entries.push({ ...logId, time, command });
      if (command.op === 'throw') throw new Error('no such account');
      if (command.op === 'few') return responses;
      if (command.op === 'exit') process.exit(3);
      responses.push({ index: logId.index, echo: command.echo });
    }
    return responses;
  }

  query(query) {
    if (query === 'throw') throw new Error('no such question');
    if (query === 'calls') return this.calls;
    if (query === 'later') return new Promise((resolve) => setImmediate(() => resolve('answered')));
    if (query === 'exit') process.exit(4);
    return this.entries;
  }

  *snapshot() {}
  restore() {}
  open() {
    return 0;
  }
  close() {
    this.closed++;
  }
  digest() {
    return `recorded ${this.entries.length}`;
  }
}
