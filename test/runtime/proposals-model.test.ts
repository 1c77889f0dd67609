import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { SeededRandom } from '../../dist/base/random.js';
import { Proposals } from '../../dist/runtime/proposals.js';

/**
 * Proposals under random calls, beside a plain list of what each write must be told. More writes wait
 * at times than the ring had room for at first, and their places in it come round many times.
 */
const SEED = Number(process.env.KEELSON_TEST_SEED ?? Date.now() % 1_000_000);
const NEVER = Number.POSITIVE_INFINITY;

interface Write {
  readonly count: number;
  readonly timeoutMs: number;
  /** Index of the first entry, once appended. */
  index: number;
  term: number;
  appendedMs: number;
  expected: unknown;
  seen: unknown;
}

const code = (codeOf: string): unknown => ({ code: codeOf });
const expired = new KeelsonError('KEELSON_TIMEOUT', 'too late', { outcome: 'unknown' });
const lost = new KeelsonError('KEELSON_LEADERSHIP_LOST', 'overwritten', { outcome: 'unknown' });
const refused = new KeelsonError('KEELSON_NO_LEADER', 'refused');

describe('proposals under random calls', () => {
  it(`tell each write what became of it (seed ${SEED})`, async () => {
    const random = new SeededRandom(SEED);
    const limits = {
      maxPendingWrites: 300,
      maxPendingBytes: 1e6,
      maxBlockEntries: 20,
      maxBlockBytes: 1e5,
    };
    const proposals = new Proposals(limits);
    const all: Write[] = [];
    let waiting: Write[] = [];
    let unappended: Write[] = [];
    let lastIndex = 0;
    let appliedIndex = 0;
    let term = 1;
    let now = 0;
    let most = 0;

    const answerOf = (write: Write): unknown => {
      const at = (index: number): unknown => ({
        response: `r${index}`,
        logId: { term: write.term, index },
      });
      if (write.count === 1) return at(write.index);
      return Array.from({ length: write.count }, (_, offset) => at(write.index + offset));
    };

    for (let step = 0; step < 20_000; step++) {
      now += random.integer(3);
      const choice = random.integer(100);
      if (choice < 55) {
        const count = random.integer(5) === 0 ? 1 + random.integer(6) : 1;
        if (!proposals.hasRoom(count, count)) continue;
        const timeoutMs = random.integer(3) === 0 ? 5 + random.integer(400) : NEVER;
        const write: Write = {
          count,
          timeoutMs,
          index: 0,
          term: 0,
          appendedMs: 0,
          expected: undefined,
          seen: undefined,
        };
        const payloads = Array.from({ length: count }, () => new Uint8Array(1));
        const promise =
          count === 1
            ? proposals.add(payloads[0]!, timeoutMs)
            : proposals.addMany(payloads, timeoutMs, () => Promise.reject(lost));
        promise.then(
          (value) => {
            write.seen = value;
          },
          (error: KeelsonError) => {
            write.seen = code(error.code);
          },
        );
        all.push(write);
        unappended.push(write);
        most = Math.max(most, waiting.length + unappended.length);
      } else if (choice < 75) {
        while (proposals.hasUnappended) {
          const { count } = proposals.nextChunk();
          proposals.appendedAs(count, lastIndex + 1, term, now);
          for (let left = count; left > 0; ) {
            const write = unappended.shift()!;
            Object.assign(write, { index: lastIndex + 1, term, appendedMs: now });
            lastIndex += write.count;
            left -= write.count;
            waiting.push(write);
          }
        }
      } else if (choice < 92) {
        // In every other stretch the machine is slow, and hundreds wait.
        if (step % 1000 < 500 && random.integer(20) > 0) continue;
        const upTo = Math.min(lastIndex, appliedIndex + 1 + random.integer(40));
        if (upTo === appliedIndex) continue;
        const responses = [];
        for (let index = appliedIndex + 1; index <= upTo; index++) responses.push(`r${index}`);
        proposals.applied(appliedIndex + 1, upTo, responses);
        appliedIndex = upTo;
        for (const write of waiting) {
          if (write.index + write.count - 1 <= upTo) write.expected ??= answerOf(write);
        }
        waiting = waiting.filter(({ index, count }) => index + count - 1 > upTo);
      } else if (choice < 99) {
        proposals.expire(now, () => expired);
        for (const write of waiting) {
          if (write.appendedMs + write.timeoutMs <= now) write.expected ??= code(expired.code);
        }
      } else {
        // Another leader: what it did not have is overwritten.
        proposals.refuseUnappended(refused);
        for (const write of unappended) write.expected = code(refused.code);
        unappended = [];
        const keep = appliedIndex + random.integer(lastIndex - appliedIndex + 1);
        proposals.truncatedAfter(keep, lost);
        for (const write of waiting) {
          if (write.index + write.count - 1 > keep) write.expected ??= code(lost.code);
        }
        waiting = waiting.filter(({ index, count }) => index + count - 1 <= keep);
        lastIndex = keep + random.integer(3);
        term++;
      }
      expect(proposals.pending).toBe(
        [...waiting, ...unappended].reduce((sum, { count }) => sum + count, 0),
      );
      const deadlines = waiting.filter(({ expected }) => expected === undefined);
      for (const { appendedMs, timeoutMs } of deadlines) {
        expect(proposals.earliestDeadlineMs).toBeLessThanOrEqual(appendedMs + timeoutMs);
      }
      await Promise.resolve();
    }
    await new Promise((resolve) => setImmediate(resolve));
    expect(most).toBeGreaterThan(64);
    for (const write of all) expect(write.seen).toEqual(write.expected);
  });
});
