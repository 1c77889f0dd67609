/**
 * What the disk gives a program that does nothing else: write + fdatasync round and round in a file of
 * zeros, one after the other. The measure of the suite `log`.
 */
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs';
import { LatencySamples } from './latency.js';

const MIB = 1024 * 1024;
const FILE_BYTES = 64 * MIB;
const MAX_WRITE_BYTES = 16 * MIB;

export interface RawResult {
  readonly bytesPerFlush: number;
  readonly bytesPerSecond: number;
  readonly flushesPerSecond: number;
  readonly latency: { readonly p50: number; readonly p99: number };
}

export class RawLoop {
  private writes = 0;
  private bytes = 0;
  private elapsedMs = 0;
  private readonly latency = new LatencySamples();
  private readonly descriptor: number;
  private readonly buffer = new Uint8Array(MAX_WRITE_BYTES).fill(0x5a);
  private position = 0;

  constructor(path: string) {
    this.descriptor = openSync(path, 'w');
    const zeros = new Uint8Array(MIB);
    for (let at = 0; at < FILE_BYTES; at += MIB) writeSync(this.descriptor, zeros, 0, MIB, at);
    fdatasyncSync(this.descriptor);
  }

  run(bytes: number, forMs: number): void {
    const length = Math.min(bytes, this.buffer.length);
    const start = performance.now();
    let before = start;
    while (before - start < forMs) {
      if (this.position + length > FILE_BYTES) this.position = 0;
      writeSync(this.descriptor, this.buffer, 0, length, this.position);
      fdatasyncSync(this.descriptor);
      this.position += length;
      const after = performance.now();
      this.latency.add((after - before) * 1000);
      this.writes++;
      this.bytes += length;
      before = after;
    }
    this.elapsedMs += before - start;
  }

  result(): RawResult {
    const seconds = this.elapsedMs / 1000;
    const { p50, p99 } = this.latency.summary();
    return {
      bytesPerFlush: Math.round(this.bytes / this.writes),
      bytesPerSecond: Math.round(this.bytes / seconds),
      flushesPerSecond: Math.round(this.writes / seconds),
      latency: { p50, p99 },
    };
  }

  close(): void {
    closeSync(this.descriptor);
  }
}
