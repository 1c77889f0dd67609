/** The end of the demo: the verdict for people, and one line of JSON for programs. */
import type { LoadOutcome } from './kill-under-load.js';
import type { ReadBack } from './read-back.js';
import { duration, type Screen, sparkline, whole } from './screen.js';

const SHOWN_LOST_KEYS = 10;

export function report(
  outcome: LoadOutcome,
  found: ReadBack,
  options: { readonly json: boolean },
  screen: Screen,
): void {
  const lost = found.lostKeys.length;
  const writesPerSecond = outcome.acknowledgedCount / (outcome.elapsedMs / 1_000);
  screen.line();
  const verdict = `${whole(outcome.acknowledgedCount)} writes acknowledged, ${whole(lost)} lost`;
  screen.line(screen.style(lost === 0 ? ['bold', 'green'] : ['bold', 'red'], verdict), 'Result');
  screen.line(
    `${whole(writesPerSecond)} writes/s over ${duration(outcome.elapsedMs)}, the outage included   ${sparkline(outcome.writesBySecond)}`,
  );
  screen.line(`${duration(outcome.failoverMs)} from the kill to the next acknowledged write`);
  if (outcome.unknownCount > 0) {
    screen.line(
      `${whole(outcome.unknownCount)} writes were cut off without an answer; they may or may not be stored, and count as neither`,
    );
  }
  for (const key of found.lostKeys.slice(0, SHOWN_LOST_KEYS)) screen.line(`lost: ${key}`);
  if (!options.json) return;
  const result = {
    writesAcknowledged: outcome.acknowledgedCount,
    writesLost: lost,
    writesPerSecond: Math.round(writesPerSecond),
    leaderKills: outcome.leaderKills,
    failoverMs: Math.round(outcome.failoverMs),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
