/** Numbers in the order in which they were added; each is a chunk of its snapshot, in one reused buffer. */
export default class Snapshotter {
  values = [];
  snapshotsGivenUp = 0;
  restoresCutOff = 0;
  failAt = Number.POSITIVE_INFINITY;
  chunkBytes = 8;

  apply(entries) {
    return entries.map(({ command }) => {
      if (command.failAt !== undefined) this.failAt = command.failAt;
      else if (command.chunkBytes !== undefined) this.chunkBytes = command.chunkBytes;
      this.values.push(command.add ?? 0);
      return this.values.length;
    });
  }

  query(query) {
    if (query === 'given up') return this.snapshotsGivenUp;
    if (query === 'cut off') return this.restoresCutOff;
    return [...this.values];
  }

  snapshot() {
    return this.chunksOf(this.values);
  }

  *chunksOf(values) {
    const chunk = new Uint8Array(this.chunkBytes);
    let whole = false;
    try {
      for (let at = 0; at < values.length; at++) {
        if (at === this.failAt) throw new Error('no more ink');
        new DataView(chunk.buffer).setFloat64(0, values[at]);
        yield chunk;
      }
      whole = true;
    } finally {
      if (!whole) this.snapshotsGivenUp++;
    }
  }

  async restore(chunks) {
    let bytes = new Uint8Array(0);
    try {
      for await (const chunk of chunks) bytes = Buffer.concat([bytes, chunk]);
    } catch (error) {
      this.restoresCutOff++;
      throw error;
    }
    if (bytes.length % 8 !== 0) throw new Error('half a number');
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    this.values = Array.from({ length: bytes.length / 8 }, (_, at) => view.getFloat64(at * 8));
  }
}
