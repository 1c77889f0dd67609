/** `keelson/http`: serves a node that runs the key-value machine over HTTP. */
export type { HttpErrorCode } from './errors.js';
export { createHttpHandler, type HttpHandler, type HttpOptions } from './handler.js';
export type { KeyValueRaft } from './key-value-routes.js';
export { type HttpListenOptions, HttpServer } from './server.js';
