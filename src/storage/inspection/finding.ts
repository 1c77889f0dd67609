/**
 * What is wrong with a data directory, as data: where, of which entries, and what it means. A *problem* is
 * damage that the next start refuses, or that a reader will meet; a *note* is something that it sets right.
 */
import type { ErrorCode, KeelsonError } from '../../base/errors.js';

export interface Finding {
  readonly code: ErrorCode;
  /** Absent when it is no place, but entries that are in no file. */
  readonly file: string | undefined;
  readonly offset: number | undefined;
  readonly group: number | undefined;
  /** The first and the last entry that it is about, as far as that can be told. */
  readonly index: number | undefined;
  readonly lastIndex: number | undefined;
  /** What it is, what it means, and what to do. */
  readonly meaning: string;
}

/** Of an error that recovery would have refused the directory with. */
export function findingOf(error: KeelsonError): Finding {
  const { code, message, details } = error;
  const number = (name: string): number | undefined =>
    typeof details[name] === 'number' ? details[name] : undefined;
  return {
    code,
    file: typeof details.file === 'string' ? details.file : undefined,
    offset: number('offset'),
    group: number('group'),
    index: number('firstIndex') ?? number('index'),
    lastIndex: number('lastIndex'),
    meaning: message,
  };
}

/** The same finding of two passes over a directory. */
export function isSameFinding(left: Finding, right: Finding): boolean {
  return (
    left.code === right.code &&
    left.file === right.file &&
    left.offset === right.offset &&
    left.group === right.group &&
    left.index === right.index &&
    left.lastIndex === right.lastIndex
  );
}
