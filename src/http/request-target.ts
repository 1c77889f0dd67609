/**
 * Strict reading of a request target, byte for byte: `/v1/kv/a/../b` is the key `a/../b`, not `b`,
 * so nothing here goes through a URL parser that normalises. Whatever cannot be read exactly is
 * refused with 400: a misspelt `ifversion` must not turn a compare-and-set into an overwrite.
 *
 *     /v1/kv/{key}?name=value&…
 *     key    the rest of the path, percent-decoded; slashes in it may stand unescaped
 *     value  percent-decoded, `+` is a space
 */
import { malformed } from './errors.js';

export interface RequestTarget {
  /** As sent, still percent-encoded. */
  readonly path: string;
  readonly parameters: ReadonlyMap<string, string>;
}

export function parseRequestTarget(target: string): RequestTarget {
  const origin = originForm(target);
  const question = origin.indexOf('?');
  if (question === -1) return { path: origin, parameters: NO_PARAMETERS };
  return {
    path: origin.slice(0, question),
    parameters: parseParameters(origin.slice(question + 1)),
  };
}

/** A server must also take the absolute form that clients send to proxies (RFC 9112, 3.2.2). */
function originForm(target: string): string {
  if (target.startsWith('/')) return target;
  const absolute = /^https?:\/\/[^/?]*/i.exec(target);
  if (absolute === null) throw malformed('the request target must be a path');
  const rest = target.slice(absolute[0].length);
  return rest.startsWith('/') ? rest : `/${rest}`;
}

const NO_PARAMETERS: ReadonlyMap<string, string> = new Map();

function parseParameters(text: string): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of text.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decode(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? '' : decode(pair.slice(equals + 1).replaceAll('+', ' '));
    if (parameters.has(name)) throw malformed(`query parameter "${name}" is given twice`);
    parameters.set(name, value);
  }
  return parameters;
}

/** Percent-decodes as UTF-8; anything else than well-formed is refused. */
export function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    throw malformed(`malformed percent-encoding in "${text.slice(0, 100)}"`);
  }
}

export function onlyParameters(
  parameters: ReadonlyMap<string, string>,
  allowed: readonly string[],
): void {
  for (const name of parameters.keys()) {
    if (allowed.includes(name)) continue;
    const known = allowed.length === 0 ? 'none' : allowed.join(', ');
    throw malformed(`unknown query parameter "${name}" (known here: ${known})`);
  }
}

/** A decimal whole number without sign, exponent or leading zeros. */
export function wholeNumber(name: string, text: string, minimum: number, maximum: number): number {
  const value = /^(0|[1-9]\d{0,15})$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum)) {
    throw malformed(`${name} must be a whole number from ${minimum} to ${maximum}`);
  }
  return value;
}
