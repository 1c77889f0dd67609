import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../dist/base/random.js';
import { writeCheckedFile } from '../../dist/storage/checked-file.js';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { clusterIdOf, openManifest } from '../../dist/storage/manifest.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { PeerRegistry } from '../../dist/storage/peer-registry.js';

const VOTERS = { 1: 'a:7000', 2: 'b:7000', 3: 'c:7000' };
const EXPECTED = {
  clusterName: 'bank',
  clusterId: clusterIdOf('bank', VOTERS),
  nodeId: 1,
  laneCount: 1,
  segmentBytes: 1 << 20,
};

function randomBytes(seed: number): (length: number) => Uint8Array {
  const random = new SeededRandom(seed);
  return (length) => random.fill(new Uint8Array(length));
}

function newDisk(): MemoryDisk {
  const disk = new MemoryDisk();
  makeDirectories(disk, '/data');
  return disk;
}

const error = (code: string, ...words: string[]): object => ({
  asymmetricMatch: (thrown: { code: string; message: string }) =>
    thrown.code === code && words.every((word) => thrown.message.includes(word)),
  toString: () => `${code} with ${words.join(', ')}`,
});

describe('cluster id', () => {
  test('depends on the name, the voters and their addresses, not on their order', () => {
    const id = clusterIdOf('bank', VOTERS);
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(clusterIdOf('bank', { 3: 'c:7000', 1: 'a:7000', 2: 'b:7000' })).toBe(id);
    expect(clusterIdOf('shop', VOTERS)).not.toBe(id);
    expect(clusterIdOf('bank', { ...VOTERS, 3: 'd:7000' })).not.toBe(id);
    expect(clusterIdOf('bank', { 1: 'a:7000' })).not.toBe(id);
  });

  test('is the same in every version', () => {
    expect(clusterIdOf('bank', VOTERS)).toMatchInlineSnapshot(`"ab80754cccdb0e58ea4cf428b0066709"`);
  });
});

describe('manifest', () => {
  test('is made once, survives a crash, and keeps its incarnation', () => {
    const disk = newDisk();
    const made = openManifest(disk, '/data', EXPECTED, randomBytes(1));
    expect(made).toMatchObject({ ...EXPECTED, formatVersion: 1, created: true, logBegun: false });
    expect(made.incarnation).toMatch(/^[0-9a-f]{32}$/);
    const found = openManifest(disk.crash(), '/data', EXPECTED, randomBytes(2));
    expect(found).toEqual({ ...made, created: false });
    expect(openManifest(newDisk(), '/data', EXPECTED, randomBytes(2)).incarnation).not.toBe(
      made.incarnation,
    );
  });

  test('a crash at any call leaves no manifest or a whole one', () => {
    const operations = ['open', 'write', 'dataSync', 'rename', 'syncDirectory'] as const;
    for (const operation of operations) {
      for (let seed = 1; seed <= 10; seed++) {
        const disk = newDisk();
        disk.fail({ operation, nth: 1, code: 'EIO', partialBytes: 20 });
        expect(() => openManifest(disk, '/data', EXPECTED, randomBytes(1))).toThrow('EIO');
        const found = disk.crash('random', seed);
        const manifest = openManifest(found, '/data', EXPECTED, randomBytes(1));
        expect(manifest, `${operation} seed ${seed}`).toMatchObject(EXPECTED);
      }
    }
  });

  test('with syncs ignored it would be lost', () => {
    const disk = newDisk();
    disk.ignoreDataSync = true;
    openManifest(disk, '/data', EXPECTED, randomBytes(1));
    expect(() => openManifest(disk.crash(), '/data', EXPECTED, randomBytes(1))).toThrow();
  });

  test('the directory of another node, cluster or layout is refused with a remedy', () => {
    const disk = newDisk();
    openManifest(disk, '/data', EXPECTED, randomBytes(1));
    const cases = [
      [{ nodeId: 2 }, ['node 1', 'expected 2', '/data']],
      [{ clusterName: 'shop' }, ['cluster "bank"', 'expected "shop"', 'directory']],
      [{ laneCount: 4 }, ['lanes 1', 'expected 4']],
      [{ segmentBytes: 1 << 21 }, ['1048576', 'expected 2097152']],
    ] as const;
    for (const [change, words] of cases) {
      expect(() => openManifest(disk, '/data', { ...EXPECTED, ...change }, randomBytes(1))).toThrow(
        error('KEELSON_STORAGE_MISMATCH', ...words),
      );
    }
  });

  test('other initial voters on restart are no error: the directory knows its cluster', () => {
    const disk = newDisk();
    openManifest(disk, '/data', EXPECTED, randomBytes(1));
    const other = { ...EXPECTED, clusterId: clusterIdOf('bank', { 1: 'a:7000' }) };
    const found = openManifest(disk, '/data', other, randomBytes(1));
    expect(found.clusterId).toBe(EXPECTED.clusterId);
  });

  test('a newer format is refused, whatever else is in it', () => {
    const disk = newDisk();
    writeCheckedFile(disk, '/data', 'manifest', { format: 2, colour: 'green' });
    expect(() => openManifest(disk, '/data', EXPECTED, randomBytes(1))).toThrow(
      error('KEELSON_STORAGE_VERSION', 'format 2', 'up to 1'),
    );
    expect(() => openManifest(disk, '/data', EXPECTED, randomBytes(1))).toThrow(
      expect.objectContaining({ details: { file: '/data/manifest', found: 2, expected: 1 } }),
    );
  });

  test('every single damaged byte and every cut is found', () => {
    const disk = newDisk();
    openManifest(disk, '/data', EXPECTED, randomBytes(1));
    const whole = disk.readFile('/data/manifest');
    const open = (bytes: Uint8Array): void => {
      const other = newDisk();
      const file = other.open('/data/manifest', { access: 'write', create: true });
      file.write(bytes, 0);
      openManifest(other, '/data', EXPECTED, randomBytes(1));
    };
    expect(() => open(whole)).not.toThrow();
    for (let place = 0; place < whole.length; place++) {
      const damaged = whole.slice();
      damaged[place]! ^= 1 << (place % 8);
      expect(() => open(damaged), `byte ${place}`).toThrow(error('KEELSON_STORAGE_CORRUPT'));
      expect(() => open(whole.subarray(0, place)), `cut at ${place}`).toThrow(
        expect.objectContaining({
          code: 'KEELSON_STORAGE_CORRUPT',
          message: expect.stringContaining('/data/manifest'),
          details: { file: '/data/manifest' },
        }),
      );
    }
  });

  test('one that says nothing of lanes is of a log with one', () => {
    const disk = newDisk();
    const incarnation = '0'.repeat(32);
    const { laneCount: _, ...fields } = EXPECTED;
    const content = { format: 1, ...fields, incarnation, logBegun: true };
    writeCheckedFile(disk, '/data', 'manifest', content);
    expect(openManifest(disk, '/data', EXPECTED, randomBytes(1)).laneCount).toBe(1);
    const two = { ...EXPECTED, laneCount: 2 };
    expect(() => openManifest(disk, '/data', two, randomBytes(1))).toThrow(
      error('KEELSON_STORAGE_MISMATCH', 'lanes 1', 'expected 2'),
    );
  });

  test('fields with impossible values are damage', () => {
    for (const change of [
      { nodeId: 0 },
      { incarnation: 'x' },
      { laneCount: '1' },
      { laneCount: 0 },
      { clusterName: 1 },
      { logBegun: undefined },
    ]) {
      const disk = newDisk();
      const incarnation = '0'.repeat(32);
      writeCheckedFile(disk, '/data', 'manifest', {
        format: 1,
        ...EXPECTED,
        incarnation,
        logBegun: false,
        ...change,
      });
      expect(() => openManifest(disk, '/data', EXPECTED, randomBytes(1))).toThrow(
        error('KEELSON_STORAGE_CORRUPT'),
      );
    }
  });
});

describe('peer registry', () => {
  test('remembers incarnations over a crash', () => {
    const disk = newDisk();
    const registry = PeerRegistry.open(disk, '/data');
    expect(registry.known(2)).toBeUndefined();
    registry.remember(2, 'aa');
    registry.remember(3, 'bb');
    registry.remember(2, 'aa');
    const found = PeerRegistry.open(disk.crash(), '/data');
    expect([found.known(2), found.known(3), found.known(1)]).toEqual(['aa', 'bb', undefined]);
  });

  test('known bug 37: a wiped voter rejoins under its old id and votes again', () => {
    const disk = newDisk();
    const registry = PeerRegistry.open(disk, '/data');
    registry.remember(2, 'aa');
    expect(() => registry.remember(2, 'cc')).toThrow('first incarnation');
    expect(PeerRegistry.open(disk, '/data').known(2)).toBe('aa');
    registry.replace(2, 'cc');
    expect(PeerRegistry.open(disk, '/data').known(2)).toBe('cc');
  });

  test('knows nothing that it could not make durable', () => {
    const disk = newDisk();
    const registry = PeerRegistry.open(disk, '/data');
    disk.fail({ operation: 'dataSync', nth: 1, code: 'EIO' });
    expect(() => registry.remember(2, 'aa')).toThrow('EIO');
    expect(registry.known(2)).toBeUndefined();
  });

  test('a damaged file is refused', () => {
    const disk = newDisk();
    PeerRegistry.open(disk, '/data').remember(2, 'aa');
    disk.damage('/data/peers', 5, (bytes) => {
      bytes[0]! ^= 1;
    });
    expect(() => PeerRegistry.open(disk, '/data')).toThrow(error('KEELSON_STORAGE_CORRUPT'));
    writeCheckedFile(disk, '/data', 'peers', { format: 1, peers: [[1]] });
    expect(() => PeerRegistry.open(disk, '/data')).toThrow(error('KEELSON_STORAGE_CORRUPT'));
  });
});
