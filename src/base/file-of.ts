import { fileURLToPath } from 'node:url';

/** How errors name a file (`details.file`) that is known by its URL: by its path, if it has one. */
export function fileOf(location: URL | string): string {
  const url = new URL(location);
  return url.protocol === 'file:' ? fileURLToPath(url) : url.href;
}
