/**
 * One call of `machine.apply`, the same on the main thread and in a worker: decode, apply, put the
 * responses in their places. Whatever goes wrong names group, index range and term, and is final: the
 * machine may have applied a part of the range, so it is never given the range again.
 */
import { KeelsonError } from '../base/errors.js';
import type { DecodedEntries, EntryCursor } from './entry-decoder.js';
import type { AnyStateMachine } from './state-machine.js';

export interface AppliedRange {
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** One per entry; `undefined` for entries that do not reach the machine. */
  readonly responses: unknown[];
}

/** @throws KeelsonError STATE_MACHINE_FAILED; the machine must not be used any more. */
export function applyNext(
  machine: AnyStateMachine,
  cursor: EntryCursor<unknown>,
  group: number,
  maxEntries: number,
  maxBytes: number,
): AppliedRange {
  const firstIndex = cursor.nextIndex;
  let decoded: DecodedEntries<unknown>;
  try {
    decoded = cursor.next(maxEntries, maxBytes);
  } catch (error) {
    const index = cursor.nextIndex;
    throw applyFailed(group, index, index, cursor.term, 'cannot decode the command', error);
  }
  const { entries, gaps, lastIndex, term } = decoded;
  if (entries.length === 0) {
    return { firstIndex, lastIndex, responses: new Array(gaps.length).fill(undefined) };
  }
  let responses: unknown[];
  try {
    responses = machine.apply(entries);
  } catch (error) {
    throw applyFailed(group, firstIndex, lastIndex, term, 'apply threw', error);
  }
  if (!Array.isArray(responses) || responses.length !== entries.length) {
    const returned = Array.isArray(responses) ? `${responses.length} responses` : typeof responses;
    const what = `apply must return ${entries.length} responses, one per entry, and returned ${returned}`;
    throw applyFailed(group, firstIndex, lastIndex, term, what, undefined);
  }
  return {
    firstIndex,
    lastIndex,
    responses: gaps.length === 0 ? responses : spread(responses, gaps),
  };
}

function spread(responses: readonly unknown[], gaps: readonly number[]): unknown[] {
  const all: unknown[] = [];
  let gap = 0;
  let response = 0;
  const count = responses.length + gaps.length;
  for (let place = 0; place < count; place++) {
    if (gaps[gap] === place) {
      gap++;
      all.push(undefined);
    } else {
      all.push(responses[response++]);
    }
  }
  return all;
}

function applyFailed(
  group: number,
  firstIndex: number,
  lastIndex: number,
  term: number,
  what: string,
  cause: unknown,
): KeelsonError {
  const range =
    firstIndex === lastIndex ? `index ${firstIndex}` : `indexes ${firstIndex}…${lastIndex}`;
  const reason = cause === undefined ? '' : `: ${cause instanceof Error ? cause.message : cause}`;
  return new KeelsonError(
    'KEELSON_STATE_MACHINE_FAILED',
    `the state machine of group ${group} failed at ${range} of term ${term}: ${what}${reason}. ` +
      'The group has stopped on this node; correct the machine, then restart the node.',
    { outcome: 'unknown', details: { group, firstIndex, lastIndex, term }, cause },
  );
}
