/**
 * Keeps the indexes of all groups of a lane within its part of `maxIndexBytes`: what would not fit is refused
 * before anything is changed, so that an index never runs out of memory with a batch that is durable already.
 *
 * ```
 * [ proposals                                        | headroom ]  maxIndexBytes ÷ lanes
 *   entries that clients write                         entries from a leader, and a log's own: the
 *                                                       blank one of a term, the bootstrap
 * ```
 *
 * So a follower takes whatever a leader with the same limit has admitted, and a leader can open its
 * term however full the log is. Votes and truncations need no index.
 *
 * What is counted is what the index would hold if all that is under way were durable. Recovery comes
 * through the same states of the log, in the same order, and fits for that reason.
 */
import { KeelsonError } from '../base/errors.js';
import type { LogIndex } from '../engine/types.js';
import type { GroupLog } from './group-log.js';

const MIN_HEADROOM_BYTES = 256 * 1024;
const HEADROOM_SHARE = 16;

/** Of the memory for all indexes, what those of one lane have. */
export function indexShare(maxIndexBytes: number, lanes: number): number {
  return Math.floor(maxIndexBytes / lanes);
}

export class IndexBudget {
  private readonly maxIndexBytes: number;
  private readonly lanes: number;
  private readonly maxBytes: number;
  private readonly headroomBytes: number;
  /** Of all groups together. */
  private admittedBytes = 0;

  constructor(maxIndexBytes: number, lanes: number) {
    this.maxIndexBytes = maxIndexBytes;
    this.lanes = lanes;
    const maxBytes = indexShare(maxIndexBytes, lanes);
    this.maxBytes = maxBytes;
    this.headroomBytes = Math.max(MIN_HEADROOM_BYTES, Math.floor(maxBytes / HEADROOM_SHARE));
  }

  /** Of all logs, with what is under way. */
  get bytes(): number {
    return this.admittedBytes;
  }

  /** Counts a log as it is, with what is staged of it. */
  count(log: GroupLog): void {
    const { lastIndex, termRuns } = log.staged;
    this.set(log, log.indexBytesWith(lastIndex, termRuns));
  }

  /**
   * Whether there is room for entries up to `lastIndex` that bring `termRuns` more runs of one term.
   * @throws KeelsonError STORAGE_FULL when the index could not hold them.
   */
  check(log: GroupLog, lastIndex: LogIndex, termRuns: number, fromClients: boolean): void {
    const bytes = log.indexBytesWith(lastIndex, termRuns);
    const total = this.admittedBytes - log.admittedIndexBytes + bytes;
    const limit = fromClients ? this.maxBytes - this.headroomBytes : this.maxBytes;
    if (total > limit) throw this.full(log.id, total, limit);
  }

  /** They are staged, in place of what the log had staged before, and count until they are in the log. */
  stage(log: GroupLog, lastIndex: LogIndex, termRuns: number): void {
    log.staged = { lastIndex, termRuns };
    this.count(log);
  }

  private set(log: GroupLog, bytes: number): void {
    this.admittedBytes += bytes - log.admittedIndexBytes;
    log.admittedIndexBytes = bytes;
  }

  private full(group: number, bytes: number, limit: number): KeelsonError {
    const { maxIndexBytes, lanes } = this;
    const among = lanes === 1 ? '' : `, divided among ${lanes} lanes,`;
    return new KeelsonError(
      'KEELSON_STORAGE_FULL',
      `The index of the log is full: it would take ${bytes} bytes of ${limit}, which ` +
        `storage.maxIndexBytes (${maxIndexBytes})${among} leaves for this. Nothing was changed, and reads go ` +
        'on; raise storage.maxIndexBytes and start the node again.',
      { details: { group, bytes, limit, maxIndexBytes } },
    );
  }
}
