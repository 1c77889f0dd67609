/**
 * What a person sees. On a terminal one line lives at the bottom and is written over; elsewhere
 * every line is a plain line, so that a log file reads well.
 */
import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];

const LABEL_WIDTH = 9;
const CLEAR_LINE = '\r\x1b[2K';
const BARS = '▁▂▃▄▅▆▇█';

export class Screen {
  private readonly output: NodeJS.WriteStream;
  private readonly isTerminal: boolean;
  private readonly isColored: boolean;
  private liveLine = false;

  constructor(output: NodeJS.WriteStream, environment: NodeJS.ProcessEnv) {
    this.output = output;
    this.isTerminal = output.isTTY === true && environment.TERM !== 'dumb';
    this.isColored = this.isTerminal && (environment.NO_COLOR ?? '') === '';
  }

  /** A line that stays. `label` stands in the left column. */
  line(text = '', label = ''): void {
    if (this.liveLine) this.output.write(CLEAR_LINE);
    this.liveLine = false;
    const column = label.padEnd(LABEL_WIDTH);
    const line = `${label === '' ? column : this.style('bold', column)}${text}`;
    this.output.write(`${line.trimEnd()}\n`);
  }

  /** What is going on: written over on a terminal, a line of its own elsewhere. */
  live(text: string): void {
    if (!this.isTerminal) {
      this.line(text);
      return;
    }
    const line = `${' '.repeat(LABEL_WIDTH)}${text}`.slice(0, this.output.columns ?? 80);
    this.output.write(`${CLEAR_LINE}${line}`);
    this.liveLine = true;
  }

  /** Shown on a terminal only: worth a glance, not a line in a file. */
  passing(text: string): void {
    if (this.isTerminal) this.live(text);
  }

  style(style: Style, text: string): string {
    return this.isColored ? styleText(style, text) : text;
  }
}

/** One character per value, the highest a full bar. */
export function sparkline(values: readonly number[]): string {
  const highest = Math.max(...values, 1);
  return values.map((value) => BARS[Math.round((value / highest) * (BARS.length - 1))]).join('');
}

export function whole(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** A duration with about three digits. */
export function duration(milliseconds: number): string {
  if (milliseconds < 1) return `${Math.round(milliseconds * 1_000)} µs`;
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1_000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1_000).toFixed(1)} s`;
}
