// A storage worker whose writes to the log never return once a file named `hang` stands beside it.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import run from '../../dist/storage/storage-worker.js';

const { existsSync, writeSync } = fs;

export default function runUntilHang(task) {
  if (task.type === 'lane') {
    const hang = `${task.options.directory}/hang`;
    fs.writeSync = (...write) => {
      if (existsSync(hang)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      return writeSync(...write);
    };
    syncBuiltinESMExports();
  }
  return run(task);
}
