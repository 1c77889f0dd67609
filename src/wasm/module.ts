/**
 * Loads the one WASM module: compiled once per process thread, synchronously (it is some ten
 * kilobytes), and instantiated over a shared memory that the caller provides.
 *
 * TypeScript has the types of WebAssembly only in its library of the browser; what is needed of them
 * is declared here and stays out of the public API, where module and memory are opaque.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { KeelsonError } from '../base/errors.js';
import type { KeelsonExports } from './abi.js';

/** A compiled module; can be posted to a worker. */
export interface CompiledModule {
  readonly [Symbol.toStringTag]: string;
}

/** A shared memory; can be posted to a worker, which then sees the same bytes. */
export interface WasmMemory {
  readonly buffer: SharedArrayBuffer;
  /** Returns the previous size in pages. Throws a RangeError when the host refuses. */
  grow(pages: number): number;
}

declare namespace WebAssembly {
  const Module: new (bytes: Uint8Array) => CompiledModule;
  const Memory: new (descriptor: { initial: number; maximum: number; shared: true }) => WasmMemory;
  const Instance: new (
    module: CompiledModule,
    imports: { env: { memory: WasmMemory } },
  ) => { readonly exports: unknown };
}

export const PAGE_BYTES = 65536;

let compiled: CompiledModule | undefined;

/** @throws KeelsonError KEELSON_MISSING_FILE when the module is not beside the compiled library. */
export function compiledModule(): CompiledModule {
  compiled ??= compileModule(new URL('./keelson.wasm', import.meta.url));
  return compiled;
}

export function compileModule(location: URL): CompiledModule {
  return new WebAssembly.Module(readModule(location));
}

function readModule(location: URL): Uint8Array {
  const file = fileURLToPath(location);
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new KeelsonError(
      'KEELSON_MISSING_FILE',
      `cannot read the WebAssembly module ${file}. It ships beside Keelson's own JavaScript: a bundler ` +
        'must leave the package keelson external or copy dist/wasm/keelson.wasm to that place; in a ' +
        'source tree, run `npm run build`.',
      { cause, details: { file } },
    );
  }
}

export function createMemory(initialPages: number, maximumPages: number): WasmMemory {
  return new WebAssembly.Memory({ initial: initialPages, maximum: maximumPages, shared: true });
}

export function instantiate(module: CompiledModule, memory: WasmMemory): KeelsonExports {
  return new WebAssembly.Instance(module, { env: { memory } }).exports as KeelsonExports;
}
