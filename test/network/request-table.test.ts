import { describe, expect, it } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { RequestTable } from '../../dist/network/request-table.js';

const RESPONSE = { payload: new Uint8Array(0), index: 1, term: 1 };

describe('request table', () => {
  it('takes an answer only from the connection that carried the request, and only once', async () => {
    const scheduler = new ManualScheduler();
    const table = new RequestTable(scheduler, 10);
    const carrier = {};
    const { id, promise } = table.open(carrier, 1_000);
    table.settle({}, id, { ...RESPONSE, index: 99 });
    table.settle(carrier, id + 1, { ...RESPONSE, index: 98 });
    expect(table.size).toBe(1);
    table.settle(carrier, id, RESPONSE);
    table.settle(carrier, id, { ...RESPONSE, index: 97 });
    expect(await promise).toEqual(RESPONSE);
    expect(scheduler.nextTimerAt()).toBeUndefined();
  });

  it('fails what a lost connection carried and nothing else', async () => {
    const table = new RequestTable(new ManualScheduler(), 10);
    const lost = {};
    const kept = {};
    const sent = table.open(lost, 1_000);
    const staged = table.open(lost, 1_000);
    const other = table.open(kept, 1_000);
    expect(table.markSent(sent.id)).toBe(true);
    table.carrierLost(lost, 'gone');
    expect(table.markSent(staged.id)).toBe(false);
    await expect(sent.promise).rejects.toMatchObject({ outcome: 'unknown' });
    await expect(staged.promise).rejects.toMatchObject({ outcome: 'rejected' });
    table.settle(kept, other.id, RESPONSE);
    expect(await other.promise).toEqual(RESPONSE);
  });

  it('takes any time limit', async () => {
    const scheduler = new ManualScheduler();
    const table = new RequestTable(scheduler, 10);
    const never = table.open({}, Number.POSITIVE_INFINITY);
    const late = table.open({}, -5);
    const failed = expect(late.promise).rejects.toMatchObject({ code: 'KEELSON_TIMEOUT' });
    scheduler.advance(1);
    await failed;
    const closed = expect(never.promise).rejects.toMatchObject({ code: 'KEELSON_CLOSED' });
    table.close();
    await closed;
    expect(() => table.open({}, 1)).toThrow(/closed/);
  });
});
