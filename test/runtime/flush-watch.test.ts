import { describe, expect, it } from 'vitest';
import { FlushWatch } from '../../dist/runtime/flush-watch.js';

describe('the watch over the disk', () => {
  it('is silent while nothing waits', () => {
    const watch = new FlushWatch(100);
    watch.submittedUpTo(3);
    watch.flushedUpTo(3);
    expect(watch.stalledMs(0)).toBe(0);
    expect(watch.stalledMs(10_000)).toBe(0);
  });

  it('tells a disk that completes nothing for longer than the limit', () => {
    const watch = new FlushWatch(100);
    watch.submittedUpTo(1);
    expect(watch.stalledMs(0)).toBe(0);
    expect(watch.stalledMs(99)).toBe(0);
    expect(watch.stalledMs(100)).toBe(100);
  });

  it('takes a slow disk for what it is: any progress starts the limit anew', () => {
    const watch = new FlushWatch(100);
    watch.submittedUpTo(5);
    expect(watch.stalledMs(0)).toBe(0);
    watch.flushedUpTo(1);
    expect(watch.stalledMs(150)).toBe(0);
    watch.flushedUpTo(2);
    expect(watch.stalledMs(290)).toBe(0);
    expect(watch.stalledMs(390)).toBe(100);
    watch.flushedUpTo(5);
    expect(watch.stalledMs(400)).toBe(0);
  });
});
