import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { ManualScheduler } from '../../dist/base/manual-scheduler.js';
import { Connection, type ConnectionOwner } from '../../dist/network/connection.js';
import { FRAME, FRAME_HEADER_BYTES } from '../../dist/network/frame.js';
import { CountedEntries, sharedBytes } from './support/recorder.js';

/** A socket of which the test decides when a write is done. */
class HeldSocket extends EventEmitter {
  readonly writes: { bytes: Uint8Array; done: ((error?: Error) => void) | undefined }[] = [];
  writableCorked = 0;
  destroyed = false;
  ended = false;

  get writableLength(): number {
    return this.writes.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }

  setNoDelay(): void {}

  setKeepAlive(): void {}

  cork(): void {
    this.writableCorked++;
  }

  uncork(): void {
    this.writableCorked--;
  }

  write(bytes: Uint8Array, done?: () => void): boolean {
    this.writes.push({ bytes, done });
    return false;
  }

  end(): void {
    this.ended = true;
  }

  destroy(): void {
    this.destroyed = true;
  }
}

function held() {
  const socket = new HeldSocket();
  const scheduler = new ManualScheduler();
  const told: string[] = [];
  const owner: ConnectionOwner = {
    maxBodyBytes: () => 1_000,
    frame: () => told.push('frame'),
    receivedBytes: () => {},
    flushed: () => told.push('flushed'),
    room: () => told.push('room'),
    closed: (failure) => told.push(`closed ${failure?.message}`),
  };
  const connection = new Connection(socket as unknown as Socket, scheduler, owner);
  const append = (entries: CountedEntries): void => {
    const at = connection.reserve(48);
    connection.commit(FRAME.append, at, 48, entries.bytes);
    connection.attachEntries(entries);
  };
  return { socket, scheduler, told, connection, append };
}

describe('connection', () => {
  it('sends what one turn brought when the turn ends', () => {
    const { socket, scheduler, connection, told } = held();
    for (let count = 0; count < 10; count++) connection.sendBody(FRAME.ping, new Uint8Array(0));
    expect(socket.writes).toEqual([]);
    expect(connection.queuedBytes).toBe(10 * FRAME_HEADER_BYTES);
    scheduler.runJobs();
    expect(socket.writes.map(({ bytes }) => bytes.byteLength)).toEqual([10 * FRAME_HEADER_BYTES]);
    expect(socket.writableCorked).toBe(0);
    expect(told).toEqual(['flushed']);
  });

  it('writes entry bytes as they lie in memory, behind their header', () => {
    const { socket, scheduler, append } = held();
    const entries = new CountedEntries(sharedBytes(5_000), new Uint8Array(0), sharedBytes(6_000));
    append(entries);
    expect(socket.writableCorked).toBe(1);
    scheduler.runJobs();
    expect(socket.writableCorked).toBe(0);
    expect(socket.writes.length).toBe(3);
    expect(socket.writes[0]!.bytes.byteLength).toBe(FRAME_HEADER_BYTES + 48);
    expect(socket.writes[1]!.bytes).toBe(entries.parts[0]);
    expect(socket.writes[2]!.bytes).toBe(entries.parts[2]);
  });

  it('copies a few bytes instead, and releases them at once', () => {
    const { socket, scheduler, append } = held();
    const entries = new CountedEntries(sharedBytes(100), sharedBytes(200, 7));
    append(entries);
    expect(entries.releases).toBe(1);
    scheduler.runJobs();
    expect(socket.writes.length).toBe(1);
    const rest = socket.writes[0]!.bytes.subarray(FRAME_HEADER_BYTES + 48);
    expect(Buffer.compare(rest, Buffer.concat(entries.parts))).toBe(0);
  });

  it('releases in the order of the writes, each when its last byte is reported', () => {
    const { socket, append, told } = held();
    const all = Array.from({ length: 600 }, () => new CountedEntries(sharedBytes(2_000)));
    for (const entries of all) append(entries);
    const reports = socket.writes.filter(({ done }) => done !== undefined);
    expect(reports.length).toBe(600);
    for (const [at, { done }] of reports.entries()) {
      done!();
      expect(all[at]!.releases).toBe(1);
      expect(all[at + 1]?.releases ?? 0).toBe(0);
    }
    expect(told.filter((each) => each === 'room').length).toBe(600);
  });

  it('releases nothing at destroy: a report that comes then may be of a later write', () => {
    const { socket, connection, append, told } = held();
    const inFlight = new CountedEntries(sharedBytes(2_000));
    const waiting = new CountedEntries(sharedBytes(2_000));
    append(inFlight);
    append(waiting);
    connection.destroy(new Error('enough'));
    expect([inFlight.releases, waiting.releases]).toEqual([0, 0]);
    const reports = socket.writes.filter(({ done }) => done !== undefined);
    reports[1]!.done!(new Error('destroyed'));
    expect([inFlight.releases, waiting.releases]).toEqual([0, 0]);
    socket.emit('close');
    expect([inFlight.releases, waiting.releases]).toEqual([1, 1]);
    reports[0]!.done!();
    expect([inFlight.releases, waiting.releases]).toEqual([1, 1]);
    expect(told).toEqual(['closed enough']);
  });

  it('reads nothing more after destroy and after end', () => {
    for (const stop of ['destroy', 'end'] as const) {
      const { socket, connection, told } = held();
      connection[stop]();
      socket.emit('data', Buffer.alloc(100));
      expect(told).not.toContain('frame');
    }
  });

  it('passes on what its owner throws, unless the frame was corrupt', () => {
    const { socket } = held();
    socket.emit('data', Buffer.alloc(100));
    expect(socket.destroyed).toBe(true);
    const other = new HeldSocket();
    const owner = { receivedBytes: () => {}, maxBodyBytes: () => 0, frame: fail };
    new Connection(
      other as unknown as Socket,
      new ManualScheduler(),
      owner as unknown as ConnectionOwner,
    );
    const { connection, scheduler, socket: source } = held();
    connection.sendBody(FRAME.ping, new Uint8Array(0));
    scheduler.runJobs();
    expect(() => other.emit('data', source.writes[0]!.bytes)).toThrow('a bug of the owner');
    expect(other.destroyed).toBe(true);
  });
});

function fail(): never {
  throw new Error('a bug of the owner');
}
