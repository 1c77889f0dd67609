import Snapshotter from './snapshotter.mjs';

/** The same, with a view that later applies do not change. */
export default class ConcurrentSnapshotter extends Snapshotter {
  concurrentSnapshot = true;

  snapshot() {
    return this.chunksOf([...this.values]);
  }
}
