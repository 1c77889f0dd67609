import { KeelsonError } from '../base/errors.js';

/** `host:port`, an IPv6 host in brackets: `[::1]:7000`. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const ADDRESS = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^:[\]\s]+)):(\d{1,5})$/;
const MAX_PORT = 65_535;
/** A name of 253 characters, as long as DNS has them, and a port. */
const MAX_LENGTH = 260;

export function isAddress(value: unknown): value is string {
  if (typeof value !== 'string' || value.length > MAX_LENGTH) return false;
  return Number(ADDRESS.exec(value)?.[3]) <= MAX_PORT;
}

/** @throws KeelsonError INVALID_ARGUMENT naming what is wrong with the text. */
export function parseAddress(text: string): Address {
  const match = isAddress(text) ? ADDRESS.exec(text) : null;
  if (match === null) {
    throw new KeelsonError(
      'KEELSON_INVALID_ARGUMENT',
      `"${text}" is not an address: write host:port, or [IPv6]:port`,
      { details: { address: text } },
    );
  }
  return { host: match[1] ?? match[2]!, port: Number(match[3]) };
}

export function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
