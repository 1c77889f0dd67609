import { createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { SystemScheduler } from '../../dist/base/system-scheduler.js';

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('SystemScheduler', () => {
  test('runs jobs after the present code, in order, those they queue behind them', async () => {
    const scheduler = new SystemScheduler();
    const seen: string[] = [];
    scheduler.enqueue(() => {
      seen.push('a');
      scheduler.enqueue(() => seen.push('c'));
    });
    scheduler.enqueue(() => seen.push('b'));
    expect(seen).toEqual([]);
    await Promise.resolve();
    expect(seen).toEqual(['a', 'b', 'c']);
  });

  test('keeps the order over many bursts, within and beyond the budget', async () => {
    const scheduler = new SystemScheduler();
    const seen: number[] = [];
    const total = 300_000;
    let queued = 0;
    await new Promise<void>((resolve) => {
      const queueSome = (): void => {
        for (let burst = 0; burst < 1000 && queued < total; burst++) {
          const own = queued++;
          scheduler.enqueue(() => {
            seen.push(own);
            if (own % 1000 === 0) queueSome();
            if (seen.length === total) resolve();
          });
        }
      };
      queueSome();
    });
    expect(seen.every((value, place) => value === place)).toBe(true);
  });

  test('yields to the event loop although jobs wake one another for ever', async () => {
    const scheduler = new SystemScheduler();
    let running = true;
    const again = (): void => {
      if (running) scheduler.enqueue(again);
    };
    again();
    await new Promise((resolve) => setTimeout(resolve, 5));
    running = false;
  });

  test('yields although every job is woken by a promise of the job before', async () => {
    const scheduler = new SystemScheduler();
    let running = true;
    const loop = async (): Promise<void> => {
      while (running) await new Promise<void>((resolve) => scheduler.enqueue(resolve));
    };
    const looping = loop();
    const server = createServer();
    // Listening completes through the event loop.
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    running = false;
    await looping;
    await new Promise((resolve) => server.close(resolve));
  });

  test('a long burst is cut into turns of about a millisecond', async () => {
    const scheduler = new SystemScheduler();
    const busy = (): void => {
      const until = performance.now() + 0.05;
      while (performance.now() < until);
    };
    let done = 0;
    for (let job = 0; job < 400; job++) {
      scheduler.enqueue(() => {
        busy();
        done++;
      });
    }
    const doneAtTurns: number[] = [];
    while (done < 400) {
      await nextTurn();
      doneAtTurns.push(done);
    }
    // 20 ms of work; a turn runs at least one check interval of jobs.
    expect(doneAtTurns.length).toBeGreaterThan(5);
  });

  test('a job that throws is reported and loses no other job', async () => {
    const scheduler = new SystemScheduler();
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    try {
      const reported = new Promise((resolve) => process.once('uncaughtException', resolve));
      const seen: number[] = [];
      scheduler.enqueue(() => seen.push(1));
      scheduler.enqueue(() => {
        throw new Error('from a job');
      });
      scheduler.enqueue(() => seen.push(2));
      await Promise.resolve();
      expect(seen).toEqual([1, 2]);
      expect(await reported).toMatchObject({ message: 'from a job' });
      scheduler.enqueue(() => seen.push(3));
      await Promise.resolve();
      expect(seen).toEqual([1, 2, 3]);
    } finally {
      for (const listener of before) process.on('uncaughtException', listener);
    }
  });

  test('a timer fires once, never early, and not after it was cancelled', async () => {
    const scheduler = new SystemScheduler();
    const cancelled = scheduler.setTimer(1, () => expect.unreachable());
    cancelled.cancel();
    for (const delayMs of [0, 1, 3.7, 10]) {
      const start = scheduler.now();
      await new Promise<void>((resolve) => {
        scheduler.setTimer(delayMs, resolve);
        setTimeout(() => {}, 50);
      });
      expect(scheduler.now() - start).toBeGreaterThanOrEqual(delayMs);
    }
    expect(() => scheduler.setTimer(2 ** 31, () => {})).toThrow('timer');
    expect(() => scheduler.setTimer(Number.NaN, () => {})).toThrow('timer');
  });

  test('tells wall time in whole ms and random numbers below one', () => {
    const scheduler = new SystemScheduler();
    expect(Number.isInteger(scheduler.wallTime())).toBe(true);
    expect(Math.abs(scheduler.wallTime() - Date.now())).toBeLessThan(1000);
    const random = scheduler.random();
    expect(random >= 0 && random < 1).toBe(true);
  });
});
