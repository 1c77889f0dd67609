/**
 * System calls that write or read fewer bytes than they were asked to, which POSIX allows: the disk goes on until
 * all is done, or throws, and the log is what was written.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import type { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';
import { openLog, texts } from './wal-support.js';

/** How many of the bytes a call takes. */
const taken = vi.hoisted(() => ({ bytes: (asked: number): number => asked, calls: 0 }));

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const short =
    <Call extends typeof fs.writeSync | typeof fs.readSync>(call: Call) =>
    (file: number, view: Uint8Array, offset: number, length: number, position: number): number => {
      taken.calls++;
      const count = taken.bytes(length);
      if (count === 0) return 0;
      return (call as typeof fs.writeSync)(file, view, offset, count, position);
    };
  return { ...fs, writeSync: short(fs.writeSync), readSync: short(fs.readSync) };
});

const SEED = 23;
const SECTOR = 4096;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-short-writes-'));
});
afterEach(() => {
  taken.bytes = (asked) => asked;
  rmSync(directory, { recursive: true });
});

describe('a disk whose calls do a part of what they are asked', () => {
  it('writes and reads all of it', () => {
    const random = new SeededRandom(SEED);
    taken.bytes = (asked) => 1 + random.integer(asked);
    const file = new NodeDisk().open(join(directory, 'a'), { access: 'write', create: true });
    const wanted = random.fill(new Uint8Array(50_000));
    taken.calls = 0;
    file.write(wanted, 1_000);
    const found = new Uint8Array(60_000);
    expect(file.read(found, 1_000), `seed ${SEED}`).toBe(50_000);
    expect(taken.calls).toBeGreaterThan(4);
    expect(Buffer.compare(found.subarray(0, 50_000), wanted), `seed ${SEED}`).toBe(0);
    file.close();
  });

  it('throws where a call writes nothing, instead of asking for ever', () => {
    const file = new NodeDisk().open(join(directory, 'a'), { access: 'write', create: true });
    taken.bytes = () => 0;
    expect(() => file.write(new Uint8Array(10), 0)).toThrow(
      expect.objectContaining({ code: 'EIO', message: expect.stringContaining('no progress') }),
    );
    file.close();
  });
});

describe('a log on such a disk', () => {
  const disk = new NodeDisk() as unknown as MemoryDisk;

  const open = (directIo: 'auto' | 'off' = 'auto') => {
    makeDirectories(disk, directory);
    return openLog(disk, { directory, directIo });
  };

  /** Past the page cache the rest of such a write is not aligned, and refused: then the log has failed. */
  it.each([
    ['whole sectors', 'auto', (asked: number) => SECTOR * Math.ceil(asked / SECTOR)],
    ['bytes', 'off', (asked: number) => asked],
    ['bytes, past the page cache,', 'auto', (asked: number) => asked],
  ] as const)('holds what it acknowledged, where calls take some %s', async (_, directIo, part) => {
    const random = new SeededRandom(SEED);
    const log = await open(directIo);
    taken.bytes = (asked) => Math.min(asked, part(1 + random.integer(asked)));
    const written: string[] = [];
    for (let round = 0; round < 40 && log.failure === undefined; round++) {
      const batch = texts(1 + random.integer(300), `round ${round}`);
      const io = await log.appendInTime(batch);
      await Promise.race([log.durable(io), log.nextFailure()]);
      if (log.failure !== undefined) break;
      written.push(...batch.map((text) => new TextDecoder().decode(text)));
    }
    expect(log.failure?.code ?? 'KEELSON_STORAGE_FAILED').toBe('KEELSON_STORAGE_FAILED');
    expect(written.length > 0 || log.failure !== undefined).toBe(true);
    await log.store.close();
    taken.bytes = (asked) => asked;
    const again = await open();
    expect((await again.contents()).slice(0, written.length), `seed ${SEED}`).toEqual(written);
    await again.store.close();
  });
});
