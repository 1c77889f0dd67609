/** A line on stderr every second while a suite measures, so that a long run shows that it lives. */
export class Progress {
  private readonly timer: NodeJS.Timeout;
  private readonly startedAt = performance.now();
  private shown = false;

  /** `describe` tells how far the run is. */
  constructor(describe: () => string) {
    this.timer = setInterval(() => {
      const seconds = Math.round((performance.now() - this.startedAt) / 1000);
      const line = `${seconds} s  ${describe()}`;
      process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
      this.shown = true;
    }, 1000);
  }

  end(): void {
    clearInterval(this.timer);
    if (this.shown && process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }
}
