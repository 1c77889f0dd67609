import { describe, expect, it } from 'vitest';
import { KeelsonError } from '../../dist/base/errors.js';
import { Proposals } from '../../dist/runtime/proposals.js';

const limits = {
  maxPendingWrites: 8,
  maxPendingBytes: 100,
  maxBlockEntries: 4,
  maxBlockBytes: 50,
};
const payload = (length = 1): Uint8Array => new Uint8Array(length);
const lost = new KeelsonError('KEELSON_LEADERSHIP_LOST', 'overwritten', { outcome: 'unknown' });
const refused = new KeelsonError('KEELSON_OVERLOADED', 'no room');
const NEVER = Number.POSITIVE_INFINITY;
const stay = (): Promise<never> => Promise.reject(lost);

/** Follows a promise without waiting for it. */
function watch(promise: Promise<unknown>): { state: string; value?: unknown } {
  const seen: { state: string; value?: unknown } = { state: 'pending' };
  promise.then(
    (value) => Object.assign(seen, { state: 'resolved', value }),
    (value) => Object.assign(seen, { state: 'rejected', value }),
  );
  return seen;
}

/** A rejection takes two steps more than an answer. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('proposals', () => {
  it('answer each write with the response at its own index', async () => {
    const proposals = new Proposals(limits);
    const first = watch(proposals.add(payload(), NEVER));
    const second = watch(proposals.add(payload(), NEVER));
    expect(proposals.nextChunk().count).toBe(2);
    proposals.appendedAs(2, 7, 3, 0);
    proposals.applied(5, 7, ['a', 'b', 'c']);
    await settle();
    expect(first).toEqual({
      state: 'resolved',
      value: { response: 'c', logId: { term: 3, index: 7 } },
    });
    expect(second.state).toBe('pending');
    proposals.applied(8, 8, ['d']);
    await settle();
    expect(second.value).toEqual({ response: 'd', logId: { term: 3, index: 8 } });
    expect(proposals.pending).toBe(0);
  });

  it('answer a writeMany once, even when it is applied in pieces', async () => {
    const proposals = new Proposals(limits);
    const many = watch(proposals.addMany([payload(), payload(), payload()], NEVER, stay));
    proposals.appendedAs(3, 1, 1, 0);
    proposals.applied(1, 2, ['a', 'b']);
    await settle();
    expect(many.state).toBe('pending');
    proposals.applied(3, 3, ['c']);
    await settle();
    const results = many.value as { response: string }[];
    expect(results.map(({ response }) => response)).toEqual(['a', 'b', 'c']);
  });

  it('never split a writeMany between two blocks', () => {
    const proposals = new Proposals(limits);
    watch(proposals.add(payload(), NEVER));
    watch(proposals.addMany([payload(), payload(), payload()], NEVER, stay));
    watch(proposals.add(payload(), NEVER));
    expect(proposals.nextChunk().count).toBe(4);
    proposals.appendedAs(4, 1, 1, 0);
    expect(proposals.nextChunk().count).toBe(1);
  });

  it('keep a block within its bytes', () => {
    const proposals = new Proposals(limits);
    for (let i = 0; i < 3; i++) watch(proposals.add(payload(30), NEVER));
    const chunk = proposals.nextChunk();
    expect(chunk.count).toBe(1);
    expect(chunk.payloads[0]).toHaveLength(30);
  });

  it('are bounded by count and by bytes, and give the room back', () => {
    const proposals = new Proposals(limits);
    for (let i = 0; i < 8; i++) watch(proposals.add(payload(), NEVER));
    expect(proposals.hasRoom(1, 0)).toBe(false);
    proposals.appendedAs(4, 1, 1, 0);
    proposals.applied(1, 4, []);
    expect(proposals.hasRoom(4, 96)).toBe(true);
    expect(proposals.hasRoom(4, 97)).toBe(false);
    expect(proposals.hasRoom(5, 1)).toBe(false);
  });

  it('share their bounds with the writes that are held for another leader', () => {
    const proposals = new Proposals(limits);
    watch(proposals.add(payload(20), NEVER));
    const held = Array.from({ length: 6 }, () => payload(10));
    for (const each of held) proposals.hold(each);
    expect(proposals.unanswered).toBe(7);
    expect(proposals.hasRoom(1, 20)).toBe(true);
    expect(proposals.hasRoom(1, 21)).toBe(false);
    expect(proposals.hasRoom(2, 2)).toBe(false);
    for (const each of held) proposals.letGo(each);
    expect(proposals.unanswered).toBe(1);
    expect(proposals.hasRoom(7, 80)).toBe(true);
    expect(proposals.hasRoom(7, 81)).toBe(false);
  });

  it('known bug 8: fail only what was overwritten, and never answer it with another entry', async () => {
    const proposals = new Proposals(limits);
    const kept = watch(proposals.add(payload(), NEVER));
    const overwritten = watch(proposals.add(payload(), NEVER));
    proposals.appendedAs(2, 5, 1, 0);
    proposals.truncatedAfter(5, lost);
    proposals.applied(5, 6, ['mine', 'of another leader']);
    await settle();
    expect(kept.value).toMatchObject({ response: 'mine' });
    expect(overwritten).toEqual({ state: 'rejected', value: lost });
  });

  it('that have no place in the log yet are refused without a trace', async () => {
    const proposals = new Proposals(limits);
    const appended = watch(proposals.add(payload(), NEVER));
    proposals.appendedAs(1, 1, 1, 0);
    const waiting = watch(proposals.add(payload(), NEVER));
    proposals.refuseUnappended(refused);
    await settle();
    expect(waiting).toEqual({ state: 'rejected', value: refused });
    expect(appended.state).toBe('pending');
    expect(proposals.hasUnappended).toBe(false);
    expect(proposals.pending).toBe(1);
  });

  it('without a place in the log are sent on in their order, those that may be', async () => {
    const proposals = new Proposals({ ...limits, maxBlockEntries: 8 });
    const sent: [number, number][] = [];
    const send = (bytes: Uint8Array, timeoutMs: number): Promise<string> => {
      sent.push([bytes.length, timeoutMs]);
      return bytes.length === 4 ? Promise.reject(lost) : Promise.resolve(`sent ${bytes.length}`);
    };
    const sendMany = (bytes: Uint8Array, timeoutMs: number): Promise<unknown> => {
      sent.push([bytes.length, timeoutMs]);
      return Promise.resolve(['sent', 'sent']);
    };
    const appended = watch(proposals.add(payload(1), NEVER, send));
    proposals.appendedAs(1, 1, 1, 0);
    const first = watch(proposals.add(payload(2), 20, send));
    const many = watch(proposals.addMany([payload(9), payload(9)], NEVER, sendMany));
    const bound = watch(proposals.add(payload(3), NEVER));
    const second = watch(proposals.add(payload(4), 40, send));
    proposals.sendOnUnappended(refused);
    await settle();
    expect(sent).toEqual([
      [2, 20],
      [9, NEVER],
      [4, 40],
    ]);
    expect(first).toEqual({ state: 'resolved', value: 'sent 2' });
    expect(second).toEqual({ state: 'rejected', value: lost });
    expect(many).toEqual({ state: 'resolved', value: ['sent', 'sent'] });
    expect(bound).toEqual({ state: 'rejected', value: refused });
    expect(appended.state).toBe('pending');
    expect(proposals.hasUnappended).toBe(false);
    expect(proposals.pending).toBe(1);
    proposals.applied(1, 1, ['a']);
    await settle();
    expect(appended.value).toMatchObject({ response: 'a' });
  });

  it('expire one by one, and keep their place until they are applied', async () => {
    const proposals = new Proposals(limits);
    const early = watch(proposals.add(payload(), 10));
    const late = watch(proposals.add(payload(), 20));
    proposals.appendedAs(2, 1, 1, 0);
    proposals.expire(10, () => lost);
    await settle();
    expect(early.state).toBe('rejected');
    expect(late.state).toBe('pending');
    expect(proposals.pending).toBe(2);
    expect(proposals.earliestDeadlineMs).toBe(20);
    proposals.applied(1, 2, ['a', 'b']);
    await settle();
    expect(late.value).toMatchObject({ response: 'b' });
  });

  it('can be given up by ticket', async () => {
    const proposals = new Proposals(limits);
    const first = watch(proposals.add(payload(), NEVER));
    const ticket = proposals.lastTicket();
    const second = watch(proposals.add(payload(), NEVER));
    proposals.appendedAs(2, 1, 1, 0);
    proposals.cancel(ticket, lost);
    proposals.applied(1, 2, ['a', 'b']);
    proposals.cancel(ticket, lost);
    await settle();
    expect(first.state).toBe('rejected');
    expect(second.state).toBe('resolved');
  });

  it('reuse the ring for ever', async () => {
    const proposals = new Proposals(limits);
    for (let index = 1; index <= 100; index++) {
      const write = watch(proposals.add(payload(), NEVER));
      proposals.appendedAs(1, index, 1, 0);
      proposals.applied(index, index, [index]);
      await settle();
      expect(write.value).toMatchObject({ response: index });
    }
    expect(proposals.pending).toBe(0);
  });
});
