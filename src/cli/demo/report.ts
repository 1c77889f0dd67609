/** The end of the demo: the verdict for people, and one line for programs. */
import type { LoadOutcome } from './kill-under-load.js';
import type { ReadBack } from './read-back.js';
import { duration, type Screen, sparkline, whole } from './screen.js';

const SHOWN_LOST_KEYS = 10;

export function report(outcome: LoadOutcome, found: ReadBack, screen: Screen): void {
  const lost = found.lostKeys.length;
  screen.line();
  const verdict = `${whole(outcome.acknowledgedCount)} writes acknowledged, ${whole(lost)} lost`;
  screen.line(screen.style(lost === 0 ? ['bold', 'green'] : ['bold', 'red'], verdict), 'Result');
  screen.line(
    `${whole(writesPerSecond(outcome))} writes/s over ${duration(outcome.elapsedMs)}, the outage included   ${sparkline(outcome.writesBySecond)}`,
  );
  screen.line(`${duration(outcome.failoverMs)} from the kill to the next acknowledged write`);
  if (outcome.unknownCount > 0) {
    screen.line(
      `${whole(outcome.unknownCount)} writes were cut off without an answer; they may or may not be stored, and count as neither`,
    );
  }
  for (const key of found.lostKeys.slice(0, SHOWN_LOST_KEYS)) screen.line(`lost: ${key}`);
}

export interface DemoResult {
  readonly writesAcknowledged: number;
  readonly writesLost: number;
  readonly writesPerSecond: number;
  readonly leaderKills: number;
  readonly failoverMs: number;
}

export function resultOf(outcome: LoadOutcome, found: ReadBack): DemoResult {
  return {
    writesAcknowledged: outcome.acknowledgedCount,
    writesLost: found.lostKeys.length,
    writesPerSecond: Math.round(writesPerSecond(outcome)),
    leaderKills: outcome.leaderKills,
    failoverMs: Math.round(outcome.failoverMs),
  };
}

function writesPerSecond({ acknowledgedCount, elapsedMs }: LoadOutcome): number {
  return acknowledgedCount / (elapsedMs / 1_000);
}
