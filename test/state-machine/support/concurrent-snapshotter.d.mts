import Snapshotter from './snapshotter.mjs';

export default class ConcurrentSnapshotter extends Snapshotter {
  concurrentSnapshot: boolean;
}
