/** Runs of one term along a log; term 0 stands for entries of which nothing is known yet. */

export interface TermRun {
  readonly firstIndex: number;
  readonly term: number;
}

/**
 * The runs of a log that ends at `end`, once the entries from `firstIndex` up to `lastIndex` have the terms
 * of `runs` where they had none.
 */
export function fillTerms(
  known: readonly TermRun[],
  end: number,
  firstIndex: number,
  lastIndex: number,
  runs: readonly TermRun[],
): TermRun[] {
  const filled: TermRun[] = [];
  const add = (first: number, term: number): void => {
    if (filled[filled.length - 1]?.term !== term) filled.push({ firstIndex: first, term });
  };
  for (let at = 0; at < known.length; at++) {
    const { firstIndex: from, term } = known[at]!;
    const until = (known[at + 1]?.firstIndex ?? end + 1) - 1;
    if (term !== 0 || until < firstIndex || from > lastIndex) {
      add(from, term);
      continue;
    }
    if (from < firstIndex) add(from, 0);
    for (let run = 0; run < runs.length; run++) {
      const first = Math.max(runs[run]!.firstIndex, from, firstIndex);
      const last = Math.min((runs[run + 1]?.firstIndex ?? lastIndex + 1) - 1, until, lastIndex);
      if (first <= last) add(first, runs[run]!.term);
    }
    if (until > lastIndex) add(lastIndex + 1, 0);
  }
  return filled;
}
