/**
 * What one durable write costs on this disk: write + fdatasync of 4 KiB over a file that was filled
 * with zeros before, one after the other, as a log with a single writer does it.
 */
import { closeSync, fdatasyncSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

export interface DiskProbe {
  readonly samples: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
}

const BLOCK_BYTES = 4_096;
const SAMPLES = 128;
/** On a very slow disk fewer samples have to do. */
const TIME_LIMIT_MS = 3_000;

export function probeDisk(directory: string): DiskProbe {
  const file = join(directory, 'disk-probe');
  const descriptor = openSync(file, 'wx');
  try {
    writeSync(descriptor, Buffer.alloc(BLOCK_BYTES * SAMPLES), 0, BLOCK_BYTES * SAMPLES, 0);
    fsyncSync(descriptor);
    return measure(descriptor);
  } finally {
    closeSync(descriptor);
    rmSync(file);
  }
}

function measure(descriptor: number): DiskProbe {
  const block = Buffer.alloc(BLOCK_BYTES, 'keelson');
  const micros: number[] = [];
  const startMs = performance.now();
  while (micros.length < SAMPLES && performance.now() - startMs < TIME_LIMIT_MS) {
    const beforeMs = performance.now();
    writeSync(descriptor, block, 0, BLOCK_BYTES, micros.length * BLOCK_BYTES);
    fdatasyncSync(descriptor);
    micros.push((performance.now() - beforeMs) * 1_000);
  }
  micros.sort((a, b) => a - b);
  const percentile = (share: number): number => micros[Math.ceil(micros.length * share) - 1]!;
  return { samples: micros.length, p50Micros: percentile(0.5), p99Micros: percentile(0.99) };
}
