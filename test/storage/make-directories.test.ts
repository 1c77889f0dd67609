import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makeDirectories } from '../../dist/storage/make-directories.js';
import { MemoryDisk } from '../../dist/storage/memory-disk.js';
import { NodeDisk } from '../../dist/storage/node-disk.js';

const root = mkdtempSync(join(tmpdir(), 'keelson-directories-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('makeDirectories', () => {
  it('makes all that are missing, durably', () => {
    const disk = new MemoryDisk();
    makeDirectories(disk, '/a/b/c');
    makeDirectories(disk, '/a/b/d');
    const found = disk.crash();
    expect(found.list('/a/b')).toEqual(['c', 'd']);
    const real = new NodeDisk();
    makeDirectories(real, join(root, 'a', 'b'));
    makeDirectories(real, join(root, 'a', 'b'));
    expect(existsSync(join(root, 'a', 'b'))).toBe(true);
  });

  it('known bug 56: makes durable what a process that was killed had made and not synced', () => {
    for (const operation of ['makeDirectory', 'syncDirectory'] as const) {
      for (let nth = 1; nth <= 3; nth++) {
        const disk = new MemoryDisk();
        disk.fail({ operation, nth, code: 'EIO', sticky: true });
        expect(() => makeDirectories(disk, '/a/b/c')).toThrow('EIO');
        disk.clearFaults();
        makeDirectories(disk, '/a/b/c');
        expect(disk.crash().exists('/a/b/c'), `killed at ${operation} ${nth}`).toBe(true);
      }
    }
  });

  it('fails where not even the root is there, as on a drive that is missing', () => {
    const disk = new MemoryDisk();
    let asked = 0;
    disk.exists = () => {
      if (++asked > 10) throw new Error('it asks for ever');
      return false;
    };
    disk.fail({ operation: 'makeDirectory', nth: 1, code: 'ENOENT' });
    expect(() => makeDirectories(disk, '/a/b')).toThrow('ENOENT');
  });

  it('is refused where a file is in the way', () => {
    const real = new NodeDisk();
    real.open(join(root, 'file'), { access: 'write', create: true }).close();
    expect(() => real.makeDirectory(join(root, 'file'))).toThrow('EEXIST');
    const disk = new MemoryDisk();
    disk.open('/file', { access: 'write', create: true }).close();
    expect(() => disk.makeDirectory('/file')).toThrow('EEXIST');
    expect(() => disk.makeDirectory('/none/a')).toThrow('ENOENT');
  });

  it('takes a directory that stands where it may neither read nor write', (context) => {
    if (process.getuid?.() !== 0) return context.skip('only root can become somebody else');
    const nobody = 65_534;
    const closed = join(root, 'closed');
    const own = join(closed, 'own');
    mkdirSync(own, { recursive: true });
    chmodSync(root, 0o711);
    chmodSync(closed, 0o711);
    chownSync(own, nobody, nobody);
    const script = `
      const { makeDirectories } = await import(process.argv[1]);
      const { NodeDisk } = await import(process.argv[2]);
      makeDirectories(new NodeDisk(), process.argv[3]);
      makeDirectories(new NodeDisk(), process.argv[3] + '/wal');`;
    const urls = ['make-directories.js', 'node-disk.js'].map(
      (file) => new URL(`../../dist/storage/${file}`, import.meta.url).href,
    );
    const child = spawnSync(
      process.execPath,
      ['--input-type=module', '--eval', script, ...urls, own],
      { uid: nobody, gid: nobody, encoding: 'utf8' },
    );
    expect(child.stderr).toBe('');
    expect(existsSync(join(own, 'wal'))).toBe(true);
  });
});
