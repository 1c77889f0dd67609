import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as abi from '../../dist/wasm/abi.js';
import * as layout from '../../dist/wasm/layout.js';

/** `payloadLength` becomes `PAYLOAD_LENGTH`. */
const upper = (name: string): string => name.replace(/([a-z])([A-Z])/g, '$1_$2').toUpperCase();

function flatten(prefix: string, value: unknown, into: Map<string, number>): void {
  if (typeof value === 'number') into.set(prefix, value);
  else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      flatten(`${prefix}_${upper(key)}`, inner, into);
    }
  }
}

function assemblyConstants(): Map<string, number> {
  const source = readFileSync(new URL('../../assembly/layout.ts', import.meta.url), 'utf8');
  const constants = new Map<string, number>();
  for (const [, name, value] of source.matchAll(/^export const (\w+): \w+ = (\w+);$/gm)) {
    constants.set(name!, Number(value));
  }
  const declared = source.match(/^export const /gm)?.length;
  expect(constants.size).toBe(declared);
  return constants;
}

test('the constants of assembly/layout.ts are those of the TypeScript layouts', () => {
  const originals = new Map<string, number>();
  for (const [name, value] of Object.entries({ ...layout, ...abi })) {
    flatten(name, value, originals);
  }
  originals.set('MAX_SAFE_INTEGER', Number.MAX_SAFE_INTEGER);
  const constants = assemblyConstants();
  // The other way round, some originals are of no use to the WASM side.
  for (const [name, value] of constants) expect(originals.get(name), name).toBe(value);
  for (const name of originals.keys()) {
    if (/^(BATCH|BLOCK|ITEM|HARD_STATE|EXTENT|BLOCKS_SUMMARY|VERIFY_ERROR|INDEX)_/.test(name)) {
      expect(constants.has(name), name).toBe(true);
    }
  }
});

test('fields neither overlap nor leave their record', () => {
  const widths: Record<string, number> = { u16: 2, u32: 4, u64: 8, f64: 8 };
  const files = ['layout.ts', 'abi.ts'].map((file) =>
    readFileSync(new URL(`../../src/wasm/${file}`, import.meta.url), 'utf8'),
  );
  let records = 0;
  for (const [, name, body] of files
    .join('\n')
    .matchAll(/^export const (\w+) = \{\n((?: {2}.*\n)+)\} as const;/gm)) {
    const size = Number(body!.match(/^ {2}bytes: (\d+),/m)?.[1]);
    const fields = [...body!.matchAll(/^ {4}(\w+): (\d+), \/\/ (u16|u32|u64|f64)/gm)];
    if (Number.isNaN(size) || fields.length === 0) continue;
    records++;
    let end = 0;
    for (const [, field, offset, type] of fields) {
      expect(Number(offset), `${name}.${field}`).toBeGreaterThanOrEqual(end);
      expect(Number(offset) % Math.min(widths[type!]!, 8), `${name}.${field}`).toBe(0);
      end = Number(offset) + widths[type!]!;
    }
    expect(end, name).toBeLessThanOrEqual(size);
  }
  expect(records).toBeGreaterThanOrEqual(8);
});
