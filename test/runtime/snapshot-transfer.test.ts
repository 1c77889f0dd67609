import { describe, expect, it } from 'vitest';
import type { SnapshotRequest } from '../../dist/engine/messages.js';
import { headerAt } from '../storage/snapshot-support.js';
import { LIMITS, type Piece, SnapshotPair } from './support/snapshot-pair.js';

const nothing = new Uint8Array(0);

const dataOf = ({ delivered }: SnapshotPair): Piece[] =>
  delivered.filter(({ bytes }) => bytes.length > 0);

async function arrives(pair: SnapshotPair, index: number): Promise<void> {
  await pair.until(
    () => pair.installed.some(({ lastIncluded }) => lastIncluded.index === index),
    `the snapshot of ${index} is received`,
  );
}

/** Until the follower's file has about half of the bytes. */
async function halfWay(pair: SnapshotPair, totalBytes: number): Promise<void> {
  await pair.until(
    () => (pair.receiving.progress()?.bytes ?? 0) * 2 >= totalBytes,
    'half of it is in the file',
  );
}

/** The snapshot of 10 entries is half received. */
async function underWay(payloadBytes?: number): Promise<{ pair: SnapshotPair; bytes: number }> {
  const pair = await SnapshotPair.open();
  const { bytes } = await pair.build(10, payloadBytes);
  pair.send(10);
  await halfWay(pair, bytes);
  return { pair, bytes };
}

function requestFor(index: number, change: Partial<SnapshotRequest> = {}): SnapshotRequest {
  const { id: snapshotId, lastIncluded } = headerAt(index);
  const place = { term: 4, session: 1, totalBytes: 1_000, offset: 0 };
  return { type: 'SnapshotRequest', snapshotId, lastIncluded, ...place, ...change };
}

describe('a snapshot', () => {
  it('is sent in pieces, verified, and told of when it is durable', async () => {
    const pair = await SnapshotPair.open();
    const info = await pair.build(10);
    pair.send(10);
    await arrives(pair, 10);
    expect(pair.installed).toMatchObject([{ lastIncluded: info.lastIncluded }]);
    const received = pair.receiver.newest!;
    expect(pair.receiverDisk.readFile(received.file)).toEqual(pair.fileOf(info));
    expect(Math.max(...pair.delivered.map(({ bytes }) => bytes.length))).toBe(LIMITS.chunkBytes);
    expect(pair.sending.progress().size).toBe(0);
    expect(pair.receiving.progress()).toBeUndefined();
    expect(pair.scheduler.nextTimerAt()).toBeUndefined();
    expect(pair.failures).toEqual([]);
  });

  it('is offered, and no byte of it sent, before the follower has said where it is', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.answering = false;
    pair.send(10);
    await pair.settle();
    expect(pair.delivered.map(({ bytes }) => bytes.length)).toEqual([0]);
  });

  it('never has more under way than may be, however slow the disk of the follower is', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10, 5_000);
    pair.send(10);
    await halfWay(pair, 2_000);
    pair.receiverThread.closed = true;
    await pair.settle();
    const written = pair.receiving.progress()!.bytes;
    expect(pair.takenBytes).toBeLessThanOrEqual(written + LIMITS.maxInflightBytes);
    await pair.settle();
    pair.receiverThread.open();
    await arrives(pair, 10);
  });

  it('goes on when there is room in the network again', async () => {
    const { pair } = await underWay();
    pair.takes = false;
    await pair.settle();
    expect(pair.installed).toEqual([]);
    pair.takes = true;
    pair.sending.writable(2);
    await arrives(pair, 10);
  });

  it('is sent no faster than it may be, and nothing runs while it waits', async () => {
    const pair = await SnapshotPair.open({ maxBytesPerSecond: 1_000 });
    const { bytes } = await pair.build(10, 2_000);
    const setTimer = pair.scheduler.setTimer.bind(pair.scheduler);
    let timers = 0;
    pair.scheduler.setTimer = (...given) => {
      timers++;
      return setTimer(...given);
    };
    pair.send(10);
    for (let ms = 0; ms < 2_000; ms += 50) {
      await pair.pass(50);
      expect(pair.takenBytes).toBeLessThanOrEqual(pair.scheduler.now() + LIMITS.chunkBytes);
      expect(pair.scheduler.pendingJobs()).toBe(0);
    }
    expect(pair.takenBytes).toBeGreaterThan(1_900);
    // One for each piece, those of the follower, and a few for silence.
    expect(timers).toBeLessThan((bytes / LIMITS.chunkBytes) * 3);
    while (pair.takenBytes < bytes) await pair.pass(50);
    await arrives(pair, 10);
    expect(pair.scheduler.now()).toBeLessThan(bytes + 100);
  });

  it('lets its file go when it has arrived, so that newer ones take its place', async () => {
    const pair = await SnapshotPair.open();
    const { id } = await pair.build(10);
    pair.delivers = false;
    pair.send(10);
    await pair.settle();
    for (const index of [11, 12, 13]) await pair.build(index);
    expect(pair.sender.snapshots.map((info) => info.id)).toContain(id);
    pair.delivers = true;
    await arrives(pair, 10);
    await pair.until(() => pair.senderDisk.list('/snapshots').length === 2, 'it is removed');
  });

  it('lets its file go when it ended before the file was open', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.send(10);
    pair.breakOff();
    await pair.settle();
    for (const index of [11, 12, 13]) await pair.build(index);
    await pair.until(() => pair.senderDisk.list('/snapshots').length === 2, 'it is removed');
  });
});

describe('a transfer that is disturbed', () => {
  it('goes on where the file of the follower ends, after a break', async () => {
    const { pair, bytes } = await underWay(3_000);
    pair.breakOff();
    await pair.settle();
    const { bytes: written } = pair.receiving.progress()!;
    const before = dataOf(pair).length;
    pair.send(10);
    await arrives(pair, 10);
    expect(dataOf(pair)[before]!.request.offset).toBe(written);
    expect(pair.takenBytes).toBe(bytes);
  });

  it('goes on with the same file after a break, although there is a newer one', async () => {
    const { pair, bytes } = await underWay(3_000);
    pair.breakOff();
    await pair.build(20);
    pair.send(20);
    await arrives(pair, 10);
    expect(pair.instead).toEqual([10]);
    expect(pair.takenBytes).toBe(bytes);
  });

  it('begins anew after a break when the log behind its file is purged', async () => {
    const { pair } = await underWay(3_000);
    pair.breakOff();
    await pair.build(20);
    pair.purgedIndex = 11;
    pair.send(20);
    await arrives(pair, 20);
    expect(pair.instead).toEqual([]);
    expect(pair.receiverDisk.list('/snapshots')).toHaveLength(1);
  });

  it('goes back to a piece that was lost, at once', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    let lost = 0;
    pair.fate = (piece) => (piece.request.offset === 300 && lost++ === 0 ? undefined : piece);
    pair.send(10);
    await arrives(pair, 10);
    expect(lost).toBe(2);
    expect(pair.scheduler.now()).toBe(0);
  });

  it('asks how far it is when the last piece or an answer was lost', async () => {
    const { pair, bytes } = await underWay();
    pair.answering = false;
    await pair.settle();
    expect(pair.installed).toEqual([]);
    pair.answering = true;
    await pair.pass(LIMITS.silenceMs);
    await arrives(pair, 10);
    expect(pair.takenBytes).toBe(bytes);
  });

  it('writes nothing twice, and answers nothing, when a piece comes twice', async () => {
    const { pair } = await underWay();
    pair.delivers = false;
    await pair.settle();
    const answers = pair.answers.length;
    for (const piece of dataOf(pair)) pair.deliver(piece);
    await pair.settle();
    expect(pair.answers).toHaveLength(answers);
    pair.delivers = true;
    await arrives(pair, 10);
  });

  it('drops what does not fit into the memory of the follower, and sends that again', async () => {
    const pair = await SnapshotPair.open({}, 100);
    const { bytes } = await pair.build(10);
    pair.send(10);
    await pair.until(() => pair.receiving.progress() !== undefined, 'it is begun');
    await arrives(pair, 10);
    expect(pair.takenBytes).toBeGreaterThan(bytes);
    expect(pair.scheduler.now()).toBe(0);
  });

  it.each([
    ['it is offered', async () => SnapshotPair.open()],
    ['a piece was read', async () => (await underWay(3_000)).pair],
    [
      'a piece was due',
      async () => {
        const pair = await SnapshotPair.open({ maxBytesPerSecond: 100 });
        await pair.build(10);
        pair.send(10);
        await pair.settle();
        return pair;
      },
    ],
    [
      'the follower was silent',
      async () => {
        const { pair } = await underWay(3_000);
        pair.answering = false;
        await pair.settle();
        return pair;
      },
    ],
  ])('stops the node when a broken invariant shows as %s', async (_, prepare) => {
    const pair = await prepare();
    pair.bug = new Error('a broken invariant');
    if (pair.session === 0) {
      await pair.build(10);
      pair.send(10);
    }
    await pair.settle();
    await pair.pass(LIMITS.silenceMs);
    expect(pair.failures).toEqual([pair.bug]);
    expect(pair.sending.progress().size).toBe(0);
    expect(pair.eventsNamed('snapshot.send-failed')).toEqual([]);
  });

  it('is tried again less and less often while it comes to nothing, and at once after it arrived', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.receiverDisk.fail({ operation: 'write', nth: 3, sticky: true, code: 'ENOSPC' });
    const refusedAt: number[] = [];
    pair.send(10);
    for (let seconds = 0; seconds <= 200; seconds++) {
      await pair.pass(seconds === 0 ? 0 : 1_000);
      while (refusedAt.length < pair.eventsNamed('snapshot.refused').length) {
        refusedAt.push(seconds);
        pair.send(10);
        await pair.settle();
      }
    }
    expect(refusedAt).toEqual([0, 0, 1, 3, 7, 15, 31, 63, 123, 183]);
    pair.receiverDisk.clearFaults();
    await pair.pass(60_000);
    await arrives(pair, 10);
    await pair.build(20);
    pair.receiverDisk.fail({ operation: 'write', nth: 3, code: 'ENOSPC' });
    pair.send(20);
    await pair.settle();
    expect(pair.eventsNamed('snapshot.refused')).toHaveLength(refusedAt.length + 1);
    pair.send(20);
    await arrives(pair, 20);
  });

  it('is not begun when the engine has ended it while it waited', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.purgedIndex = 11;
    for (let count = 0; count < 3; count++) pair.send(20);
    expect(pair.eventsNamed('snapshot.missing')).toHaveLength(2);
    pair.breakOff();
    expect(pair.scheduler.nextTimerAt()).toBeUndefined();
    pair.send(20);
    expect(pair.scheduler.nextTimerAt()).toBe(1_000);
    pair.sending.stop();
    expect(pair.scheduler.nextTimerAt()).toBeUndefined();
  });

  it('fails when nothing comes into the file of the follower for long, and goes on there later', async () => {
    const { pair, bytes } = await underWay(3_000);
    pair.receiverThread.closed = true;
    for (let ms = 0; ms < LIMITS.stallMs; ms += LIMITS.silenceMs) {
      expect(pair.failedSessions).toEqual([]);
      await pair.pass(LIMITS.silenceMs);
    }
    expect(pair.failedSessions).toEqual([1]);
    expect(pair.sending.progress().size).toBe(0);
    expect(pair.eventsNamed('snapshot.send-failed')).toHaveLength(1);
    pair.receiverThread.open();
    await pair.settle();
    const { bytes: written } = pair.receiving.progress()!;
    const before = dataOf(pair).length;
    await pair.build(20);
    pair.send(20);
    await arrives(pair, 10);
    expect(written).toBeGreaterThanOrEqual(bytes / 2);
    expect(dataOf(pair)[before]!.request.offset).toBe(written);
  });

  it('does not fail because it is sent slowly', async () => {
    const pair = await SnapshotPair.open({ maxBytesPerSecond: 5 });
    await pair.build(10);
    pair.send(10);
    for (let ms = 0; ms < LIMITS.stallMs * 8; ms += LIMITS.silenceMs) {
      // Some answers come late.
      pair.answering = ms % 3_000 !== 0;
      await pair.pass(LIMITS.silenceMs);
    }
    expect(pair.failedSessions).toEqual([]);
    expect(pair.takenBytes).toBeGreaterThanOrEqual(400);
  });

  it('ends with the engine, and its timers with it', async () => {
    const pair = await SnapshotPair.open({ maxBytesPerSecond: 100 });
    await pair.build(10);
    pair.send(10);
    await pair.settle();
    expect(pair.sending.progress().size).toBe(1);
    pair.breakOff();
    pair.receiving.notNeeded();
    await pair.settle();
    expect(pair.sending.progress().size).toBe(0);
    expect(pair.scheduler.nextTimerAt()).toBeUndefined();
  });
});

describe('what does not verify', () => {
  it('is thrown away with a reason, changes nothing, and does not keep a sound one out', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.fate = (piece) => {
      if (piece.request.offset !== 300) return piece;
      const bytes = Uint8Array.from(piece.bytes);
      bytes[7]! ^= 1;
      return { ...piece, bytes };
    };
    pair.send(10);
    await pair.until(() => pair.eventsNamed('snapshot.refused').length > 0, 'it is refused');
    await pair.settle();
    expect(pair.eventsNamed('snapshot.refused')[0]!.reason).toMatch(/does not match/);
    expect(pair.installed).toEqual([]);
    expect(pair.receiver.newest).toBeUndefined();
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
    pair.fate = (piece) => piece;
    pair.send(10);
    await arrives(pair, 10);
  });

  it.each([
    ['is too small for a snapshot', { totalBytes: 100 }],
    ['is no number of bytes', { totalBytes: Number.NaN }],
  ])('is refused before a file is made, when it %s', async (_, change) => {
    const pair = await SnapshotPair.open();
    pair.deliver({ request: requestFor(10, change), bytes: nothing });
    await pair.settle();
    expect(pair.answers).toMatchObject([{ state: 'failed' }]);
    expect(pair.eventsNamed('snapshot.refused')[0]!.reason).toMatch(/cannot be one/);
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
  });

  it('because it is of a later version of the machine is refused at its beginning', async () => {
    const limits = { chunkBytes: 10_000, maxInflightBytes: 20_000 };
    const pair = await SnapshotPair.open(limits, limits.maxInflightBytes);
    const { bytes } = await pair.build(10, 400_000);
    pair.machine.version = 6;
    pair.send(10);
    await pair.settle();
    expect(pair.eventsNamed('snapshot.refused')[0]!.reason).toMatch(/is of version 7/);
    expect(pair.answers.at(-1)).toMatchObject({ state: 'failed' });
    expect(pair.takenBytes).toBeLessThan(bytes / 2);
    expect(pair.installed).toEqual([]);
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
    pair.machine.version = 7;
    pair.send(10);
    await arrives(pair, 10);
  });

  it('is refused when more comes than was announced', async () => {
    const pair = await SnapshotPair.open();
    const request = requestFor(10, { totalBytes: 200 });
    pair.deliver({ request, bytes: nothing });
    await pair.settle();
    pair.deliver({ request, bytes: new Uint8Array(300) });
    await pair.settle();
    expect(pair.answers.at(-1)).toMatchObject({ state: 'failed' });
    expect(pair.eventsNamed('snapshot.refused')[0]!.reason).toMatch(/more bytes came/);
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
  });

  it('because the file of the leader has been damaged is sent once: an older one takes its place', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    const { file } = await pair.build(20);
    pair.senderDisk.damage(file, 400, (bytes) => {
      bytes[0]! ^= 1;
    });
    pair.send(20);
    await pair.until(() => pair.eventsNamed('snapshot.refused').length > 0, 'it is refused');
    pair.send(20);
    await pair.settle();
    expect(pair.eventsNamed('snapshot.damaged')[0]).toMatchObject({ file });
    pair.send(20);
    await pair.pass(1_000);
    await arrives(pair, 10);
    expect(pair.eventsNamed('snapshot.refused')).toHaveLength(1);
  });

  it('because it is gone from the disk of the leader is not sent: an older one takes its place', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    const { file } = await pair.build(20);
    pair.senderDisk.remove(file);
    pair.send(20);
    await pair.settle();
    expect(pair.failedSessions).toEqual([1]);
    expect(pair.eventsNamed('snapshot.send-failed')[0]).toMatchObject({ target: 2, file });
    pair.send(20);
    await arrives(pair, 10);
    expect(pair.instead).toEqual([10]);
  });

  it('because the follower claims more of it than there is fails, and is told of', async () => {
    const { pair, bytes } = await underWay(3_000);
    const { session } = pair;
    pair.sending.answered(2, {
      type: 'SnapshotResponse',
      term: pair.term,
      session,
      state: 'receiving',
      offset: bytes + 1,
      matchIndex: 0,
    });
    expect(pair.failedSessions).toEqual([session]);
    expect(pair.eventsNamed('snapshot.send-failed')[0]).toMatchObject({
      err: { code: 'KEELSON_CORRUPT_FRAME' },
    });
  });

  it('is told of when the leader has nothing that leads to its log', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.purgedIndex = 11;
    pair.send(20);
    expect(pair.eventsNamed('snapshot.missing')).toHaveLength(1);
    expect(pair.failedSessions).toEqual([1]);
  });
});

describe('a follower', () => {
  it('takes one snapshot at a time: the offer of another one begins anew', async () => {
    const { pair } = await underWay(3_000);
    pair.delivers = false;
    pair.deliver({ request: requestFor(30, { offset: 10 }), bytes: new Uint8Array(10) });
    await pair.settle();
    expect(pair.receiving.progress()).toMatchObject({ index: 10 });
    pair.breakOff();
    pair.deliver({ request: requestFor(30), bytes: nothing });
    await pair.settle();
    expect(pair.receiving.progress()).toMatchObject({ index: 30, bytes: 0 });
    expect(pair.receiverDisk.list('/snapshots')).toEqual([`receive-${headerAt(30).id}.tmp`]);
  });

  it('takes no other snapshot while it verifies one, and answers to that one only', async () => {
    const pair = await SnapshotPair.open();
    const { bytes } = await pair.build(10);
    pair.receiverThread.holds = 'publish';
    pair.send(10);
    await pair.until(() => pair.receiving.progress()?.bytes === bytes, 'all is in the file');
    const answers = pair.answers.length;
    pair.deliver({ request: requestFor(30), bytes: nothing });
    await pair.settle();
    expect(pair.receiving.progress()).toMatchObject({ index: 10 });
    expect(pair.answers.slice(answers).map(({ state }) => state)).not.toContain('failed');
    pair.receiverThread.open();
    await arrives(pair, 10);
  });

  it('that has stopped answers nothing more, and has no timer', async () => {
    const { pair } = await underWay(3_000);
    pair.receiverThread.closed = true;
    await pair.settle();
    pair.receiving.stop();
    const answers = pair.answers.length;
    pair.breakOff();
    pair.receiverThread.open();
    await pair.settle();
    expect(pair.answers).toHaveLength(answers);
    expect(pair.scheduler.nextTimerAt()).toBeUndefined();
  });

  it('that has stopped while it verified one tells nobody of it', async () => {
    const pair = await SnapshotPair.open();
    const { bytes } = await pair.build(10);
    pair.send(10);
    await pair.until(() => pair.receiving.progress()?.bytes === bytes, 'all is in the file');
    pair.receiving.stop();
    await pair.until(() => pair.receiver.newest !== undefined, 'it is verified');
    await pair.settle();
    expect(pair.installed).toEqual([]);
  });

  it('whose disk has no room for all of it takes none of it, until there is room', async () => {
    const pair = await SnapshotPair.open();
    const { bytes } = await pair.build(10);
    pair.receiverDisk.capacityBytes = bytes - 1;
    pair.send(10);
    await pair.settle();
    expect(pair.answers).toMatchObject([{ state: 'failed' }]);
    expect(pair.eventsNamed('snapshot.refused')[0]!.reason).toMatch(/does not fit/);
    expect(pair.takenBytes).toBe(0);
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
    pair.receiverDisk.capacityBytes = bytes * 2 + 10_000;
    pair.send(10);
    await arrives(pair, 10);
  });

  it('whose disk is full says so, keeps nothing, and takes it when there is room', async () => {
    const pair = await SnapshotPair.open();
    await pair.build(10);
    pair.receiverDisk.fail({ operation: 'write', nth: 3, sticky: true, code: 'ENOSPC' });
    pair.send(10);
    await pair.until(() => pair.eventsNamed('snapshot.refused').length > 0, 'it is refused');
    await pair.settle();
    expect(pair.answers.at(-1)).toMatchObject({ state: 'failed' });
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
    pair.receiverDisk.clearFaults();
    pair.send(10);
    await arrives(pair, 10);
  });

  it.each([
    ['needs it no longer', (pair: SnapshotPair) => pair.receiving.notNeeded()],
    ['has heard nothing of it for long', (pair: SnapshotPair) => pair.scheduler.advance(600_000)],
  ])('gives up a part of a file when it %s', async (_, giveUp) => {
    const { pair } = await underWay(3_000);
    pair.breakOff();
    await pair.settle();
    expect(pair.receiverDisk.list('/snapshots')).toHaveLength(1);
    giveUp(pair);
    await pair.settle();
    expect(pair.receiving.progress()).toBeUndefined();
    expect(pair.receiverDisk.list('/snapshots')).toEqual([]);
  });
});
