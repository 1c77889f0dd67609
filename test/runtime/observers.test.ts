import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { silentLogger } from '../../dist/base/logger.js';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import type { Status } from '../../dist/index.js';
import { Observers } from '../../dist/runtime/observers.js';

interface Observed {
  readonly observers: Observers;
  /** The applied index, one higher, is told where somebody wants to hear it. */
  advance(): void;
  /** How often somebody has looked at the status. */
  looks(): number;
}

function observed(): Observed {
  const scheduler = new ManualScheduler();
  let appliedIndex = 0;
  let looks = 0;
  const observers = new Observers(scheduler, silentLogger, () => {
    looks++;
    return { appliedIndex } as Status;
  });
  return {
    observers,
    advance: () => {
      appliedIndex++;
      observers.changed();
      scheduler.runJobs();
    },
    looks: () => looks,
  };
}

it('changes of one turn are told once, with the status of its end', () => {
  const scheduler = new ManualScheduler();
  const status = { appliedIndex: 0 };
  const observers = new Observers(scheduler, silentLogger, () => ({ ...status }) as Status);
  const heard: number[] = [];
  observers.on('status', ({ appliedIndex }) => heard.push(appliedIndex));
  for (let turn = 0; turn < 2; turn++) {
    for (let change = 0; change < 3; change++) {
      status.appliedIndex++;
      observers.changed();
    }
    scheduler.runJobs();
  }
  expect(heard).toEqual([3, 6]);
});

describe('a listener of `status`', () => {
  it('that is removed and added again hears what comes while it is there', () => {
    const { observers, advance, looks } = observed();
    const heard: number[] = [];
    const listener = ({ appliedIndex }: Status): void => void heard.push(appliedIndex);
    observers.on('status', listener);
    advance();
    observers.off('status', listener);
    advance();
    expect(looks()).toBe(1);
    observers.on('status', listener);
    advance();
    expect(heard).toEqual([1, 3]);
  });

  it('that is added twice hears twice, until each is removed; another removal changes nothing', () => {
    const { observers, advance, looks } = observed();
    const heard: number[] = [];
    const listener = ({ appliedIndex }: Status): void => void heard.push(appliedIndex);
    observers.on('status', listener);
    observers.on('status', listener);
    advance();
    observers.off('status', listener);
    observers.off('status', () => {});
    advance();
    expect(heard).toEqual([1, 1, 2]);
    observers.off('status', listener);
    observers.off('status', listener);
    advance();
    observers.on('status', listener);
    advance();
    expect(heard).toEqual([1, 1, 2, 4]);
    expect(looks()).toBe(3);
  });

  it('may remove itself, or add another, while it is told', () => {
    const { observers, advance, looks } = observed();
    const heard: string[] = [];
    const second = ({ appliedIndex }: Status): void => void heard.push(`second ${appliedIndex}`);
    const first = ({ appliedIndex }: Status): void => {
      heard.push(`first ${appliedIndex}`);
      observers.off('status', first);
      observers.on('status', second);
    };
    observers.on('status', first);
    advance();
    advance();
    expect(heard).toEqual(['first 1', 'second 2']);
    observers.off('status', second);
    advance();
    expect(looks()).toBe(2);
  });

  it('is not found by those of other events', () => {
    const { observers, advance, looks } = observed();
    observers.on('leader', () => {});
    observers.on('error', () => {});
    advance();
    expect(looks()).toBe(0);
  });
});

describe('nobody looks at the status any more', () => {
  it.each([
    [
      'once it has satisfied who waited',
      async ({ observers, advance }: Observed) => {
        const waited = observers.waitFor(({ appliedIndex }) => appliedIndex > 0, undefined, 1_000);
        advance();
        expect(await waited).toEqual({ appliedIndex: 1 });
      },
    ],
    [
      'once who waited has given up',
      async ({ observers }: Observed) => {
        const abort = new AbortController();
        const options = { signal: abort.signal };
        const waited = observers.waitFor(() => false, options, 1_000).catch((error) => error);
        abort.abort();
        expect(await waited).toMatchObject({ code: 'KEELSON_ABORTED' });
      },
    ],
    [
      'once it changes no more',
      async ({ observers, advance }: Observed) => {
        const waited = observers.waitFor(() => false, undefined, 1_000).catch((error) => error);
        observers.end(new KeelsonError('KEELSON_CLOSED', 'closed'));
        advance();
        expect(await waited).toMatchObject({ code: 'KEELSON_CLOSED' });
      },
    ],
  ])('%s', async (_when, happen) => {
    const watched = observed();
    await happen(watched);
    const before = watched.looks();
    expect(before).toBeGreaterThan(0);
    watched.advance();
    expect(watched.looks()).toBe(before);
  });
});
