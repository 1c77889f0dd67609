import { describe, expect, test } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { SeededRandom } from '../../dist/base/random.js';

describe('ManualScheduler', () => {
  test('runs nothing by itself', async () => {
    const scheduler = new ManualScheduler();
    let ran = 0;
    scheduler.enqueue(() => ran++);
    scheduler.setTimer(0, () => ran++);
    await new Promise((resolve) => setImmediate(resolve));
    expect(ran).toBe(0);
    expect(scheduler.pendingJobs()).toBe(1);
    scheduler.advance(0);
    expect(ran).toBe(2);
  });

  test('fires timers by due time, then by the order they were set, against a sorted model', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = new SeededRandom(seed);
      const scheduler = new ManualScheduler();
      const fired: string[] = [];
      const model: { due: number; order: number }[] = [];
      for (let order = 0; order < 200; order++) {
        const due = random.integer(50);
        const timer = scheduler.setTimer(due, () => {
          fired.push(`${scheduler.now()}:${order}`);
        });
        if (random.chance(0.3)) timer.cancel();
        else model.push({ due, order });
      }
      model.sort((left, right) => left.due - right.due || left.order - right.order);
      while (scheduler.nextTimerAt() !== undefined) scheduler.advance(random.integer(10));
      expect(fired, `seed ${seed}`).toEqual(model.map(({ due, order }) => `${due}:${order}`));
    }
  });

  test('jobs that a timer queued run at its time, before the next timer', () => {
    const scheduler = new ManualScheduler({ wallTimeMs: 1000 });
    const seen: string[] = [];
    scheduler.setTimer(5, () => scheduler.enqueue(() => seen.push(`job ${scheduler.now()}`)));
    scheduler.setTimer(7.5, () => seen.push(`timer ${scheduler.wallTime()}`));
    scheduler.advance(20);
    expect(seen).toEqual(['job 5', 'timer 1007']);
    expect(scheduler.now()).toBe(20);
  });

  test('a timer set by a timer fires in the same advance when it comes due', () => {
    const scheduler = new ManualScheduler();
    let ticks = 0;
    const tick = (): void => {
      ticks++;
      scheduler.setTimer(10, tick);
    };
    scheduler.setTimer(10, tick);
    scheduler.advance(100);
    expect(ticks).toBe(10);
  });

  test('what a job throws reaches the caller and the other jobs stay', () => {
    const scheduler = new ManualScheduler();
    let ran = 0;
    scheduler.enqueue(() => {
      throw new Error('from a job');
    });
    scheduler.enqueue(() => ran++);
    expect(() => scheduler.runJobs()).toThrow('from a job');
    expect(ran).toBe(0);
    scheduler.runJobs();
    expect(ran).toBe(1);
  });

  test('the same seed gives the same chance', () => {
    const draw = (seed: number): number[] => {
      const scheduler = new ManualScheduler({ seed });
      return Array.from({ length: 5 }, () => scheduler.random());
    };
    expect(draw(4)).toEqual(draw(4));
    expect(draw(4)).not.toEqual(draw(5));
  });
});

describe('SeededRandom', () => {
  test('is even over its range and stays within it', () => {
    for (const seed of [0, 1, 2, 2 ** 40]) {
      const random = new SeededRandom(seed);
      const counts = new Array(10).fill(0);
      for (let draw = 0; draw < 10_000; draw++) counts[random.integer(10)]++;
      for (const count of counts) expect(Math.abs(count - 1000), `seed ${seed}`).toBeLessThan(150);
      const value = random.next();
      expect(value >= 0 && value < 1).toBe(true);
    }
  });

  test('is the same on every machine', () => {
    const random = new SeededRandom(42);
    const drawn = [random.nextUint32(), random.nextUint32(), random.nextUint32()];
    expect(drawn).toMatchInlineSnapshot(`
      [
        660444221,
        3652823732,
        77678286,
      ]
    `);
  });
});
