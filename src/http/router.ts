/**
 * Which route a method and path name. Pure; the table:
 *
 *     PUT GET DELETE  /v1/kv/{key}
 *     GET             /v1/kv
 *     GET             /v1/status
 *     GET             /livez (alias /healthz), /readyz
 *
 * HEAD is answered wherever GET is.
 */
import { HttpFailure } from './errors.js';
import { decode, type RequestTarget } from './request-target.js';

export type KeyValueRoute =
  | { readonly name: 'put' | 'get' | 'delete'; readonly key: string }
  | { readonly name: 'range' };

export type Route = KeyValueRoute | { readonly name: 'status' | 'livez' | 'readyz' };

type PlainName = Exclude<Route, { readonly key: string }>['name'];

const KEY_PREFIX = '/v1/kv/';

const PLAIN_ROUTES: ReadonlyMap<string, PlainName> = new Map([
  ['/v1/kv', 'range'],
  ['/v1/status', 'status'],
  ['/livez', 'livez'],
  ['/healthz', 'livez'],
  ['/readyz', 'readyz'],
]);

const KEY_METHODS: ReadonlyMap<string, 'put' | 'get' | 'delete'> = new Map([
  ['PUT', 'put'],
  ['GET', 'get'],
  ['HEAD', 'get'],
  ['DELETE', 'delete'],
]);

export function route(method: string, target: RequestTarget): Route {
  const { path } = target;
  const plain = PLAIN_ROUTES.get(path);
  if (plain !== undefined) {
    if (method !== 'GET' && method !== 'HEAD') throw methodNotAllowed(method, path, 'GET, HEAD');
    return { name: plain };
  }
  if (path.startsWith(KEY_PREFIX)) {
    const name = KEY_METHODS.get(method);
    if (name === undefined) throw methodNotAllowed(method, path, 'PUT, GET, HEAD, DELETE');
    return { name, key: decode(path.slice(KEY_PREFIX.length)) };
  }
  throw new HttpFailure(404, 'KEELSON_ROUTE_NOT_FOUND', `there is no route ${path.slice(0, 100)}`);
}

function methodNotAllowed(method: string, path: string, allow: string): HttpFailure {
  return new HttpFailure(
    405,
    'KEELSON_METHOD_NOT_ALLOWED',
    `${method} is not allowed on ${path.slice(0, 100)} (allowed: ${allow})`,
    { headers: { allow } },
  );
}
