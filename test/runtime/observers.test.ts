import { expect, it } from 'vitest';
import { silentLogger } from '../../dist/base/logger.js';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import type { Status } from '../../dist/index.js';
import { Observers } from '../../dist/runtime/observers.js';

it('changes of one turn are told once, with the status of its end', () => {
  const scheduler = new ManualScheduler();
  const status = { appliedIndex: 0 };
  const observers = new Observers(scheduler, silentLogger, () => ({ ...status }) as Status);
  const heard: number[] = [];
  observers.events.on('status', ({ appliedIndex }) => heard.push(appliedIndex));
  for (let turn = 0; turn < 2; turn++) {
    for (let change = 0; change < 3; change++) {
      status.appliedIndex++;
      observers.changed();
    }
    scheduler.runJobs();
  }
  expect(heard).toEqual([3, 6]);
});
